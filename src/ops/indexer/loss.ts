import type { IndexerLossAttributes } from "./loss_attributes.ts";
import type * as tfc from "@tensorflow/tfjs-core";
import { sumHeads } from "../../kernels/attention/attention.ts";
import { scaledSum } from "../../kernels/token/cross_entropy.ts";
import { fill } from "../../kernels/token/fill.ts";
import { indexGradientK, indexGradientQ } from "../../kernels/indexer/gradient.ts";
import { indexerKl, TARGET_FLOOR } from "../../kernels/indexer/kl.ts";
import { formOf } from "../attention/selection.ts";
import { columnsOf } from "../matrix.ts";
import { recordGatheredLoss } from "./loss_gathered.ts";
import {
  type IndexerAttributes,
  inputsOfHead,
  recordTarget,
  requireIndexer,
  scoresOf,
  type TeacherTensors,
  twinScores,
} from "./teacher.ts";
import {
  type Matrix,
  matrixType,
  type Op,
  type Recorder,
  requireShapes,
  type Tensor,
  type Tf,
  type TfMatrix,
} from "../op.ts";
import { byQueryChunks } from "../query_chunks.ts";

/** The keys that a loss is over. */
export interface LossSelection {
  /** i32 [N, topk]: the selected keys' positions within the sequence, ascending, then -1. */
  indices: Tensor;
  /** i32 [N, ⌈seqLen / 32⌉], the same selection: bit s % 32 of word s / 32. */
  mask: Tensor;
  /** What `sparseMlaAttention` of the teacher has left over it, which saves computing them again. */
  scores?: Tensor;
}

/** The indexer's loss; see {@linkcode indexerLoss}. Outputs: kl, gradients of qI, kI and w. */
export const indexerLossOp: Op<IndexerLossAttributes> = {
  name: "indexerLoss",
  savesOutputs: true,
  types(inputs, attributes) {
    requireIndexer("indexerLoss", inputs.slice(0, 8), attributes);
    const { rows } = inputs[0];
    const [indices, scores, ...more] = inputs.slice(8);
    requireShapes(
      inputs.length === 7 || indices?.rows === rows && indices.dtype === "i32" && !more.length,
      "indexerLoss",
      inputs,
      `i32 indices [${rows}, topk] after the mask, or neither`,
    );
    const { klHeads, indexer, teacher: { dims } } = attributes;
    requireShapes(
      !scores || scores.rows === rows && scores.cols === dims.heads * indices.cols,
      "indexerLoss",
      inputs,
      `scores [${rows}, ${dims.heads} * ${indices?.cols}] after the indices, or none`,
    );
    if (klHeads === "each" && dims.heads !== indexer.heads) {
      throw new RangeError(
        `Cannot apply indexerLoss to each head: ${indexer.heads} index heads have ` +
          `${dims.heads} teachers`,
      );
    }
    const gradients = attributes.gradient ? inputs.slice(0, 3) : [];
    return [matrixType(1, 1), ...gradients.map(({ rows, cols }) => matrixType(rows, cols))];
  },
  twin(tf, inputs, attributes) {
    const groups = groupsOf(
      inputs,
      attributes,
      (x, start, count) => tf.slice(x, [0, start], [-1, count]),
    );
    const kl = tf.div(
      tf.addN(groups.map((group) => twinDivergence(tf, group, attributes.direction))),
      inputs[0].shape[0] * groups.length,
    );
    // Autodiff of the value gives the gradients here: nothing reads these outputs.
    const gradients = attributes.gradient ? inputs.slice(0, 3).map((x) => tf.zeros(x.shape)) : [];
    return [tf.reshape(kl, [1, 1]) as TfMatrix, ...gradients as TfMatrix[]];
  },
  forward(r, inputs, [kl, ...gradients], attributes) {
    const { rows: count } = inputs[0];
    const indices = inputs.at(8);
    const { form, seqLen, klHeads, indexer } = attributes;
    const divergences = klHeads === "each" ? indexer.heads : 1;
    const rows = r.temporary(count, divergences);
    const isGathered = indices && formOf(form, seqLen, indices.cols) === "gathered";
    if (isGathered && klHeads !== "each") {
      recordGatheredLoss(r, inputs, rows, gradients, attributes);
    } else {
      recordMaskedLoss(r, inputs.slice(0, 8), rows, gradients, attributes);
    }
    const perRow = r.temporary(1, 1);
    r.dispatch(fill({ x: perRow, value: 1 / (count * divergences) }));
    const all: Matrix = { ...rows, rows: count * divergences, cols: 1, stride: 1 };
    r.dispatch(scaledSum({ x: all, scale: perRow, out: kl }));
  },
  backward(_r, g, _inputs, [_kl, ...gradients], { weight }) {
    const given = g.lossWeight(0);
    if (given !== weight) {
      throw new RangeError(
        `Cannot weigh an indexer loss by ${given}: its gradients have the factor ${weight} already; ` +
          "list it as a loss with the weight of its attributes",
      );
    }
    gradients.forEach((gradient, i) => g.pass(i, gradient));
  },
};

/** What one divergence is of: all heads together, or a head. */
interface Group<T> {
  readonly inputs: readonly T[];
  /** Of its heads alone. */
  readonly attributes: IndexerAttributes;
  /** Columns of the group in a matrix with `width` of them for each index head. */
  own(of: T, width: number): T;
}

