import type * as tfc from "@tensorflow/tfjs-core";
import { sumHeads } from "../kernels/attention.ts";
import { attentionTarget } from "../kernels/attention_target.ts";
import { scaledSum } from "../kernels/cross_entropy.ts";
import { fill } from "../kernels/fill.ts";
import { indexGradientK, indexGradientQ } from "../kernels/index_gradient.ts";
import { indexScores } from "../kernels/index_scores.ts";
import { indexerKl, TARGET_FLOOR } from "../kernels/indexer_kl.ts";
import { twinHeads } from "./attention_passes.ts";
import { detachOp } from "./detach.ts";
import {
  type Matrix,
  matrixType,
  type Op,
  type Recorder,
  requireShapes,
  type Tensor,
  type TensorType,
  type Tf,
  type TfMatrix,
} from "./op.ts";
import { byQueryChunks, type QueryChunk } from "./query_chunks.ts";

/** Sizes and factors of an indexer and of the attention that teaches it. */
export interface IndexerDims {
  batch: number;
  seqLen: number;
  indexHeads: number;
  indexHeadDim: number;
  activation: "relu" | "none";
  /** Factor of the index scores, usually (indexHeads · indexHeadDim)^-0.5. */
  indexScale: number;
  /** Heads of the attention. */
  heads: number;
  qkNopeHeadDim: number;
  qkRopeHeadDim: number;
  vHeadDim: number;
  /** Factor of the attention's scores, usually (qkNopeHeadDim + qkRopeHeadDim)^-0.5. */
  scale: number;
}

/** Attributes of {@linkcode indexerLoss}. */
export interface IndexerLossAttributes extends IndexerDims {
  /** `forward`: KL(p‖q), p the teacher; `reverse`: KL(q‖p), p at least {@linkcode TARGET_FLOOR}. */
  direction: "forward" | "reverse";
  /** Factor of this loss in the objective. */
  weight: number;
  /** Whether the gradients are computed along with the value. Without them none passes. */
  gradient: boolean;
}

/** An attention layer as a teacher: the inputs of `mlaAttention`, and an `lse`. */
export interface Teacher {
  /** `[N, heads · (qkNopeHeadDim + qkRopeHeadDim)]`. */
  q: Tensor;
  /** `[N, heads · (qkNopeHeadDim + vHeadDim)]`. */
  kv: Tensor;
  /** `[N, qkRopeHeadDim]`. */
  kPe: Tensor;
  /** `[N, heads]`. */
  lse: Tensor;
}

/** The inputs that ops on an indexer and its teacher have in common, by name. */
function named<T>([qI, kI, w, q, kv, kPe, lse, mask]: readonly T[]) {
  return { qI, kI, w, q, kv, kPe, lse, mask: mask ?? null };
}

/** Checks the inputs of an op on an indexer, its teacher and, perhaps, a mask. */
export function requireIndexer(op: string, inputs: readonly TensorType[], dims: IndexerDims): void {
  const { batch, seqLen, indexHeads, indexHeadDim, heads, qkNopeHeadDim, vHeadDim } = dims;
  const counts = { batch, seqLen, indexHeads, indexHeadDim, heads, qkNopeHeadDim, vHeadDim };
  for (const [name, count] of Object.entries(counts)) {
    if (!Number.isInteger(count) || count < 1) {
      throw new RangeError(`Cannot apply ${op}: ${name} is ${count}, not a whole number above 0`);
    }
  }
  for (const name of ["indexScale", "scale"] as const) {
    if (!(dims[name] > 0 && Number.isFinite(dims[name]))) {
      throw new RangeError(`Cannot apply ${op}: ${name} is ${dims[name]}, not a number above 0`);
    }
  }
  const rope = dims.qkRopeHeadDim;
  const rows = batch * seqLen;
  const cols = [
    indexHeads * indexHeadDim,
    indexHeadDim,
    indexHeads,
    heads * (qkNopeHeadDim + rope),
    heads * (qkNopeHeadDim + vHeadDim),
    rope,
    heads,
    Math.ceil(seqLen / 32),
  ];
  requireShapes(
    (inputs.length === 7 || inputs.length === 8) &&
      inputs.every((x, i) =>
        x.rows === rows && x.cols === cols[i] && x.dtype === (i === 7 ? "i32" : "f32")
      ),
    op,
    inputs,
    ["qI", "kI", "w", "q", "kv", "kPe", "lse", "i32 mask or none"]
      .map((name, i) => `${name} ${rows}x${cols[i]}`).join(", "),
  );
}

