/**
 * What the ops that select keys by scores have in common: chunk by chunk scores, then the largest
 * of each row, and the naive twin of it.
 *
 * @module
 */
import type * as tfc from "@tensorflow/tfjs-core";
import { MAX_KEYS, type TieRule, topK } from "../../kernels/select/top_k.ts";
import type { Matrix, Recorder, Tf, TfMatrix } from "../op.ts";
import { byQueryChunks, type QueryChunk } from "../query_chunks.ts";

/** Sizes of a selection. */
export interface SelectionSizes {
  /** Sequences. */
  batch: number;
  /** Positions of a sequence, at most 65 536. */
  seqLen: number;
  /** Keys that a query selects if it sees that many. */
  topk: number;
}

/** How keys are selected by scores. */
export interface TopkAttributes extends SelectionSizes {
  /** Which of keys with equal scores is selected first; default: the oldest. */
  ties?: TieRule;
}

/** Throws unless these attributes are whole numbers above 0, and a row fits the kernels. */
export function requireSizes(op: string, sizes: SelectionSizes & Record<string, number>): void {
  for (const [name, value] of Object.entries(sizes)) {
    if (!(Number.isInteger(value) && value > 0)) {
      throw new RangeError(`Cannot apply ${op}: ${name} is ${value}, not a whole number above 0`);
    }
  }
  if (sizes.seqLen > MAX_KEYS) {
    throw new RangeError(`Cannot apply ${op}: seqLen is ${sizes.seqLen}, the most is ${MAX_KEYS}`);
  }
}

/**
 * Records the selection of the largest scores, chunk by chunk.
 *
 * @param inputs what `score` binds
 * @param score records the kernels that make the scores [batch · rows, keys] of a chunk, in
 * `scratch` or elsewhere
 */
export function recordTopk(
  r: Recorder,
  sizes: TopkAttributes,
  inputs: readonly Matrix[],
  indices: Matrix,
  score: (chunk: QueryChunk, scratch: Matrix) => Matrix,
): void {
  byQueryChunks(r, sizes, [...inputs, indices], 1, (chunk, scratch) => {
    const scores = score(chunk, scratch);
    const selected = chunk.queriesOf(indices);
    const { firstRow, batch } = chunk;
    const { capabilities } = r;
    const { seqLen: capacity, ties } = sizes;
    r.dispatch(
      topK({ scores, indices: selected, firstRow, batch, ties, capacity, capabilities }),
    );
  });
}

/**
 * The twin of one row or more: positions [..., count] of the largest of each row of `scores`, in any
 * order. `tf.topk` puts the lower index first where scores are equal.
 */
function twinLargest(
  tf: Tf,
  scores: tfc.Tensor,
  count: number,
  ties: TieRule = "oldest",
): tfc.Tensor {
  if (ties === "oldest") return tf.topk(scores, count).indices;
  const axis = scores.rank - 1;
  const { indices } = tf.topk(tf.reverse(scores, axis), count);
  return tf.sub(tf.scalar(scores.shape[axis] - 1, "int32"), indices);
}

/** The twin of one row: indices [1, topk] of its `scores` [1, keys], ascending, then -1. */
export function twinTopkRow(
  tf: Tf,
  scores: tfc.Tensor,
  topk: number,
  ties?: TieRule,
): TfMatrix {
  const count = Math.min(topk, scores.size);
  const chosen = Array.from(twinLargest(tf, scores, count, ties).dataSync()).sort((a, b) => a - b);
  const row = Int32Array.from({ length: topk }, (_, i) => chosen[i] ?? -1);
  return tf.tensor2d(row, [1, topk], "int32");
}

/** The twin: indices [batch · seqLen, topk] from all scores [batch, seqLen, seqLen]. */
export function twinTopk(
  tf: Tf,
  scores: tfc.Tensor,
  { batch, seqLen, topk, ties }: TopkAttributes,
): TfMatrix {
  const count = Math.min(topk, seqLen);
  const indices = twinLargest(tf, tf.add(scores, twinHidden(tf, seqLen)), count, ties);
  const order = tf.cast(indices, "float32");
  const rows = tf.reshape(tf.range(0, seqLen, 1, "float32"), [1, seqLen, 1]);
  // Rows that see fewer than `count` keys get hidden ones too: these become `seqLen`, sort last.
  const visible = tf.where(tf.lessEqual(order, rows), order, tf.fill(order.shape, seqLen));
  const ascending = tf.neg(tf.topk(tf.neg(visible), count).values);
  const none = tf.fill(order.shape, -1);
  const kept = tf.where(tf.less(ascending, seqLen), ascending, none);
  const flat = tf.reshape(kept, [batch * seqLen, count]);
  const padded = tf.pad(flat, [[0, 0], [0, topk - count]], -1);
  return tf.cast(padded, "int32") as TfMatrix;
}

/** [1, seqLen, seqLen]: 0 where a query sees a key, -∞ elsewhere. */
export function twinHidden(tf: Tf, seqLen: number): tfc.Tensor {
  const hidden = Float32Array.from(
    { length: seqLen * seqLen },
    (_, i) => i % seqLen > Math.floor(i / seqLen) ? -Infinity : 0,
  );
  return tf.tensor3d(hidden, [1, seqLen, seqLen]);
}
