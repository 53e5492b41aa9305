import type { AttentionSpec } from "../kernels/attention.ts";
import {
  recordAttention,
  recordAttentionGradient,
  requireHeads,
  twinHeads,
  twinOfAttention,
} from "./attention_passes.ts";
import { matrixType, type Op, requireShapes, type Tensor } from "./op.ts";

/** Attributes of {@linkcode mlaAttention}. */
export interface MlaAttentionDims {
  batch: number;
  seqLen: number;
  heads: number;
  /** Width of a key head, without position. */
  qkNopeHeadDim: number;
  /** Width of the rotated key that all heads share. */
  qkRopeHeadDim: number;
  /** Width of a value head. */
  vHeadDim: number;
  /** Factor of the scores; default (qkNopeHeadDim + qkRopeHeadDim)^-0.5. */
  scale?: number;
}

function specOf(attributes: MlaAttentionDims): AttentionSpec {
  const { batch, seqLen, heads, qkNopeHeadDim: nope, qkRopeHeadDim: rope, vHeadDim } = attributes;
  return {
    dims: { heads, kvHeads: heads, nope, rope, value: vHeadDim, packed: true },
    extent: { batch, seqLen },
    scale: attributes.scale ?? (nope + rope) ** -0.5,
  };
}

/** Attention of MLA; see {@linkcode mlaAttention}. */
export const mlaAttentionOp: Op<MlaAttentionDims> = {
  name: "mlaAttention",
  savesOutputs: true,
  types(inputs, attributes) {
    const spec = specOf(attributes);
    requireHeads("mlaAttention", spec);
    const { heads, nope, rope, value } = spec.dims;
    const rows = attributes.batch * attributes.seqLen;
    const [q, kv, kPe] = inputs;
    requireShapes(
      inputs.length === 3 && inputs.every((x) => x.rows === rows && x.dtype === "f32") &&
        q.cols === heads * (nope + rope) && kv.cols === heads * (nope + value) && kPe.cols === rope,
      "mlaAttention",
      inputs,
      `q [${rows}, ${heads} * (${nope} + ${rope})], kv [${rows}, ${heads} * (${nope} + ${value})], ` +
        `kPe [${rows}, ${rope}]`,
    );
    return [matrixType(rows, heads * value), matrixType(rows, heads)];
  },
  twin(tf, [q, kv, kPe], attributes) {
    const { dims: { heads, nope, value }, extent, scale } = specOf(attributes);
    const perHead = twinHeads(tf, kv, extent, heads);
    const own = tf.slice(perHead, [0, 0, 0, 0], [-1, -1, -1, nope]);
    const v = tf.slice(perHead, [0, 0, 0, nope], [-1, -1, -1, value]);
    const shared = tf.tile(twinHeads(tf, kPe, extent, 1), [1, heads, 1, 1]);
    const k = tf.concat([own, shared], 3);
    return twinOfAttention(tf, twinHeads(tf, q, extent, heads), k, v, scale);
  },
  forward(r, inputs, outputs, attributes) {
    recordAttention(r, specOf(attributes), inputs, outputs);
  },
  backward(r, inputs, outputs, attributes) {
    recordAttentionGradient(r, specOf(attributes), inputs, outputs);
  },
};

/**
 * Causal attention of multi-head latent attention in MHA mode (DeepSeek-V2, arXiv:2405.04434,
 * eq. 15–19): each head has its own key and value, made from the latent, and all heads share the
 * key that carries the position. With q split into [nope | rope] the scores are
 * scale · (q_nope,h[t] · k_h[s] + q_rope,h[t] · kPe[s]), s ≤ t.
 *
 * @param q [batch · seqLen, heads · (qkNopeHeadDim + qkRopeHeadDim)], rope part rotated
 * @param kv [batch · seqLen, heads · (qkNopeHeadDim + vHeadDim)]: per head [key | value], the output
 * of `kv_b_proj`
 * @param kPe [batch · seqLen, qkRopeHeadDim], rotated
 * @returns `o` [batch · seqLen, heads · vHeadDim] and `lse` [batch · seqLen, heads], the natural
 * logarithm of Σ_s exp(score); `lse` passes no gradient
 * @throws {RangeError} if shapes and widths do not fit
 * @example
 * ```ts
 * const dims = { batch, seqLen, heads: 6, qkNopeHeadDim: 64, qkRopeHeadDim: 32, vHeadDim: 64 };
 * const { o } = mlaAttention(q, kv, kPe, dims);
 * ```
 */
export function mlaAttention(
  q: Tensor,
  kv: Tensor,
  kPe: Tensor,
  dims: MlaAttentionDims,
): { o: Tensor; lse: Tensor } {
  const [o, lse] = q.backend.apply(mlaAttentionOp, [q, kv, kPe], dims);
  return { o, lse };
}
