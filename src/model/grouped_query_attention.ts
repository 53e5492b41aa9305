/**
 * Multi-head and grouped-query attention, the baselines whose caches latents are to be compared with.
 *
 * N = batch · seqLen tokens: x `[N, hiddenSize]`, q `[N, numAttentionHeads · headDim]`, k and v
 * `[N, numKeyValueHeads · headDim]`.
 *
 * @module
 */
import type { LayerContext, LayerResult } from "./layer.ts";
import type { Tensor } from "../ops/op.ts";
import { attention } from "../ops/attention/attention.ts";
import { columns } from "../ops/token/columns.ts";
import { linear } from "../ops/token/linear.ts";

/**
 * Multi-head or grouped-query attention on the normed block input, added to `residual`.
 *
 * @param x `[N, hiddenSize]`, N = batch · seqLen
 */
export function groupedQueryAttention(
  x: Tensor,
  residual: Tensor,
  layer: LayerContext,
): LayerResult {
  const { batch, seqLen, weight } = layer;
  const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim, ...c } = layer.config;
  const layout = c.ropeInterleave ? "interleaved" : "halfSplit";
  const rotate = (x: Tensor, heads: number) =>
    layer.rotate(x, { heads, headDim, start: 0, dims: headDim, layout, theta: c.ropeTheta });

  const qkv = linear(x, [weight("q_proj"), weight("k_proj"), weight("v_proj")]);
  const q = rotate(columns(qkv, 0, heads * headDim), heads);
  const k = rotate(columns(qkv, heads * headDim, kvHeads * headDim), kvHeads);
  const v = columns(qkv, (heads + kvHeads) * headDim, kvHeads * headDim);
  const window = c.window ?? undefined;
  const { o } = attention(q, k, v, { batch, seqLen, heads, kvHeads, window });
  return { output: linear(o, weight("o_proj"), residual) };
}
