/**
 * The attention layers: multi-head and grouped-query attention, and multi-head latent attention.
 *
 * @module
 */
import type { LayerContext, TokenContext } from "./layer.ts";
import type { Tensor } from "../ops/op.ts";
import { attention } from "../ops/attention/attention.ts";
import { columns } from "../ops/token/columns.ts";
import { latentStatistics } from "../ops/attention/latent_statistics.ts";
import { linear } from "../ops/token/linear.ts";
import { rmsNorm } from "../ops/token/rms_norm.ts";
import { selectedAttention } from "./indexer.ts";

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
    layer.rotate(x, { heads, headDim, start: 0, dims: headDim, layout, theta: c.ropeTheta });

  const qkv = linear(x, [weight("q_proj"), weight("k_proj"), weight("v_proj")]);
  const q = rotate(columns(qkv, 0, heads * headDim), heads);
  const k = rotate(columns(qkv, heads * headDim, kvHeads * headDim), kvHeads);
  const v = columns(qkv, (heads + kvHeads) * headDim, kvHeads * headDim);
  const window = c.window ?? undefined;
  const { o } = attention(q, k, v, { batch, seqLen, heads, kvHeads, window });
  return linear(o, weight("o_proj"), residual);
}

/** What multi-head latent attention makes of each token by itself, `[N, …]` each. */
export interface LatentProjections {
  /** Normed query latent; null where queries are not compressed. */
  readonly qLatent: Tensor | null;
  /** Queries, heads · (nope + rope), rotated. */
  readonly q: Tensor;
  /** Normed key-value latent. */
  readonly kvLatent: Tensor;
  /** What keys and values are made from by `kv_b_proj`: the latent, rotated with `onLatent`. */
  readonly expanded: Tensor;
  /** The key of `qkRopeHeadDim` that all heads share, rotated. */
  readonly kPe: Tensor;
}

/**
 * Queries, latents and rope keys of MLA (DeepSeek-V2 §2.1). Queries, keys and values come from normed
 * latents; position lives in a separate key of `qkRopeHeadDim` that all heads share, so the latent
 * itself is never rotated.
 *
 * `latentRope` has two controls. `onLatent` rotates the whole latent by its position instead, so
 * that keys and values come from rotated latents; the rope columns of queries and keys stay as they
 * are. The products that follow do not commute with the rotation, so scores depend on positions and
 * not on distances. `none` rotates nothing.
 *
 * @param x `[N, hiddenSize]`, the normed block input
 */
export function latentProjections(
  x: Tensor,
  { config, weight, rotate }: TokenContext,
): LatentProjections {
  const { numAttentionHeads: heads, qLoraRank, kvLoraRank, rmsNormEps: eps, ...c } = config;
  const { qkNopeHeadDim, qkRopeHeadDim } = c;
  const qkHeadDim = qkNopeHeadDim + qkRopeHeadDim;
  const layout = c.ropeInterleave ? "interleaved" : "halfSplit";
  const rotation = { dims: qkRopeHeadDim, layout, theta: c.ropeTheta } as const;

  // One product makes the query latent (or the queries) and the key-value latent with its rope key.
  const down = linear(x, [
    weight(qLoraRank === null ? "q_proj" : "q_a_proj"),
    weight("kv_a_proj_with_mqa"),
  ]);
  const queryCols = qLoraRank ?? heads * qkHeadDim;
  const first = columns(down, 0, queryCols);
  const qLatent = qLoraRank === null ? null : rmsNorm(first, weight("q_a_layernorm"), eps);
  const queries = qLatent ? linear(qLatent, weight("q_b_proj")) : first;
  const kvLatent = rmsNorm(columns(down, queryCols, kvLoraRank), weight("kv_a_layernorm"), eps);

  const decoupled = c.latentRope === "decoupled" ? rotate : (x: Tensor) => x;
  const q = decoupled(queries, { ...rotation, heads, headDim: qkHeadDim, start: qkNopeHeadDim });
  const kPe = decoupled(columns(down, queryCols + kvLoraRank, qkRopeHeadDim), {
    ...rotation,
    heads: 1,
    headDim: qkRopeHeadDim,
    start: 0,
  });
  const whole = { ...rotation, heads: 1, headDim: kvLoraRank, start: 0, dims: kvLoraRank };
  const expanded = c.latentRope === "onLatent" ? rotate(kvLatent, whole) : kvLatent;
  return { qLatent, q, kvLatent, expanded, kPe };
}

/**
 * Multi-head latent attention in MHA mode: keys and values of all heads are made from the latents.
 * Added to `residual`. Its absorbed mode is in `decode.ts`.
 *
 * @param x `[N, hiddenSize]`, the normed block input, N = batch · seqLen
 */
export function latentAttention(x: Tensor, residual: Tensor, layer: LayerContext): Tensor {
  const { batch, seqLen, weight } = layer;
  const { numAttentionHeads: heads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim, ...c } = layer.config;
  const { qLatent, q, kvLatent, expanded, kPe } = latentProjections(x, layer);
  if (layer.stage.density) {
    layer.maps[`latent_statistics.${layer.index}`] = latentStatistics(x, kvLatent);
  }
  const kv = linear(expanded, weight("kv_b_proj"));
  const scale = (qkNopeHeadDim + qkRopeHeadDim) ** -0.5;
  const window = c.window ?? undefined;
  const dims = { batch, seqLen, heads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim, scale, window };
  const inputs = { qLatent, hidden: x, kvLatent };
  const o = selectedAttention({ q, kv, kPe }, inputs, { layer, dims });
  return linear(o, weight("o_proj"), residual);
}
