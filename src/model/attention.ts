/**
 * The attention layers: multi-head and grouped-query attention, and multi-head latent attention.
 *
 * @module
 */
import type { RunConfig } from "../config.ts";
import type { Tensor } from "../ops/op.ts";
import { attention } from "../ops/attention.ts";
import { columns } from "../ops/columns.ts";
import { linear } from "../ops/linear.ts";
import { mlaAttention } from "../ops/mla_attention.ts";
import { rmsNorm } from "../ops/rms_norm.ts";
import { rope } from "../ops/rope.ts";

/** What an attention layer gets besides its input. */
export interface LayerContext {
  /** The sizes of the model. */
  readonly config: RunConfig;
  /** Sequences. */
  readonly batch: number;
  /** Tokens of a sequence. */
  readonly seqLen: number;
  /** The layer's weights, by the end of their name, e.g. `q_b_proj`. */
  readonly weight: (name: string) => Tensor;
}

/**
 * Multi-head or grouped-query attention on the normed block input, added to `residual`.
 *
 * @param x `[N, hiddenSize]`, N = batch · seqLen
 */
export function groupedQueryAttention(x: Tensor, residual: Tensor, layer: LayerContext): Tensor {
  const { batch, seqLen, weight } = layer;
  const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim, ...c } = layer.config;
  const layout = c.ropeInterleave ? "interleaved" : "halfSplit";
  const rotate = (x: Tensor, heads: number) =>
    rope(x, { seqLen, heads, headDim, start: 0, dims: headDim, layout, theta: c.ropeTheta });

  const qkv = linear(x, [weight("q_proj"), weight("k_proj"), weight("v_proj")]);
  const q = rotate(columns(qkv, 0, heads * headDim), heads);
  const k = rotate(columns(qkv, heads * headDim, kvHeads * headDim), kvHeads);
  const v = columns(qkv, (heads + kvHeads) * headDim, kvHeads * headDim);
  const { o } = attention(q, k, v, { batch, seqLen, heads, kvHeads });
  return linear(o, weight("o_proj"), residual);
}

/**
 * Multi-head latent attention in MHA mode (DeepSeek-V2 §2.1), added to `residual`. Queries, keys
 * and values come from normed latents; position lives in a separate key of `qkRopeHeadDim` that
 * all heads share, so the latent itself is never rotated.
 *
 * @param x `[N, hiddenSize]`, the normed block input, N = batch · seqLen
 */
export function latentAttention(x: Tensor, residual: Tensor, layer: LayerContext): Tensor {
  const { batch, seqLen, weight } = layer;
  const { numAttentionHeads: heads, qLoraRank, kvLoraRank, ...c } = layer.config;
  const { qkNopeHeadDim, qkRopeHeadDim, vHeadDim, rmsNormEps: eps } = c;
  const qkHeadDim = qkNopeHeadDim + qkRopeHeadDim;
  const layout = c.ropeInterleave ? "interleaved" : "halfSplit";
  const rotation = { seqLen, dims: qkRopeHeadDim, layout, theta: c.ropeTheta } as const;

  // One product makes the query latent (or the queries) and the key-value latent with its rope key.
  const down = linear(x, [
    weight(qLoraRank === null ? "q_proj" : "q_a_proj"),
    weight("kv_a_proj_with_mqa"),
  ]);
  const queryCols = qLoraRank ?? heads * qkHeadDim;
  const first = columns(down, 0, queryCols);
  const queries = qLoraRank === null
    ? first
    : linear(rmsNorm(first, weight("q_a_layernorm"), eps), weight("q_b_proj"));
  const latent = rmsNorm(columns(down, queryCols, kvLoraRank), weight("kv_a_layernorm"), eps);

  const q = rope(queries, { ...rotation, heads, headDim: qkHeadDim, start: qkNopeHeadDim });
  const kPe = rope(columns(down, queryCols + kvLoraRank, qkRopeHeadDim), {
    ...rotation,
    heads: 1,
    headDim: qkRopeHeadDim,
    start: 0,
  });
  const kv = linear(latent, weight("kv_b_proj"));
  const dims = { batch, seqLen, heads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim };
  const { o } = mlaAttention(q, kv, kPe, dims);
  return linear(o, weight("o_proj"), residual);
}
