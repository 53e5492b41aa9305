/**
 * Head tax: what one selection for all heads costs.
 *
 * @module
 */
import type { RunConfig } from "../../config/config.ts";
import type { Stage } from "../../config/stage_fields.ts";
import type { Batch } from "../../data/dataset.ts";
import type { Engine } from "../../engine.ts";
import { NotFinite } from "../../model/finite.ts";
import { type StageView, viewOf } from "../../model/stage_view.ts";
import { languageModel } from "../../model/transformer.ts";
import { firstMeasured } from "../../ops/indexer/metrics.ts";

/** Sequences that are looked at. */
const MOST_SEQUENCES = 4;
/** Their first tokens that are looked at, or four times k where that is more. */
const LEAST_TOKENS = 512;
/** Queries that are looked at, of all sequences together; of more every n-th. */
const MOST_QUERIES = 1024;

/** Shares of dense attention that k keys hold, in the mean over queries and heads. */
export interface HeadShares {
  /** Each head's on the keys that it gives the most. */
  readonly own: number;
  /** Each head's on the keys that have the most in the mean over heads. */
  readonly shared: number;
}

/**
 * What k keys hold of a query's attention, a selection a head and one for all heads. Of equal weights
 * the lower position wins, as everywhere. The head tax is `own − shared`, never below 0.
 *
 * @param weights a row of as many keys for each head, each of sum 1
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { headShares } from "./head_tax.ts";
 *
 * const apart = [[1, 0], [0, 1]];
 * assert.deepEqual(headShares(apart, 1), { own: 1, shared: 0.5 });
 * assert.deepEqual(headShares(apart, 2), { own: 1, shared: 1 });
 * ```
 */
export function headShares(weights: readonly ArrayLike<number>[], k: number): HeadShares {
  const heads = weights.length;
  const mean = Float64Array.from(
    weights[0],
    (_, s) => weights.reduce((sum, row) => sum + row[s], 0) / heads,
  );
  const common = strongest(mean, k);
  const mass = (row: ArrayLike<number>, keys: readonly number[]) =>
    keys.reduce((sum, s) => sum + row[s], 0);
  let own = 0, shared = 0;
  for (const row of weights) {
    own += mass(row, strongest(row, k)) / heads;
    shared += mass(row, common) / heads;
  }
  return { own, shared };
}

/** Positions of the k largest, of all if there are fewer. */
function strongest(row: ArrayLike<number>, k: number): number[] {
  const all = Array.from(row, (_, s) => s);
  return k >= row.length ? all : all.sort((a, b) => row[b] - row[a] || a - b).slice(0, k);
}

/** Head shares of each layer, and what they are of. */
export interface HeadTax {
  /** Keys of a selection. */
  readonly topk: number;
  /** Tokens of a sequence that were looked at, the first. */
  readonly tokens: number;
  /** By layer. */
  readonly layers: readonly HeadShares[];
}

/**
 * Shares of the layers' dense attention, in float64, on the first sequences of a batch: the inputs of
 * each layer are those under the stage's attention. The means are over the queries that
 * `measureIndexer` looks at, so that `shared` is its `oracle_mass`, but for how many: of long sequences
 * only the first 512 tokens are looked at, or 4k if that is more (what follows changes nothing of
 * them), and of more than 1024 queries every n-th.
 *
 * @throws {NotFinite} if attention is not
 */
export async function measureHeadTax(
  engine: Engine,
  { config, stage, batch }: { config: RunConfig; stage: Stage; batch: Batch },
): Promise<HeadTax> {
  const { seqLen, numHiddenLayers } = config;
  const topk = Math.min(stage.indexTopk, seqLen);
  const tokens = Math.min(seqLen, Math.max(LEAST_TOKENS, 4 * topk));
  const view: StageView = {
    ...viewOf(stage, config),
    ...{ kl: "none", keeps: ["q", "kv", "kPe"] },
  };
  const loss = languageModel(config, { stage: view });
  const maps = await engine.maps(batch, { name: `heads ${stage.name}`, loss });
  const sequences = Math.min(MOST_SEQUENCES, batch.tokens.length / seqLen);
  const first = firstMeasured(tokens, topk);
  const queries = Array.from(
    { length: sequences * (tokens - first) },
    (_, i) => ({
      start: Math.floor(i / (tokens - first)) * seqLen,
      t: first + i % (tokens - first),
    }),
  );
  const stride = Math.ceil(queries.length / MOST_QUERIES);
  const places = queries.filter((_, i) => i % stride === 0);
  const layers = Array.from({ length: numHiddenLayers }, (_, layer): HeadShares => {
    const [q, kv, kPe] = ["q", "kv", "kPe"].map((name) => maps.get(`${name}.${layer}`)!);
    let own = 0, shared = 0;
    for (const place of places) {
      const shares = headShares(attentionWeights({ q, kv, kPe }, place, config), topk);
      own += shares.own / places.length;
      shared += shares.shared / places.length;
    }
    if (!Number.isFinite(own)) throw new NotFinite(`attention of layer ${layer}`, own);
    return { own, shared };
  });
  return { topk, tokens, layers };
}

/**
 * Dense attention of one query, a row `[t + 1]` a head: the softmax of what its head's and the shared
 * key give, as in `mlaAttention`.
 *
 * @param tensors q `[N, heads · (nope + rope)]`, kv `[N, heads · (nope + value)]`, kPe `[N, rope]`
 * @param place first row of the sequence, and the position of the query in it
 */
function attentionWeights(
  { q, kv, kPe }: Record<"q" | "kv" | "kPe", ArrayLike<number>>,
  { start, t }: { start: number; t: number },
  config: RunConfig,
): Float64Array[] {
  const { numAttentionHeads: heads, qkNopeHeadDim: nope, qkRopeHeadDim: rope } = config;
  const { vHeadDim, window } = config;
  const scale = (nope + rope) ** -0.5;
  const oldest = Math.max(0, t + 1 - (window ?? Infinity));
  return Array.from({ length: heads }, (_, head) => {
    const query = ((start + t) * heads + head) * (nope + rope);
    const weights = new Float64Array(t + 1);
    for (let s = oldest; s <= t; s++) {
      const key = ((start + s) * heads + head) * (nope + vHeadDim);
      let product = 0;
      for (let i = 0; i < nope; i++) product += q[query + i] * kv[key + i];
      const shared = (start + s) * rope;
      for (let i = 0; i < rope; i++) product += q[query + nope + i] * kPe[shared + i];
      weights[s] = scale * product;
    }
    softmax(weights.subarray(oldest));
    return weights;
  });
}

/** In place. */
function softmax(logits: Float64Array): void {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += logits[i] = Math.exp(logits[i] - largest);
  for (let i = 0; i < logits.length; i++) logits[i] /= sum;
}
