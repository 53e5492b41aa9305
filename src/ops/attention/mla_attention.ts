import type { AttentionSpec } from "../../kernels/attention/attention.ts";
import { recordAttentionGradient, wantedSinks } from "./gradient.ts";
import { mlaHeadDims, type MlaHeads, mlaScale } from "./mla_heads.ts";
import { recordAttention, requireHeads } from "./passes.ts";
import { twinHeads, twinOfAttention, type TwinView } from "./twin.ts";
import {
  matrixType,
  type Op,
  requireShapes,
  type Tensor,
  type TensorType,
  type Tf,
  type TfMatrix,
} from "../op.ts";

/** Attributes of {@linkcode mlaAttention}. */
export interface MlaAttentionDims extends MlaHeads {
  /** Sequences. */
  batch: number;
  /** Tokens of a sequence. */
  seqLen: number;
  /** Factor of the scores; default (qkNopeHeadDim + qkRopeHeadDim)^-0.5. */
  scale?: number;
  /** Sliding window: a query sees itself and the window - 1 keys before. Default: all before. */
  window?: number;
}

/** Attention of the op's attributes. */
export function mlaSpec(attributes: MlaAttentionDims): AttentionSpec {
  const { batch, seqLen, window } = attributes;
  return {
    dims: mlaHeadDims(attributes),
    extent: { batch, seqLen },
    scale: mlaScale(attributes),
    window,
  };
}

/**
 * Types of the outputs `o` and `lse`.
 *
 * @throws {RangeError} unless `q`, `kv` and `kPe`, the first inputs, fit `spec`
 */
export function mlaTypes(
  op: string,
  inputs: readonly TensorType[],
  spec: AttentionSpec,
): TensorType[] {
  requireHeads(op, spec);
  const { dims: { heads, nope, rope, value }, extent } = spec;
  const rows = extent.batch * extent.seqLen;
  const [q, kv, kPe] = inputs;
  requireShapes(
    inputs.length >= 3 && [q, kv, kPe].every((x) => x.rows === rows && x.dtype === "f32") &&
      q.cols === heads * (nope + rope) && kv.cols === heads * (nope + value) && kPe.cols === rope,
    op,
    inputs,
    `q [${rows}, ${heads} * (${nope} + ${rope})], kv [${rows}, ${heads} * (${nope} + ${value})], ` +
      `kPe [${rows}, ${rope}]`,
  );
  return [matrixType(rows, heads * value), matrixType(rows, heads)];
}

/** The twin, with what queries see besides being causal. */
export function mlaTwin(
  tf: Tf,
  [q, kv, kPe]: readonly TfMatrix[],
  { dims: { heads, nope, value }, extent, scale }: AttentionSpec,
  view: TwinView,
): [TfMatrix, TfMatrix] {
  const perHead = twinHeads(tf, kv, extent, heads);
  const own = tf.slice(perHead, [0, 0, 0, 0], [-1, -1, -1, nope]);
  const v = tf.slice(perHead, [0, 0, 0, nope], [-1, -1, -1, value]);
  const shared = tf.tile(twinHeads(tf, kPe, extent, 1), [1, heads, 1, 1]);
  const k = tf.concat([own, shared], 3);
  return twinOfAttention(tf, twinHeads(tf, q, extent, heads), k, v, scale, view);
}

/** Attention of MLA; see {@linkcode mlaAttention}. */
export const mlaAttentionOp: Op<MlaAttentionDims> = {
  name: "mlaAttention",
  savesOutputs: true,
  types(inputs, attributes) {
    return mlaTypes("mlaAttention", inputs, mlaSpec(attributes));
  },
  twin(tf, inputs, attributes) {
    const spec = mlaSpec(attributes);
    return mlaTwin(tf, inputs, spec, { window: spec.window });
  },
  forward(r, [q, kv, kPe], [o, lse], attributes) {
    recordAttention(r, mlaSpec(attributes), { q, kv, k_pe: kPe }, { o, lse });
  },
  backward(r, g, [q, kv, kPe], [o, lse], attributes) {
    recordAttentionGradient(r, mlaSpec(attributes), {
      inputs: { q, kv, k_pe: kPe },
      outputs: { o, lse },
      gradO: g.gradient(0),
      sinks: wantedSinks(g, ["q", "kv", "k_pe"]),
    });
  },
};

/**
 * Causal attention of multi-head latent attention in MHA mode (DeepSeek-V2, arXiv:2405.04434,
 * eq. 15–19): each head has its own key and value, made from the latent, and all heads share the
 * key that carries the position. With q split into [nope | rope] the scores are
 * scale · (q_nope,h[t] · k_h[s] + q_rope,h[t] · kPe[s]), s ≤ t; with `window` also t - s < window.
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
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { mlaAttention } from "./mla_attention.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const q = backend.tensor([0, 0, 0, 0], 2, 2), kPe = backend.tensor([1, 1], 2, 1);
 * const kv = backend.tensor([1, 2, 1, 4], 2, 2);
 * const dims = { heads: 1, qkNopeHeadDim: 1, qkRopeHeadDim: 1, vHeadDim: 1 };
 * const { o } = mlaAttention(q, kv, kPe, { batch: 1, seqLen: 2, ...dims });
 * assert.deepEqual([...backend.read(o)], [2, 3]);
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
