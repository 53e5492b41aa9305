import {
  distanceBins,
  indexerRowMetrics,
  maskOverlapRows,
  meanOfRows,
  ROW_METRICS,
} from "../../kernels/indexer/metrics.ts";
import { type TieRule, topK } from "../../kernels/select/top_k.ts";
import { columnsOf } from "../matrix.ts";
import {
  recordTarget,
  requireIndexer,
  scoresOf,
  type ScoringTensors,
  type SelectingAttributes,
  type TeacherTensors,
  twinScores,
  twinTarget,
} from "./teacher.ts";
import { matrixType, type Op, requireShapes, type Tensor, type TfMatrix } from "../op.ts";
import { byQueryChunks } from "../query_chunks.ts";

export { distanceBins } from "../../kernels/indexer/metrics.ts";

/** Names of the columns of {@linkcode indexerMetrics}. */
export const INDEXER_METRICS = ROW_METRICS;

/** Those that are said of scores alone: nothing, where attention selects without an indexer. */
export const SCORE_METRICS: readonly (typeof ROW_METRICS)[number][] = [
  "kl",
  "index_entropy",
  "dead_scores",
  "score_mean",
  "score_std",
];

/** Attributes of {@linkcode indexerMetrics}. */
export interface IndexerMetricsAttributes extends SelectingAttributes {
  /** Keys per row of the selection, k. */
  topk: number;
  /** A selected key is local if t − s is less; default 16. */
  localWindow?: number;
  /** Which of keys with equal attention the oracle selects first; default: the oldest. */
  ties?: TieRule;
}

/**
 * First position that the means count: 2k, where a random choice catches at most half of the keys.
 * If no row is that late it is k, and if none is even that late it is 0.
 */
export function firstMeasured(seqLen: number, topk: number): number {
  return 2 * topk < seqLen ? 2 * topk : topk < seqLen ? topk : 0;
}

/** Rows that the means are over. */
function measuredRows(batch: number, seqLen: number, topk: number): number {
  return batch * (seqLen - firstMeasured(seqLen, topk));
}

/** Measurements of an indexer; see {@linkcode indexerMetrics}. Outputs: means, histogram. */
export const indexerMetricsOp: Op<IndexerMetricsAttributes> = {
  name: "indexerMetrics",
  types(inputs, attributes) {
    requireIndexer("indexerMetrics", inputs, attributes);
    const { topk, localWindow = 16, seqLen, indexer } = attributes;
    if (inputs.length !== (indexer ? 8 : 5)) {
      throw new RangeError("Cannot apply indexerMetrics without a mask");
    }
    requireCount("indexerMetrics", "topk", topk);
    requireCount("indexerMetrics", "localWindow", localWindow);
    return [matrixType(1, INDEXER_METRICS.length), matrixType(1, distanceBins(seqLen))];
  },
  twin(tf, inputs, attributes) {
    const { batch, seqLen, topk, indexer } = attributes;
    const target = twinTarget(tf, inputs.slice(-5, -1), attributes);
    const { scores } = indexer
      ? twinScores(tf, inputs.slice(0, 7), { ...attributes, indexer })
      : { scores: target };
    const [allScores, allTargets] = [scores, target].map((x) => x.dataSync());
    const from = firstMeasured(seqLen, topk);
    const selections = twinSelections(inputs.at(-1)!);
    const cols = INDEXER_METRICS.length + distanceBins(seqLen);
    const means = new Float64Array(cols);
    for (let row = 0; row < batch * seqLen; row++) {
      const t = row % seqLen;
      if (t < from) continue;
      const seen = (x: ArrayLike<number>) =>
        Array.from({ length: t + 1 }, (_, s) => x[row * seqLen + s]);
      const selection = selections[row].filter((s) => s <= t);
      const values = twinRow(seen(allScores), seen(allTargets), selection, attributes);
      values.forEach((x, c) => means[c] += x / measuredRows(batch, seqLen, topk));
    }
    const row = tf.tensor2d(Float32Array.from(means), [1, cols]);
    return tf.split(row, [INDEXER_METRICS.length, distanceBins(seqLen)], 1) as TfMatrix[];
  },
  forward(r, inputs, [means, histogram], attributes) {
    const { seqLen, localWindow = 16, indexer, teacher, ties } = attributes;
    const k = Math.min(attributes.topk, seqLen);
    const { capabilities } = r;
    const [mask, taught] = [inputs.at(-1)!, inputs.slice(-5, -1)];
    const from = firstMeasured(seqLen, k);
    const rows = r.temporary(mask.rows, means.cols + histogram.cols);
    const bound = [...inputs, rows];
    byQueryChunks(r, attributes, bound, indexer ? 4 : 3, (chunk, scratch, target, ...rooms) => {
      const { firstRow, batch } = chunk;
      // Their rows have room for as many indices as there are keys.
      const lists = rooms.map((m) => ({ ...m, cols: k, stride: k, dtype: "i32" as const }));
      const [oracle, highest = oracle] = lists;
      const { scores } = indexer
        ? scoresOf(r, inputs, { ...attributes, indexer }, chunk, scratch)
        : { scores: target };
      recordTarget(r, taught, teacher, chunk, target);
      const common = { firstRow, batch, ties, capacity: seqLen, capabilities };
      r.dispatch(topK({ scores: target, indices: oracle, ...common }));
      if (indexer) r.dispatch(topK({ scores, indices: highest, ...common }));
      const [bits, out] = [chunk.queriesOf(mask), chunk.queriesOf(rows)];
      const measure = indexerRowMetrics({
        scores,
        target,
        mask: bits,
        oracle,
        highest,
        out,
        firstRow,
        batch,
        from,
        localWindow,
        software: capabilities.software,
      });
      r.dispatch(measure);
    });
    const parts = [[means, 0], [histogram, means.cols]] as const;
    for (const [out, start] of parts) {
      const x = columnsOf(rows, start, out.cols);
      r.dispatch(meanOfRows({ x, out, seqLen, from }));
    }
  },
};