/** Records index scores and teacher of a chunk into `scores` and `target` [rows, keys]. */
export function recordScores(
  r: Recorder,
  inputs: readonly Matrix[],
  dims: IndexerDims,
  chunk: QueryChunk,
  scores: Matrix,
  target: Matrix,
): void {
  const { qI, kI, w, q, kv, kPe, lse } = named(inputs);
  const { capabilities } = r;
  const { firstRow, batch } = chunk;
  const index = [chunk.queriesOf(qI), chunk.keysOf(kI), chunk.queriesOf(w)] as const;
  r.dispatch(
    indexScores({
      q: index[0],
      k: index[1],
      w: index[2],
      scores,
      firstRow,
      heads: dims.indexHeads,
      dim: dims.indexHeadDim,
      activation: dims.activation,
      scale: dims.indexScale,
      batch,
      capabilities,
    }),
    ...index,
    scores,
  );
  const given = {
    q: chunk.queriesOf(q),
    kv: chunk.keysOf(kv),
    kPe: chunk.keysOf(kPe),
    lse: chunk.queriesOf(lse),
  };
  r.dispatch(
    attentionTarget({ ...given, ...dims, target, firstRow, batch, capabilities }),
    ...Object.values(given),
    target,
  );
}

/** The indexer's loss; see {@linkcode indexerLoss}. Outputs: kl, gradients of qI, kI and w. */
export const indexerLossOp: Op<IndexerLossAttributes> = {
  name: "indexerLoss",
  savesOutputs: true,
  types(inputs, attributes) {
    requireIndexer("indexerLoss", inputs, attributes);
    const gradients = attributes.gradient ? inputs.slice(0, 3) : [];
    return [matrixType(1, 1), ...gradients.map(({ rows, cols }) => matrixType(rows, cols))];
  },
  twin(tf, inputs, attributes) {
    const { scores, target, support } = twinScores(tf, inputs, attributes);
    const hidden = tf.mul(tf.sub(1, support), -1e9);
    const p = tf.div(target, tf.sum(target, 2, true));
    const logQ = tf.logSoftmax(tf.add(scores, hidden));
    const logP = (least: number) => tf.log(tf.maximum(p, least));
    const terms = attributes.direction === "forward"
      ? tf.mul(p, tf.sub(logP(1e-38), logQ))
      : tf.mul(tf.exp(logQ), tf.sub(logQ, logP(TARGET_FLOOR)));
    const { batch, seqLen } = attributes;
    const kl = tf.div(tf.sum(tf.mul(terms, support)), batch * seqLen);
    // Autodiff of the value gives the gradients here: nothing reads these outputs.
    const gradients = attributes.gradient ? inputs.slice(0, 3).map((x) => tf.zeros(x.shape)) : [];
    return [tf.reshape(kl, [1, 1]) as TfMatrix, ...gradients as TfMatrix[]];
  },
  forward(r, inputs, [kl, dq, dk, dw], attributes) {
    const { qI, kI, w, mask } = named(inputs);
    const { indexHeads: heads, indexHeadDim: dim, activation, indexScale, gradient } = attributes;
    const { capabilities } = r;
    const rows = r.temporary(qI.rows, 1);
    const shares = gradient ? r.temporary(qI.rows, qI.cols) : null;
    byQueryChunks(r, attributes, inputs, 2, (chunk, scores, target) => {
      const { firstRow, batch, queriesOf, keysOf } = chunk;
      recordScores(r, inputs, attributes, chunk, scores, target);
      const bits = mask && queriesOf(mask);
      const row = queriesOf(rows);
      const divergence = indexerKl({
        scores,
        target,
        mask: bits,
        kl: row,
        firstRow,
        batch,
        direction: attributes.direction,
        gradient: gradient ? attributes.weight / qI.rows : null,
        software: capabilities.software,
      });
      r.dispatch(divergence, scores, target, ...bits ? [bits] : [], row);
      if (!shares) return;
      const read = [queriesOf(qI), keysOf(kI), queriesOf(w), scores] as const;
      const [q, k, weights, gradScores] = read;
      const sizes = { firstRow, batch, heads, dim, activation, scale: indexScale, capabilities };
      const spec = { q, k, w: weights, gradScores, ...sizes };
      const [gradQ, gradW, gradK] = [queriesOf(dq), queriesOf(dw), keysOf(shares)];
      r.dispatch(indexGradientQ(spec, gradQ, gradW), ...read, gradQ, gradW);
      r.dispatch(indexGradientK(spec, gradK, !chunk.isFirst), ...read, gradK);
    });
    if (shares) {
      r.byRows([shares, dk], (shares, dk) => r.dispatch(sumHeads(shares, dk), shares, dk));
    }
    const perRow = r.temporary(1, 1);
    r.dispatch(fill({ x: perRow, value: 1 / qI.rows }), perRow);
    r.dispatch(scaledSum({ x: rows, scale: perRow, out: kl }), rows, perRow, kl);
  },
  backward(r, _inputs, [_kl, ...gradients], { weight }) {
    const given = r.lossWeight(0);
    if (given !== weight) {
      throw new RangeError(
        `Cannot weigh an indexer loss by ${given}: its gradients have the factor ${weight} already; ` +
          "list it as a loss with the weight of its attributes",
      );
    }
    gradients.forEach((gradient, i) => r.pass(i, gradient));
  },
};

