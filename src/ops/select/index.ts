import type * as tfc from "@tensorflow/tfjs-core";
import { blockPool, type Pool } from "../../kernels/select/block_pool.ts";
import type { Indexer } from "../../kernels/indexer/indexer.ts";
import { recordScores, scoresOf } from "../indexer/teacher.ts";
import { matrixType, type Op, requireShapes, type Tensor, type Tf } from "../op.ts";
import { recordTopk, requireSizes, type TopkAttributes, twinHidden, twinTopk } from "./chunks.ts";

/** Attributes of {@linkcode indexTopk}. */
export interface IndexTopkAttributes extends TopkAttributes {
  /** Whose scores they are. */
  indexer: Indexer;
  /** Selects by the scores of whole blocks of `size` keys. */
  block?: { size: number; pool: Pool };
}

/** Keys with the largest index scores; see {@linkcode indexTopk}. */
export const indexTopkOp: Op<IndexTopkAttributes> = {
  name: "indexTopk",
  stopsGradient: true,
  types(inputs, attributes) {
    const { batch, seqLen, topk, indexer: { heads, dim, scale }, block } = attributes;
    requireSizes("indexTopk", { batch, seqLen, topk, heads, dim, blockSize: block?.size ?? 1 });
    if (!Number.isFinite(scale)) {
      throw new RangeError(`Cannot apply indexTopk: scale is ${scale}, not a finite number`);
    }
    const rows = batch * seqLen;
    const [q, k, w] = inputs;
    requireShapes(
      inputs.length === 3 && inputs.every((x) => x.rows === rows && x.dtype === "f32") &&
        q.cols === heads * dim && k.cols === dim && w.cols === heads,
      "indexTopk",
      inputs,
      `qI [${rows}, ${heads} * ${dim}], kI [${rows}, ${dim}], w [${rows}, ${heads}]`,
    );
    return [matrixType(rows, topk, "i32")];
  },
  twin(tf, [q, k, w], attributes) {
    const { batch, seqLen, indexer, block } = attributes;
    const { heads, dim, activation, scale } = indexer;
    const products = tf.matMul(
      tf.reshape(q, [batch, seqLen * heads, dim]),
      tf.reshape(k, [batch, seqLen, dim]),
      false,
      true,
    );
    const activated = activation === "relu" ? tf.relu(products) : products;
    const perHead = tf.reshape(activated, [batch, seqLen, heads, seqLen]);
    const weighted = tf.mul(perHead, tf.reshape(w, [batch, seqLen, heads, 1]));
    const scores = tf.mul(tf.sum(weighted, 2), scale);
    return [twinTopk(tf, block ? twinPool(tf, scores, block) : scores, attributes)];
  },
  forward(r, inputs, [indices], attributes) {
    const { indexer, block } = attributes;
    recordTopk(r, attributes, inputs, indices, (chunk, scratch) => {
      if (!block) return scoresOf(r, inputs, attributes, chunk, scratch).scores;
      const { firstRow, batch } = chunk;
      recordScores(r, inputs, indexer, chunk, scratch);
      r.dispatch(blockPool({ scores: scratch, firstRow, batch, ...block }));
      return scratch;
    });
  },
};

/** Each score replaced by that of its block, over the keys that the row sees. */
function twinPool(
  tf: Tf,
  scores: tfc.Tensor,
  { size, pool }: { size: number; pool: Pool },
): tfc.Tensor {
  const [batch, seqLen] = scores.shape;
  const blocks = Math.ceil(seqLen / size);
  const split = (x: tfc.Tensor, missing: number) =>
    tf.reshape(
      tf.pad(x, [[0, 0], [0, 0], [0, blocks * size - seqLen]], missing),
      [x.shape[0], seqLen, blocks, size],
    );
  const hidden = twinHidden(tf, seqLen);
  const visible = tf.exp(hidden);
  const pooled = pool === "max"
    ? tf.max(split(tf.add(scores, hidden), -Infinity), 3, true)
    : tf.div(
      tf.sum(split(tf.mul(scores, visible), 0), 3, true),
      // Blocks that nothing is seen of are hidden later.
      tf.maximum(tf.sum(split(visible, 0), 3, true), 1),
    );
  const spread = tf.reshape(tf.tile(pooled, [1, 1, 1, size]), [batch, seqLen, blocks * size]);
  return tf.slice(spread, [0, 0, 0], [-1, -1, seqLen]);
}

/**
 * Selects, for each query, the `topk` keys that the lightning indexer scores highest (DeepSeek-V3.2,
 * arXiv:2512.02556, eq. 1 and 2): I[t, s] = scale · Σ_j w[t, j] · act(qI_j[t] · kI[s]) over the
 * keys s ≤ t. Of equal scores the lower position wins, or with `ties: "newest"` the higher one, and -0
 * equals 0, so that the result is the same in every run. With `block`, each key has the score of its
 * block: the largest, or the mean, of what the query sees of it; whole blocks are taken as long as
 * there is room. No gradient passes.
 *
 * @param qI [batch · seqLen, heads · dim], rotated
 * @param kI [batch · seqLen, dim], normalised and rotated
 * @param w [batch · seqLen, heads], signed
 * @returns i32 [batch · seqLen, topk]: min(topk, t + 1) positions, ascending, then -1
 * @throws {RangeError} if shapes and sizes do not fit
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { indexTopk } from "./index.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const column = (values: number[]) => backend.tensor(values, 3, 1);
 * const indices = indexTopk(column([1, 1, 1]), column([5, 1, 3]), column([1, 1, 1]), {
 *   batch: 1,
 *   seqLen: 3,
 *   topk: 2,
 *   indexer: { heads: 1, dim: 1, activation: "relu", scale: 1 },
 * });
 * assert.deepEqual([...backend.read(indices)], [0, -1, 0, 1, 0, 2]);
 * ```
 */
export function indexTopk(
  qI: Tensor,
  kI: Tensor,
  w: Tensor,
  attributes: IndexTopkAttributes,
): Tensor {
  return qI.backend.apply(indexTopkOp, [qI, kI, w], attributes)[0];
}
