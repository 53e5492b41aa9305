/**
 * The naive twin of the attention ops: softmax over the whole matrix of scores.
 *
 * @module
 */
import type * as tfc from "@tensorflow/tfjs-core";
import type { Extent } from "../../kernels/attention/attention.ts";
import type { Tf, TfMatrix } from "../op.ts";

/** What queries see besides being causal. */
export interface TwinView {
  /** Query t sees key s only if t - s < window. */
  window?: number;
  /** [batch, 1, seqLen, seqLen]: 1 where a key is selected for a query, else 0. */
  selected?: tfc.Tensor;
}

/** What a key that is not seen has added to its score. */
const HIDDEN = -1e9;

/** `lse` of a query for which nothing is selected, as in the kernels. */
const EMPTY = 1e30;

/**
 * Causal softmax attention with the whole matrix of scores. `q` and `k` are
 * [batch, heads, seqLen, width], `v` likewise.
 *
 * @returns `o` [batch · seqLen, heads · value] and `lse` [batch · seqLen, heads]
 */
export function twinOfAttention(
  tf: Tf,
  q: tfc.Tensor,
  k: tfc.Tensor,
  v: tfc.Tensor,
  scale: number,
  { window = Infinity, selected }: TwinView = {},
): [TfMatrix, TfMatrix] {
  const seqLen = q.shape[2]!;
  const allowed = Float32Array.from({ length: seqLen * seqLen }, (_, i) => {
    const distance = Math.floor(i / seqLen) - i % seqLen;
    return distance >= 0 && distance < window ? 1 : 0;
  });
  const inReach = tf.reshape(tf.tensor2d(allowed, [seqLen, seqLen]), [1, 1, seqLen, seqLen]);
  const seen = selected ? tf.mul(inReach, selected) : inReach;
  const scores = tf.add(
    tf.mul(tf.matMul(q, k, false, true), scale),
    tf.mul(tf.sub(1, seen), HIDDEN),
  );
  const logs = tf.logSoftmax(scores);
  const top = (x: tfc.Tensor) => tf.max(x, 3, true);
  // A score less its logarithm of the softmax is lse; of the best score it is exact.
  const lse = tf.sub(top(scores), top(logs));
  if (!selected) return [twinRows(tf, tf.matMul(tf.exp(logs), v)), twinRows(tf, lse)];
  const o = tf.matMul(tf.mul(tf.exp(logs), seen), v);
  return [twinRows(tf, o), twinRows(tf, tf.add(lse, tf.mul(tf.sub(1, top(seen)), EMPTY)))];
}

/** `selected` of a {@linkcode TwinView}, from `indices` [batch · seqLen, topk] with -1 for none. */
export function twinSelection(tf: Tf, indices: TfMatrix, { batch, seqLen }: Extent): tfc.Tensor {
  const hits = tf.sum(tf.oneHot(indices, seqLen, 1, 0, "float32"), 1);
  return tf.reshape(hits, [batch, 1, seqLen, seqLen]);
}

/** The reverse of {@linkcode twinHeads}. */
function twinRows(tf: Tf, x: tfc.Tensor): TfMatrix {
  const [batch, heads, seqLen, width] = x.shape as [number, number, number, number];
  return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [batch * seqLen, heads * width]);
}

/** Heads of a matrix: [batch · seqLen, heads · width] as [batch, heads, seqLen, width]. */
export function twinHeads(
  tf: Tf,
  x: TfMatrix,
  { batch, seqLen }: Extent,
  heads: number,
): tfc.Tensor {
  const width = x.shape[1] / heads;
  return tf.transpose(tf.reshape(x, [batch, seqLen, heads, width]), [0, 2, 1, 3]);
}