/**
 * Index scores, teacher (not normalised) and support as [batch, seqLen, seqLen], for twins. Nothing
 * flows back through the teacher.
 */
export function twinScores(
  tf: Tf,
  inputs: readonly TfMatrix[],
  dims: IndexerDims,
): { scores: tfc.Tensor; target: tfc.Tensor; support: tfc.Tensor } {
  const { qI, kI, w, mask, ...teacher } = named(inputs);
  const { batch, seqLen, heads, qkNopeHeadDim: nope } = dims;
  const extent = { batch, seqLen };
  const products = tf.matMul(
    twinHeads(tf, qI, extent, dims.indexHeads),
    tf.tile(twinHeads(tf, kI, extent, 1), [1, dims.indexHeads, 1, 1]),
    false,
    true,
  );
  const act = dims.activation === "relu" ? tf.relu(products) : products;
  const weights = twinHeads(tf, w, extent, dims.indexHeads);
  const scores = tf.mul(tf.sum(tf.mul(act, weights), 1), dims.indexScale);
  const [q, kv, kPe, lse] = [teacher.q, teacher.kv, teacher.kPe, teacher.lse]
    .map((x) => detachOp.twin(tf, [x], { cols: x.shape[1] })[0]);
  const own = tf.slice(twinHeads(tf, kv, extent, heads), [0, 0, 0, 0], [-1, -1, -1, nope]);
  const shared = tf.tile(twinHeads(tf, kPe, extent, 1), [1, heads, 1, 1]);
  const logits = tf.matMul(
    twinHeads(tf, q, extent, heads),
    tf.concat([own, shared], 3),
    false,
    true,
  );
  const support = twinSupport(tf, mask, dims);
  const hidden = tf.expandDims(tf.mul(tf.sub(1, support), -1e9), 1);
  const logs = tf.sub(tf.mul(logits, dims.scale), twinHeads(tf, lse, extent, heads));
  return { scores, target: tf.mean(tf.exp(tf.add(logs, hidden)), 1), support };
}

/** 1 where a query may look: at all keys up to itself, or at those of its row of the mask. */
function twinSupport(
  tf: Tf,
  mask: TfMatrix | null,
  { batch, seqLen }: IndexerDims,
): tfc.Tensor {
  const bits = mask?.dataSync();
  const words = Math.ceil(seqLen / 32);
  const support = new Float32Array(batch * seqLen * seqLen);
  for (let row = 0, i = 0; row < batch * seqLen; row++) {
    for (let s = 0; s < seqLen; s++, i++) {
      const isSet = !bits || (bits[row * words + (s >> 5)] >> (s & 31) & 1) === 1;
      support[i] = Number(s <= row % seqLen && isSet);
    }
  }
  return tf.tensor3d(support, [batch, seqLen, seqLen]);
}

/**
 * The loss of the lightning indexer (DeepSeek-V3.2, eq. 3 and 4): the mean over all rows t of the
 * divergence, in nats, of q = softmax of the index scores
 * I[t, s] = indexScale · Σ_j w[t, j] · act(qI_j[t] · kI[s]) from the teacher
 * p[t, s] ∝ Σ_h exp(scale · (q_h[t] · k_h[s]) − lse_h[t]), both over the support: all keys s ≤ t
 * without a mask (warm-up), those of the mask with one.
 *
 * With a mask, the `lse` of attention restricted to it makes p the mean over the heads of their
 * restricted attention; the `lse` of dense attention makes p the dense mean, cut and renormalised.
 *
 * Gradients go to `qI`, `kI` and `w` alone. They are computed together with the value, times
 * `weight`: the loss has to be a root of the backward pass, with that weight.
 *
 * @param qI [batch · seqLen, indexHeads · indexHeadDim], rotated
 * @param kI [batch · seqLen, indexHeadDim], normalised and rotated
 * @param w [batch · seqLen, indexHeads]
 * @param teacher the inputs of `mlaAttention`, and `lse` [batch · seqLen, heads]
 * @param mask i32 [batch · seqLen, ceil(seqLen / 32)]: bit s % 32 of word s / 32 is set where key s
 * is selected; null for all keys
 * @returns [1, 1]
 * @throws {RangeError} if shapes and sizes do not fit
 * @example
 * ```ts ignore
 * const kl = indexerLoss(qI, kI, w, { q, kv, kPe, lse }, null, {
 *   ...dims,
 *   direction: "forward",
 *   weight: 1,
 *   gradient: true,
 * });
 * ```
 */
export function indexerLoss(
  qI: Tensor,
  kI: Tensor,
  w: Tensor,
  { q, kv, kPe, lse }: Teacher,
  mask: Tensor | null,
  attributes: IndexerLossAttributes,
): Tensor {
  const inputs = [qI, kI, w, q, kv, kPe, lse, ...mask ? [mask] : []];
  return qI.backend.apply(indexerLossOp, inputs, attributes)[0];
}
