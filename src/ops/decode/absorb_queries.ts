import { absorbQueriesKernel as kernel } from "../../kernels/decode/absorb_queries.ts";
import type { MlaHeads } from "../attention/mla_heads.ts";
import { matrixType, type Op, requireShapes, type Tensor, type TfMatrix } from "../op.ts";

/** Queries to compare with latents; see {@linkcode absorbQueries}. */
export const absorbQueriesOp: Op<MlaHeads> = {
  name: "absorbQueries",
  stopsGradient: true,
  types(inputs, { heads, qkNopeHeadDim: nope, qkRopeHeadDim: rope, vHeadDim: value }) {
    const [q, weight] = inputs;
    requireShapes(
      inputs.length === 2 && q.cols === heads * (nope + rope) &&
        weight.rows === heads * (nope + value),
      "absorbQueries",
      inputs,
      `q [rows, ${heads} * (${nope} + ${rope})], weight [${heads} * (${nope} + ${value}), latent]`,
    );
    return [matrixType(q.rows, heads * weight.cols)];
  },
  twin(tf, [q, weight], { heads, qkNopeHeadDim: nope, qkRopeHeadDim: rope, vHeadDim: value }) {
    const ofHeads = Array.from({ length: heads }, (_, h) =>
      tf.matMul<TfMatrix>(
        tf.slice(q, [0, h * (nope + rope)], [-1, nope]),
        tf.slice(weight, [h * (nope + value), 0], [nope, -1]),
      ));
    return [tf.concat(ofHeads, 1)];
  },
  forward(r, [q, w], [y], { heads, qkNopeHeadDim: nope }) {
    r.byRows([q, y], (q, y) => r.dispatch(kernel({ q, w, y, heads, nope })));
  },
};

/**
 * Queries of MLA's absorbed mode (DeepSeek-V2 §2.1.2): q̃ = W_UKᵀ · q of each head, without its rope
 * columns, so that q̃ · c = q · (W_UK · c) for every latent c. For generating; no gradient passes.
 *
 * @param q [rows, heads · (nope + rope)]
 * @param weight [heads · (nope + value), latent]: `kv_b_proj`, rows of keys, then of values, head by
 * head
 * @returns [rows, heads · latent]
 * @throws {RangeError} if the shapes do not fit
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { absorbQueries } from "./absorb_queries.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const q = backend.tensor([2, 7], 1, 2), weight = backend.tensor([1, 3, 0, 0], 2, 2);
 * const dims = { heads: 1, qkNopeHeadDim: 1, qkRopeHeadDim: 1, vHeadDim: 1 };
 * assert.deepEqual([...backend.read(absorbQueries(q, weight, dims))], [2, 6]);
 * ```
 */
export function absorbQueries(q: Tensor, weight: Tensor, heads: MlaHeads): Tensor {
  return q.backend.apply(absorbQueriesOp, [q, weight], heads)[0];
}
