/**
 * Multi-head latent attention (DeepSeek-V2 §2.1).
 *
 * N = batch · seqLen tokens, H = numAttentionHeads. What a layer makes of the normed block input
 * x `[N, hiddenSize]`:
 *
 *     qLatent   [N, qLoraRank]         normed latent of the queries
 *     q         [N, H · (nope + rope)] queries, their last rope columns rotated
 *     kvLatent  [N, kvLoraRank]        normed latent of keys and values: what is cached
 *     kPe       [N, rope]              the rotated key that all heads share: cached, too
 *     kv        [N, H · (nope + v)]    keys without position and values, made from the latent
 *     o         [N, H · v]             attention's output, before o_proj
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import type { LayerContext, LayerResult, TokenContext } from "./layer.ts";
import type { Tensor } from "../ops/op.ts";
import { columns } from "../ops/token/columns.ts";
import { latentStatistics } from "../ops/attention/latent_statistics.ts";
import { linear } from "../ops/token/linear.ts";
import { rmsNorm } from "../ops/token/rms_norm.ts";
import { inBits } from "./precision.ts";
import type { Rotation } from "../ops/token/rope.ts";
import { sparseAttention } from "./sparse_attention.ts";
import type { KeptTensor } from "./stage_view.ts";

/**
 * Multi-head latent attention in MHA mode: keys and values of all heads are made from the latents.
 * Added to `residual`. Its absorbed mode is in `decode.ts`.
 *
 * @param x `[N, hiddenSize]`, the normed block input
 */
export function latentAttention(x: Tensor, residual: Tensor, layer: LayerContext): LayerResult {
  const { stage, weight } = layer;
  const { qLatent, q, kvLatent, expanded, kPe, ropeKey } = latentProjections(x, inOwnBits(layer));
  const density = stage.density ? latentStatistics(x, kvLatent) : null;
  const kv = linear(expanded, weight("kv_b_proj"));
  const inputs = { qLatent, hidden: x, kvLatent, ropeKey };
  const { o, ...made } = sparseAttention({ q, kv, kPe }, inputs, layer);
  const all: Record<KeptTensor, Tensor> = { latent: kvLatent, q, kv, kPe, o };
  const kept = Object.fromEntries((stage.keeps ?? []).map((name) => [name, all[name]]));
  return {
    ...made,
    output: linear(o, weight("o_proj"), residual),
    maps: { ...density ? { latent_statistics: density } : {}, ...made.maps, ...kept },
  };
}

/** The layer with the bits of latents that the stage gives to it alone. */
function inOwnBits(layer: LayerContext): LayerContext {
  const { stage: { latentBits: own }, index, config } = layer;
  if (own?.layer !== index) return layer;
  return { ...layer, config: { ...config, latentBits: own.bits } };
}

/** What multi-head latent attention makes of each token by itself, `[N, …]` each. */
export interface LatentProjections {
  /** Normed query latent; null where queries are not compressed. */
  readonly qLatent: Tensor | null;
  /** Queries, heads · (nope + rope), rotated. */
  readonly q: Tensor;
  /** Normed key-value latent, in `latentBits`. */
  readonly kvLatent: Tensor;
  /** What keys and values are made from by `kv_b_proj`: the latent, rotated with `onLatent`. */
  readonly expanded: Tensor;
  /** The key of `qkRopeHeadDim` that all heads share, rotated. */
  readonly kPe: Tensor;
  /** The same before its rotation. */
  readonly ropeKey: Tensor;
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
  const rotation = ropeKeyRotation(config);

  // One product makes the query latent (or the queries) and the key-value latent with its rope key.
  const down = linear(x, [
    weight(qLoraRank === null ? "q_proj" : "q_a_proj"),
    weight("kv_a_proj_with_mqa"),
  ]);
  const queryCols = qLoraRank ?? heads * qkHeadDim;
  const first = columns(down, 0, queryCols);
  const qLatent = qLoraRank === null ? null : rmsNorm(first, weight("q_a_layernorm"), eps);
  const queries = qLatent ? linear(qLatent, weight("q_b_proj")) : first;
  const normed = rmsNorm(columns(down, queryCols, kvLoraRank), weight("kv_a_layernorm"), eps);
  const kvLatent = inBits(normed, c.latentBits, c);

  const decoupled = c.latentRope === "decoupled" ? rotate : (x: Tensor) => x;
  const q = decoupled(queries, { ...rotation, heads, headDim: qkHeadDim, start: qkNopeHeadDim });
  const ropeKey = columns(down, queryCols + kvLoraRank, qkRopeHeadDim);
  const kPe = decoupled(ropeKey, ropeKeyRotation(config));
  const whole = { ...rotation, heads: 1, headDim: kvLoraRank, start: 0, dims: kvLoraRank };
  const expanded = c.latentRope === "onLatent" ? rotate(kvLatent, whole) : kvLatent;
  return { qLatent, q, kvLatent, expanded, kPe, ropeKey };
}

/** How the key that all heads share is rotated. */
export function ropeKeyRotation(
  { qkRopeHeadDim, ropeInterleave, ropeTheta: theta }: RunConfig,
): Rotation {
  const layout = ropeInterleave ? "interleaved" : "halfSplit";
  return { heads: 1, headDim: qkRopeHeadDim, start: 0, dims: qkRopeHeadDim, layout, theta };
}
