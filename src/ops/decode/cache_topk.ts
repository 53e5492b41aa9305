import type { Indexer } from "../../kernels/indexer/indexer.ts";
import { cacheScores } from "../../kernels/decode/cache_scores.ts";
import { type TieRule, topK } from "../../kernels/select/top_k.ts";
import { isPosition } from "./cache_append.ts";
import { matrixType, type Op, requireShapes, type Tensor } from "../op.ts";
import { requireSizes, twinTopkRow } from "../select/chunks.ts";

/** Attributes of {@linkcode cacheTopk}. */
export interface CacheTopkAttributes {
  /** Keys to select if that many are cached. */
  topk: number;
  /** Whose scores they are. */
  indexer: Indexer;
  /** Which of keys with equal scores is selected first; default: the oldest. */
  ties?: TieRule;
}

/** Cached keys with the largest index scores; see {@linkcode cacheTopk}. */
export const cacheTopkOp: Op<CacheTopkAttributes> = {
  name: "cacheTopk",
  stopsGradient: true,
  types(inputs, { topk, indexer: { heads, dim } }) {
    const [qI, kI, w, position] = inputs;
    requireShapes(
      inputs.length === 4 && qI.rows === 1 && w.rows === 1 && w.cols === heads &&
        qI.cols === heads * dim && kI.cols === dim && isPosition(position),
      "cacheTopk",
      inputs,
      `qI [1, ${heads} * ${dim}], kI [capacity, ${dim}], w [1, ${heads}], i32 position [1, 1]`,
    );
    requireSizes("cacheTopk", { batch: 1, seqLen: kI.rows, topk, heads, dim });
    return [matrixType(1, topk, "i32")];
  },
  twin(tf, [qI, kI, w, position], { topk, ties, indexer }) {
    const { heads, dim, activation, scale } = indexer;
    const visible = position.dataSync()[0] + 1;
    const keys = tf.slice(kI, [0, 0], [visible, dim]);
    const products = tf.matMul(tf.reshape(qI, [heads, dim]), keys, false, true);
    const activated = activation === "relu" ? tf.relu(products) : products;
    const scores = tf.mul(tf.matMul(w, activated), scale);
    return [twinTopkRow(tf, scores, topk, ties)];
  },
  forward(r, [qI, kI, w, position], [indices], { indexer, ties }) {
    const scores = r.temporary(1, kI.rows);
    r.dispatch(cacheScores({ q: qI, k: kI, w, position, scores, indexer }));
    const { capabilities } = r;
    r.dispatch(topK({ scores, positions: position, indices, firstRow: 0, ties, capabilities }));
  },
};

/**
 * `indexTopk` for one query at a position, over cached keys: the `topk` of the positions up to its
 * own that the lightning indexer scores highest; of equal scores the lower position wins, or with
 * `ties: "newest"` the higher one. For generating; no gradient passes.
 *
 * @param qI [1, heads · dim], rotated
 * @param kI [capacity, dim], normalised and rotated; rows after `position` are not read
 * @param w [1, heads], signed
 * @param position i32 [1, 1], below the capacity
 * @returns i32 [1, topk]: min(topk, position + 1) positions, ascending, then -1
 * @throws {RangeError} if shapes and sizes do not fit
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { cacheTopk } from "./cache_topk.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const [one, keys] = [backend.tensor([1], 1, 1), backend.tensor([5, 1, 3, 9], 4, 1)];
 * const position = backend.tensor([2], 1, 1, "i32");
 * const indexer = { heads: 1, dim: 1, activation: "relu", scale: 1 } as const;
 * const indices = cacheTopk(one, keys, one, position, { topk: 2, indexer });
 * assert.deepEqual([...backend.read(indices)], [0, 2]);
 * ```
 */
export function cacheTopk(
  qI: Tensor,
  kI: Tensor,
  w: Tensor,
  position: Tensor,
  attributes: CacheTopkAttributes,
): Tensor {
  return qI.backend.apply(cacheTopkOp, [qI, kI, w, position], attributes)[0];
}
