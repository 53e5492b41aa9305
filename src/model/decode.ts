/**
 * The model one token at a time, on caches of what attention reads of earlier tokens.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import type { DecodeFunction } from "../engine.ts";
import { absorbQueries } from "../ops/decode/absorb_queries.ts";
import { absorbedAttention } from "../ops/decode/absorbed_attention.ts";
import { cacheAppend } from "../ops/decode/cache_append.ts";
import { cacheTopk } from "../ops/decode/cache_topk.ts";
import { expandLatents } from "../ops/decode/expand_latents.ts";
import { linear } from "../ops/token/linear.ts";
import type { Tensor } from "../ops/op.ts";
import { ropeAt } from "../ops/decode/rope_at.ts";
import { latentProjections } from "./attention.ts";
import type { TokenContext } from "./layer.ts";
import { lightningIndexer } from "./indexer.ts";
import type { StageView } from "./stage_view.ts";
import { residualStream } from "./transformer.ts";

/** What a decoding attention layer gets besides its input. */
interface DecodingLayer extends TokenContext {
  readonly stage: StageView;
  readonly index: number;
  /** `[1, 1]` i32. */
  readonly position: Tensor;
  /** Puts the token's row into the layer's cache of a name; gives the whole cache. */
  readonly append: (name: string, row: Tensor) => Tensor;
  /** Selections so far; layers that share an indexer take the last. */
  readonly selections: Tensor[];
}

/**
 * The model of a configuration and stage, one token at a time; null where only whole sequences can
 * be computed: attention other than MLA, and selectors other than `dense` and `learned`, which are
 * there to be compared with and need what is not cached (`oracle`: keys of all heads).
 *
 * Latents are attended to in absorbed form, and so cached as they are: per token and layer
 * kvLoraRank + qkRopeHeadDim numbers, and indexHeadDim more where an indexer selects.
 */
export function decodingModel(config: RunConfig, stage: StageView): DecodeFunction | null {
  const isCached = stage.selector === "dense" || stage.selector === "learned";
  if (config.attention !== "mla" || !isCached) return null;
  return (parameters, { token, position, cache }) => {
    const caches: Record<string, Tensor> = {};
    const selections: Tensor[] = [];
    const logits = residualStream(
      config,
      parameters,
      token,
      (x, residual, { index, weight }) =>
        absorbedLatentAttention(x, residual, {
          ...{ config, stage, index, weight, position, selections },
          rotate: (x, spec) => ropeAt(x, position, spec),
          append: (name, row) => {
            const key = `${name}.${index}`;
            return caches[key] = cacheAppend(cache(key, row.cols), row, position);
          },
        }),
    );
    return { logits, caches, selections };
  };
}

/**
 * Multi-head latent attention in absorbed (MQA) mode (DeepSeek-V2 §2.1.2), added to `residual`:
 * q · (W_UK c) = (W_UKᵀ q) · c and Σ p (W_UV c) = W_UV (Σ p c), so keys and values of cached tokens are
 * never made. The same function as `latentAttention`.
 *
 * @param x `[1, hiddenSize]`, the normed block input
 */
function absorbedLatentAttention(x: Tensor, residual: Tensor, layer: DecodingLayer): Tensor {
  const { weight, append, position } = layer;
  const { numAttentionHeads: heads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim, window } = layer.config;
  const { qLatent, q, kvLatent, expanded, kPe } = latentProjections(x, layer);
  const latents = append("latent", expanded);
  const ropeKeys = append("rope_key", kPe);
  const indices = selected({ qLatent, hidden: x, kvLatent }, layer);

  const dims = { heads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim };
  const absorbed = absorbQueries(q, weight("kv_b_proj"), dims);
  const attended = absorbedAttention(absorbed, q, latents, ropeKeys, position, indices, {
    heads,
    scale: (qkNopeHeadDim + qkRopeHeadDim) ** -0.5,
    window: window ?? undefined,
  });
  return linear(expandLatents(attended, weight("kv_b_proj"), dims), weight("o_proj"), residual);
}

/** i32 `[1, indexTopk]`, the positions to attend to; null: all. */
function selected(
  inputs: Parameters<typeof lightningIndexer>[0],
  layer: DecodingLayer,
): Tensor | null {
  const { config, stage, index, position, append, selections } = layer;
  if (stage.selector === "dense") return null;
  if (index % config.indexShare === 0) {
    const { qI, kI, w, indexer } = lightningIndexer(inputs, layer);
    const attributes = { topk: stage.indexTopk, indexer };
    selections.push(cacheTopk(qI, append("index_key", kI), w, position, attributes));
  }
  return selections.at(-1)!;
}