/** The groups of heads that are taught together. */
function groupsOf<T>(
  inputs: readonly T[],
  attributes: IndexerLossAttributes,
  columns: (of: T, start: number, count: number) => T,
): Group<T>[] {
  if (attributes.klHeads !== "each") return [{ inputs, attributes, own: (of) => of }];
  const { indexer, teacher } = attributes;
  const one = {
    ...attributes,
    indexer: { ...indexer, heads: 1 },
    teacher: { ...teacher, dims: { ...teacher.dims, heads: 1, kvHeads: 1 } },
  };
  return Array.from({ length: indexer.heads }, (_, h) => ({
    inputs: inputsOfHead(inputs, attributes, h, columns),
    attributes: one,
    own: (of, width) => columns(of, h * width, width),
  }));
}

/** The sum of a group's divergences over all rows. */
function twinDivergence(
  tf: Tf,
  { inputs, attributes }: Group<TfMatrix>,
  direction: IndexerLossAttributes["direction"],
): tfc.Tensor {
  const { scores, target, support } = twinScores(tf, inputs, attributes);
  const hidden = tf.mul(tf.sub(1, support), -1e9);
  const p = tf.div(target, tf.sum(target, 2, true));
  const logQ = tf.logSoftmax(tf.add(scores, hidden));
  const logP = (least: number) => tf.log(tf.maximum(p, least));
  const terms = direction === "forward"
    ? tf.mul(p, tf.sub(logP(1e-38), logQ))
    : tf.mul(tf.exp(logQ), tf.sub(logQ, logP(TARGET_FLOOR)));
  return tf.sum(tf.mul(terms, support));
}

/** Records the divergences of each row and the gradients by chunks of whole rows of scores. */
function recordMaskedLoss(
  r: Recorder,
  inputs: readonly Matrix[],
  rows: Matrix,
  gradients: readonly Matrix[],
  attributes: IndexerLossAttributes,
): void {
  const [qI] = inputs;
  const mask = inputs.at(7) ?? null;
  const { indexer: { dim }, gradient, direction, weight } = attributes;
  const { capabilities } = r;
  const [dq, dk, dw] = gradients;
  const shares = gradient ? r.temporary(qI.rows, qI.cols) : null;
  const groups = groupsOf(inputs, attributes, columnsOf);
  byQueryChunks(r, attributes, inputs, 2, (chunk, scratch, target) => {
    const { firstRow, batch, queriesOf, keysOf } = chunk;
    const bits = mask && queriesOf(mask);
    for (const { inputs, attributes, own } of groups) {
      const { indexer, teacher } = attributes;
      const [qI, kI, w] = inputs;
      const { scores, signs } = scoresOf(r, inputs, attributes, chunk, scratch, gradient);
      recordTarget(r, inputs.slice(3), teacher, chunk, target);
      const row = own(queriesOf(rows), 1);
      const divergence = indexerKl({
        ...{ scores, target, mask: bits, kl: row, firstRow, batch, direction },
        gradient: gradient ? weight / (rows.rows * rows.cols) : null,
        software: capabilities.software,
      });
      r.dispatch(divergence);
      if (!shares) continue;
      // The gradient of the scores is where the teacher was.
      const given = { q: queriesOf(qI), k: keysOf(kI), w: queriesOf(w), gradScores: target };
      const spec = { ...given, signs, firstRow, batch, indexer, capabilities };
      const [gradQ, gradW] = [own(queriesOf(dq), dim), own(queriesOf(dw), 1)];
      const gradK = own(keysOf(shares), dim);
      r.dispatch(indexGradientQ(spec, gradQ, gradW));
      r.dispatch(indexGradientK(spec, gradK, !chunk.isFirst));
    }
  });
  if (shares) {
    r.byRows([shares, dk], (shares, into) => r.dispatch(sumHeads(shares, { into, add: null })));
  }
}

/**
 * The loss of the lightning indexer (DeepSeek-V3.2, eq. 3 and 4): the mean over all rows t of the
 * divergence, in nats, of q = softmax of the index scores
 * I[t, s] = scale · Σ_j w[t, j] · act(qI_j[t] · kI[s]) from the teacher
 * p[t, s] ∝ Σ_h exp(scale · (q_h[t] · k_h[s]) − lse_h[t]), both over the support: all keys s ≤ t
 * without a selection (warm-up), those of the selection with one.
 *
 * With a selection, the `lse` of attention restricted to it makes p the mean over the heads of their
 * restricted attention; the `lse` of dense attention makes p the dense mean, cut and renormalised.
 *
 * With `klHeads: "each"` index head j learns the attention of head j, from its own term of I, and
 * the loss is the mean over the heads as well.
 *
 * Gradients go to `qI`, `kI` and `w` alone. They are computed together with the value, times
 * `weight`: the loss has to be a root of the backward pass, with that weight.
 *
 * @param qI [batch · seqLen, heads · dim] of the indexer, rotated
 * @param kI [batch · seqLen, dim], normalised and rotated
 * @param w [batch · seqLen, heads]
 * @param teacher the inputs of `mlaAttention`, and `lse` [batch · seqLen, heads]
 * @param selection the keys of each query, as indices and as bits; null for all keys
 * @returns [1, 1]
 * @throws {RangeError} if shapes and sizes do not fit
 * @example
 * ```ts ignore
 * const kl = indexerLoss(qI, kI, w, { q, kv, kPe, lse }, null, {
 *   ...{ batch, seqLen, indexer, teacher },
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
  { q, kv, kPe, lse }: TeacherTensors,
  selection: LossSelection | null,
  attributes: IndexerLossAttributes,
): Tensor {
  const { mask, indices, scores } = selection ?? {};
  const selected = mask && indices ? [mask, indices, ...scores ? [scores] : []] : [];
  const inputs = [qI, kI, w, q, kv, kPe, lse, ...selected];
  return qI.backend.apply(indexerLossOp, inputs, attributes)[0];
}