/** The positions that are set in each row of a mask. */
function twinSelections(mask: TfMatrix): number[][] {
  const [rows, words] = mask.shape;
  const bits = mask.dataSync();
  return Array.from({ length: rows }, (_, row) =>
    Array.from({ length: 32 * words }, (_, s) => s)
      .filter((s) => bits[row * words + (s >> 5)] >> (s & 31) & 1));
}

/** All measurements of one row, then its histogram. */
function twinRow(
  scores: number[],
  targets: number[],
  selection: number[],
  { seqLen, topk, localWindow = 16, ties = "oldest" }: IndexerMetricsAttributes,
): number[] {
  const sum = (x: readonly number[]) => x.reduce((a, b) => a + b, 0);
  const count = scores.length;
  const t = count - 1;
  const top = Math.max(...scores);
  const logZ = top + Math.log(sum(scores.map((x) => Math.exp(x - top))));
  const logQ = scores.map((x) => x - logZ);
  const p = targets.map((x) => x / sum(targets));
  const pLog = (i: number, log: number) => p[i] > 0 ? p[i] * log : 0;
  const k = Math.min(topk, seqLen);
  const first = ties === "oldest" ? 1 : -1;
  const oracle = p.map((_, s) => s).sort((a, b) => p[b] - p[a] || first * (a - b)).slice(0, k);
  const threshold = scores.toSorted((a, b) => b - a)[Math.min(k, count) - 1];
  const mass = (keys: readonly number[]) => sum(keys.map((s) => p[s]));
  const mean = sum(scores) / count;
  const most = Math.max(Math.log(count), 1e-6);
  const distances = selection.map((s) => t - s);
  const values: Record<typeof INDEXER_METRICS[number], number> = {
    kl: sum(p.map((x, i) => pLog(i, Math.log(x) - logQ[i]))),
    captured_mass: mass(selection),
    oracle_mass: mass(oracle),
    random_mass: Math.min(k, count) / count,
    set_overlap: oracle.filter((s) => selection.includes(s)).length / k,
    score_recall: mass(selection) / mass(oracle),
    target_entropy: -sum(p.map((x, i) => pLog(i, Math.log(x)))) / most,
    index_entropy: -sum(logQ.map((x) => Math.exp(x) * x)) / most,
    dead_scores: scores.filter((x) => x === 0).length / count,
    score_mean: mean,
    score_std: Math.sqrt(sum(scores.map((x) => (x - mean) ** 2)) / count),
    sink_share: Number(selection.includes(0)),
    local_share: distances.filter((d) => d < localWindow).length / selection.length,
    tied_rows: Number(scores.filter((x) => x >= threshold).length > k),
  };
  const histogram = new Array(distanceBins(seqLen)).fill(0);
  for (const d of distances) histogram[32 - Math.clz32(d)] += 1 / selection.length;
  return [...INDEXER_METRICS.map((name) => values[name]), ...histogram];
}

