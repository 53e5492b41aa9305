import { vectorProduct } from "../../kernels/product/vector.ts";
import type { MlaHeads } from "../attention/mla_heads.ts";
import { matrixType, type Op, requireShapes, type Tensor, type TfMatrix } from "../op.ts";

/** Values of latents; see {@linkcode expandLatents}. */
export const expandLatentsOp: Op<MlaHeads> = {
  name: "expandLatents",
  stopsGradient: true,
  types(inputs, { heads, qkNopeHeadDim: nope, vHeadDim: value }) {
    const [latents, weight] = inputs;
    requireShapes(
      inputs.length === 2 && latents.rows === 1 && latents.cols === heads * weight.cols &&
        weight.rows === heads * (nope + value),
      "expandLatents",
      inputs,
      `latents [1, ${heads} * latent], weight [${heads} * (${nope} + ${value}), latent]`,
    );
    return [matrixType(1, heads * value)];
  },
  twin(tf, [latents, weight], { heads, qkNopeHeadDim: nope, vHeadDim: value }) {
    const width = weight.shape[1];
    const ofHeads = Array.from({ length: heads }, (_, h) =>
      tf.matMul<TfMatrix>(
        tf.slice(latents, [0, h * width], [-1, width]),
        tf.slice(weight, [h * (nope + value) + nope, 0], [value, -1]),
        false,
        true,
      ));
    return [tf.concat(ofHeads, 1)];
  },
  forward(r, [latents, weight], [o], { heads, qkNopeHeadDim: firstRow }) {
    const { capabilities } = r;
    const c = { into: o, add: null };
    r.dispatch(vectorProduct({ a: latents, b: weight, c, heads, firstRow, capabilities }));
  },
};

/**
 * The way back from MLA's absorbed mode (DeepSeek-V2 §2.1.2): o = W_UV · õ of each head, where õ is a
 * weighted sum of latents: the same weighted sum of their values. For generating; no gradient passes.
 *
 * @param latents [1, heads · latent]
 * @param weight [heads · (nope + value), latent]: `kv_b_proj`, rows of keys, then of values, head by
 * head
 * @returns [1, heads · value]
 * @throws {RangeError} if the shapes do not fit
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { expandLatents } from "./expand_latents.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const sum = backend.tensor([1, 2], 1, 2), weight = backend.tensor([0, 0, 3, 4], 2, 2);
 * const dims = { heads: 1, qkNopeHeadDim: 1, qkRopeHeadDim: 1, vHeadDim: 1 };
 * assert.deepEqual([...backend.read(expandLatents(sum, weight, dims))], [11]);
 * ```
 */
export function expandLatents(latents: Tensor, weight: Tensor, heads: MlaHeads): Tensor {
  return latents.backend.apply(expandLatentsOp, [latents, weight], heads)[0];
}
