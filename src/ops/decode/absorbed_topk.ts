import {
  absorbedNorms,
  absorbedScores,
  absorbedShares,
} from "../../kernels/decode/absorbed_scores.ts";
import { type TieRule, topK } from "../../kernels/select/top_k.ts";
import { isPosition } from "./cache_append.ts";
import { matrixType, type Op, requireShapes, type Tensor } from "../op.ts";
import { requireSizes, twinTopkRow } from "../select/chunks.ts";

/** Attributes of {@linkcode absorbedTopk}. */
export interface AbsorbedTopkAttributes {
  /** Keys to select if that many are cached. */
  topk: number;
  /** Heads of the queries. */
  heads: number;
  /** Factor of the scores, as attention's. */
  scale: number;
  /** Which of keys with equal weights is selected first; default: the oldest. */
  ties?: TieRule;
}

/** Cached keys with the most attention; see {@linkcode absorbedTopk}. */
export const absorbedTopkOp: Op<AbsorbedTopkAttributes> = {
  name: "absorbedTopk",
  stopsGradient: true,
  types(inputs, { topk, heads }) {
    const [qLatent, q, latents, ropeKeys, position] = inputs;
    requireShapes(
      inputs.length === 5 && qLatent.rows === 1 && q.rows === 1 &&
        qLatent.cols === heads * latents.cols && q.cols % heads === 0 &&
        q.cols / heads >= ropeKeys.cols && ropeKeys.rows === latents.rows && isPosition(position),
      "absorbedTopk",
      inputs,
      `qLatent [1, ${heads} * latent], q [1, ${heads} * (nope + rope)], latents [capacity, latent], ` +
        "ropeKeys [capacity, rope], i32 position [1, 1]",
    );
    requireSizes("absorbedTopk", { batch: 1, seqLen: latents.rows, topk, heads });
    return [matrixType(1, topk, "i32")];
  },
  twin(tf, [qLatent, q, latents, ropeKeys, position], { topk, heads, scale, ties }) {
    const visible = position.dataSync()[0] + 1;
    const [c, k] = [latents, ropeKeys].map((x) => tf.slice(x, [0, 0], [visible, x.shape[1]]));
    const [rope, width] = [ropeKeys.shape[1], q.shape[1] / heads];
    const turned = tf.slice(tf.reshape(q, [heads, width]), [0, width - rope], [-1, rope]);
    const products = tf.matMul(tf.reshape(qLatent, [heads, c.shape[1]]), c, false, true);
    const scores = tf.mul(tf.add(products, tf.matMul(turned, k, false, true)), scale);
    const shares = tf.mean(tf.softmax(scores, 1), 0);
    return [twinTopkRow(tf, shares, topk, ties)];
  },
  forward(r, [qLatent, q, latents, ropeKeys, position], [indices], { heads, scale, ties }) {
    const { capabilities } = r;
    const scores = r.temporary(heads, latents.rows);
    const norms = r.temporary(heads, 2);
    const shares = r.temporary(1, latents.rows);
    const given = { qLatent, q, latents, ropeKeys, position };
    r.dispatch(absorbedScores({ ...given, scores, heads, scale }));
    r.dispatch(absorbedNorms({ scores, position, norms }));
    r.dispatch(absorbedShares({ scores, position, norms, shares }));
    const chosen = { scores: shares, positions: position, indices, firstRow: 0, ties };
    r.dispatch(topK({ ...chosen, capabilities }));
  },
};

/**
 * `oracleTopk` for one query at a position, in MLA's absorbed mode over a cache: the `topk` of the
 * positions up to its own to which dense attention gives the most weight, in the mean over its
 * heads: I[s] = (1/H) Σ_h softmax_s(scale · (q̃_h · c_s + q_rope,h · k_rope,s)). Of equal weights the
 * lower position wins, or with `ties: "newest"` the higher one. Reads the whole cache. For
 * generating; no gradient passes.
 *
 * @param qLatent [1, heads · latent]: q̃ of `absorbQueries`
 * @param q [1, heads · (nope + rope)], of which the rope columns, rotated, are used
 * @param latents [capacity, latent]; rows after `position` are not read
 * @param ropeKeys [capacity, rope], rotated; rows after `position` are not read
 * @param position i32 [1, 1], below the capacity
 * @returns i32 [1, topk]: min(topk, position + 1) positions, ascending, then -1
 * @throws {RangeError} if shapes and sizes do not fit
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { absorbedTopk } from "./absorbed_topk.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const [one, q] = [backend.tensor([1], 1, 1), backend.tensor([9, 1], 1, 2)];
 * const latents = backend.tensor([5, 1, 3, 9], 4, 1), ropeKeys = backend.tensor([0, 6, 0, 0], 4, 1);
 * const position = backend.tensor([2], 1, 1, "i32");
 * const dims = { topk: 2, heads: 1, scale: 1 };
 * const indices = absorbedTopk(one, q, latents, ropeKeys, position, dims);
 * assert.deepEqual([...backend.read(indices)], [0, 1]);
 * ```
 */
export function absorbedTopk(
  qLatent: Tensor,
  q: Tensor,
  latents: Tensor,
  ropeKeys: Tensor,
  position: Tensor,
  attributes: AbsorbedTopkAttributes,
): Tensor {
  const inputs = [qLatent, q, latents, ropeKeys, position];
  return q.backend.apply(absorbedTopkOp, inputs, attributes)[0];
}