/**
 * How well an indexer knows its attention, and what is selected, by it or by another rule. All are means over the rows t of a
 * sequence from {@linkcode firstMeasured} on ({@linkcode measuredRows} of them): earlier rows select
 * most of what they see. p is the teacher and q the softmax of the index scores, both over all keys
 * s ≤ t; the columns are, in the order of {@linkcode INDEXER_METRICS} (the first, the entropies and
 * those of scores know nothing of the selection, the others nothing of the scores):
 *
 * - `kl`: KL(p‖q) in nats
 * - `captured_mass`: Σ p over the selection; `oracle_mass`: over the k largest p, the most possible;
 *   `random_mass`: k / (t + 1), what a random choice has on average
 * - `set_overlap`: share of the k largest p that are selected
 * - `score_recall`: captured mass / oracle mass
 * - `target_entropy`, `index_entropy`: entropies of p and q as fractions of ln(t + 1)
 * - `dead_scores`: share of the visible keys whose score is exactly 0
 * - `score_mean`, `score_std`: mean and standard deviation of a row's visible scores
 * - `sink_share`: share of the rows that select key 0
 * - `local_share`: share of the selected keys with t − s < localWindow
 * - `tied_rows`: share of the rows whose k-th and next largest scores are equal, so that the tie rule
 *   decides what the k keys of the largest scores are; without an indexer it is said of attention
 *
 * Passes no gradient.
 *
 * @param indexer whose scores; null: attention stands for them, what selects without an indexer, and
 * what {@linkcode SCORE_METRICS} say means nothing
 * @param teacher the inputs of `mlaAttention`, and the `lse` of dense attention
 * @param mask i32 [batch · seqLen, ceil(seqLen / 32)]: bit s % 32 of word s / 32 is set where key s
 * is selected; every row needs one
 * @returns `means` [1, INDEXER_METRICS.length] and `histogram` [1, distanceBins(seqLen)], the shares
 * of the selected keys at distance t − s = 0, 1, 2–3, 4–7, …
 * @throws {RangeError} if shapes and sizes do not fit
 * @example
 * ```ts ignore
 * const { means, histogram } = indexerMetrics({ qI, kI, w }, teacher, mask, {
 *   ...{ batch, seqLen, indexer, teacher, topk: 64 },
 * });
 * ```
 */
export function indexerMetrics(
  indexer: ScoringTensors | null,
  { q, kv, kPe, lse }: TeacherTensors,
  mask: Tensor,
  attributes: IndexerMetricsAttributes,
): { means: Tensor; histogram: Tensor } {
  const scoring = indexer ? [indexer.qI, indexer.kI, indexer.w] : [];
  const inputs = [...scoring, q, kv, kPe, lse, mask];
  const [means, histogram] = q.backend.apply(indexerMetricsOp, inputs, attributes);
  return { means, histogram };
}

/** Attributes of {@linkcode maskOverlap}. */
export interface MaskOverlapAttributes {
  batch: number;
  seqLen: number;
  topk: number;
}

/** What two selections share; see {@linkcode maskOverlap}. */
export const maskOverlapOp: Op<MaskOverlapAttributes> = {
  name: "maskOverlap",
  types(inputs, { batch, seqLen, topk }) {
    for (const [name, n] of Object.entries({ batch, seqLen, topk })) {
      requireCount("maskOverlap", name, n);
    }
    const [rows, cols] = [batch * seqLen, Math.ceil(seqLen / 32)];
    requireShapes(
      inputs.length === 2 &&
        inputs.every((x) => x.rows === rows && x.cols === cols && x.dtype === "i32"),
      "maskOverlap",
      inputs,
      `two i32 masks [${rows}, ${cols}]`,
    );
    return [matrixType(1, 1)];
  },
  twin(tf, [a, b], { batch, seqLen, topk }) {
    const [own, others] = [twinSelections(a), twinSelections(b)];
    let common = 0;
    for (let row = 0; row < batch * seqLen; row++) {
      if (row % seqLen < firstMeasured(seqLen, topk)) continue;
      const other = new Set(others[row]);
      common += own[row].filter((s) => other.has(s)).length;
    }
    const mean = common / Math.min(topk, seqLen) / measuredRows(batch, seqLen, topk);
    return [tf.tensor2d([mean], [1, 1])];
  },
  forward(r, [a, b], [mean], { seqLen, topk }) {
    const k = Math.min(topk, seqLen);
    const shares = r.temporary(a.rows, 1);
    r.byRows([a, b, shares], (a, b, shares) => {
      r.dispatch(maskOverlapRows({ a, b, shares, k }));
    });
    const from = firstMeasured(seqLen, topk);
    r.dispatch(meanOfRows({ x: shares, out: mean, seqLen, from }));
  },
};

/**
 * Mean of |A ∩ B| / k over the rows from {@linkcode firstMeasured} on, A and B the selections of a
 * row: how much neighbouring layers agree (IndexCache). Passes no gradient.
 *
 * @param a i32 [batch · seqLen, ceil(seqLen / 32)], a mask of selected keys
 * @param b another
 * @returns [1, 1]
 * @throws {RangeError} if shapes and sizes do not fit
 * @example
 * ```ts ignore
 * const overlap = maskOverlap(masks[0], masks[1], { batch, seqLen, topk: 64 });
 * ```
 */
export function maskOverlap(a: Tensor, b: Tensor, attributes: MaskOverlapAttributes): Tensor {
  return a.backend.apply(maskOverlapOp, [a, b], attributes)[0];
}

function requireCount(op: string, name: string, count: number): void {
  if (!Number.isInteger(count) || count < 1) {
    throw new RangeError(`Cannot apply ${op}: ${name} is ${count}, not a whole number above 0`);
  }
}
