import {
  type AbsorbedAttentionSpec,
  absorbedMerge,
  absorbedParts,
  attentionParts,
} from "../../kernels/decode/absorbed_attention.ts";
import { isPosition } from "./cache_append.ts";
import { matrixType, type Op, requireShapes, type Tensor, type TfMatrix } from "../op.ts";

/** Attributes of {@linkcode absorbedAttention}. */
export interface AbsorbedAttentionAttributes {
  /** Heads of the queries. */
  heads: number;
  /** Factor of the scores, usually (qkNopeHeadDim + qkRopeHeadDim)^-0.5. */
  scale: number;
  /** Without a selection: sees its own position and the window - 1 before. Default: all before. */
  window?: number;
}

/** Attention over cached latents; see {@linkcode absorbedAttention}. */
export const absorbedAttentionOp: Op<AbsorbedAttentionAttributes> = {
  name: "absorbedAttention",
  stopsGradient: true,
  types(inputs, { heads }) {
    const [qLatent, q, latents, ropeKeys, position, indices] = inputs;
    requireShapes(
      (inputs.length === 5 || inputs.length === 6) && qLatent.rows === 1 && q.rows === 1 &&
        qLatent.cols === heads * latents.cols && q.cols % heads === 0 &&
        q.cols / heads >= ropeKeys.cols && ropeKeys.rows === latents.rows &&
        isPosition(position) && (!indices || indices.rows === 1 && indices.dtype === "i32"),
      "absorbedAttention",
      inputs,
      `qLatent [1, ${heads} * latent], q [1, ${heads} * (nope + rope)], latents [capacity, latent], ` +
        "ropeKeys [capacity, rope], i32 position [1, 1], i32 indices [1, k]",
    );
    return [matrixType(1, qLatent.cols)];
  },
  twin(tf, [qLatent, q, latents, ropeKeys, position, indices], { heads, scale, window }) {
    const visible = position.dataSync()[0] + 1;
    const first = Math.max(0, visible - (window ?? visible));
    const chosen = indices
      ? Array.from(indices.dataSync()).filter((s) => s >= 0)
      : Array.from({ length: visible - first }, (_, i) => first + i);
    const keys = tf.tensor1d(Int32Array.from(chosen), "int32");
    const rope = ropeKeys.shape[1];
    const width = q.shape[1] / heads;
    const turned = tf.slice(tf.reshape(q, [heads, width]), [0, width - rope], [-1, rope]);
    const [c, k] = [tf.gather(latents, keys), tf.gather(ropeKeys, keys)];
    const products = tf.matMul(tf.reshape(qLatent, [heads, c.shape[1]]), c, false, true);
    const scores = tf.mul(tf.add(products, tf.matMul(turned, k, false, true)), scale);
    const sums = tf.matMul(tf.softmax(scores, 1) as TfMatrix, c);
    return [tf.reshape(sums, [1, qLatent.shape[1]])];
  },
  forward(r, [qLatent, q, latents, ropeKeys, position, indices], [y], attributes) {
    const { heads } = attributes;
    const matrices = { qLatent, q, latents, ropeKeys, position, indices: indices ?? null, y };
    const spec: AbsorbedAttentionSpec = { ...matrices, ...attributes };
    const rows = attentionParts(spec) * heads;
    const own = { sums: r.temporary(rows, latents.cols), stats: r.temporary(rows, 2) };
    r.dispatch(absorbedParts({ ...spec, ...own }));
    r.dispatch(absorbedMerge({ ...spec, ...own }));
  },
};

/**
 * Attention of one query in MLA's absorbed (MQA) mode, over a cache: all heads share the cached
 * latents as keys and as values, p = softmax(scale · (q̃ · c + q_rope · k_rope)), õ = Σ p · c. Only
 * rows that the query attends to are read. For generating; no gradient passes.
 *
 * @param qLatent [1, heads · latent]: q̃ of `absorbQueries`
 * @param q [1, heads · (nope + rope)], of which the rope columns, rotated, are used
 * @param latents [capacity, latent]
 * @param ropeKeys [capacity, rope], rotated
 * @param position i32 [1, 1], below the capacity
 * @param indices i32 [1, k]: what to attend to, min(k, position + 1) positions, then -1; null: all
 * positions up to its own
 * @returns [1, heads · latent]
 * @throws {RangeError} if the shapes do not fit
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { absorbedAttention } from "./absorbed_attention.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * // A query that likes both cached tokens equally, with a rope key of one column.
 * const [zero, q] = [backend.tensor([0], 1, 1), backend.tensor([9, 0], 1, 2)];
 * const latents = backend.tensor([1, 3, 7], 3, 1), ropeKeys = backend.tensor([5, 6, 7], 3, 1);
 * const position = backend.tensor([1], 1, 1, "i32"), dims = { heads: 1, scale: 1 };
 * const attended = absorbedAttention(zero, q, latents, ropeKeys, position, null, dims);
 * assert.deepEqual([...backend.read(attended)], [2]);
 * ```
 */
export function absorbedAttention(
  qLatent: Tensor,
  q: Tensor,
  latents: Tensor,
  ropeKeys: Tensor,
  position: Tensor,
  indices: Tensor | null,
  attributes: AbsorbedAttentionAttributes,
): Tensor {
  const inputs = [qLatent, q, latents, ropeKeys, position, ...(indices ? [indices] : [])];
  return q.backend.apply(absorbedAttentionOp, inputs, attributes)[0];
}
