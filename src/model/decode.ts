/**
 * The model one token at a time, on caches of what attention reads of earlier tokens: latents
 * `[seqLen, kvLoraRank]`, rope keys `[seqLen, qkRopeHeadDim]` and, if they are made from hidden
 * states, index keys `[seqLen, indexHeadDim]`. Of the token itself all matrices have one row.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import type { DecodeFunction } from "../engine.ts";
import { absorbedTopk } from "../ops/decode/absorbed_topk.ts";
import { absorbQueries } from "../ops/decode/absorb_queries.ts";
import { absorbedAttention } from "../ops/decode/absorbed_attention.ts";
import { cacheAppend } from "../ops/decode/cache_append.ts";
import { cacheTopk } from "../ops/decode/cache_topk.ts";
import { expandLatents } from "../ops/decode/expand_latents.ts";
import type { IndexerTensors } from "../ops/select/selectors/selector.ts";
import { beside } from "../ops/token/beside.ts";
import { sideBySide } from "../ops/token/columns.ts";
import { linear } from "../ops/token/linear.ts";
import type { Tensor } from "../ops/op.ts";
import { rope, type Rotation } from "../ops/token/rope.ts";
import { ropeAt } from "../ops/decode/rope_at.ts";
import { latentProjections, ropeKeyRotation } from "./latent_attention.ts";
import { byGroup, headsOfGroup, indexerOfGroup } from "./head_groups.ts";
import type { TokenContext } from "./layer.ts";
import { type IndexerInputs, latentIndexKeys, lightningIndexer } from "./indexer.ts";
import { gatedQuery, selectorOf } from "./sparse_attention.ts";
import type { StageView } from "./stage_view.ts";
import { residualStream } from "./transformer.ts";

/** What a decoding attention layer gets besides its input. */
interface DecodingLayer extends TokenContext {
  readonly stage: StageView;
  readonly index: number;
  /** `[1, 1]` i32. */
  readonly position: Tensor;
  /** The layer's cache of a name with the token's row in it, `[seqLen, cols]`. */
  readonly append: (name: string, row: Tensor) => Tensor;
  /** What the layer before attends to, by group of heads. */
  readonly shared: readonly Tensor[] | null;
}

/** What a decoding attention layer makes. */
interface DecodedLayer {
  /** `[1, hiddenSize]`, with the residual. */
  readonly output: Tensor;
  /** What becomes of its caches, by name. */
  readonly caches: Readonly<Record<string, Tensor>>;
  /** i32 `[1, indexTopk]`, the positions that each group of heads attends to; null: all. */
  readonly indices: readonly Tensor[] | null;
}

/**
 * The model of a configuration and stage, one token at a time; null where only whole sequences can
 * be computed: attention other than MLA, and selectors that are there to be compared with.
 *
 * Latents are attended to in absorbed form, and so cached as they are: per token and layer
 * kvLoraRank + qkRopeHeadDim numbers, and indexHeadDim more where an indexer selects by keys of
 * hidden states. Keys of what is cached anyway are made again for each token.
 */
export function decodingModel(config: RunConfig, stage: StageView): DecodeFunction | null {
  const isCached = ["dense", "learned", "oracle"].includes(stage.selector);
  if (config.attention !== "mla" || !isCached) return null;
  return (parameters, { token, position, cache }) => {
    const { logits, layers } = residualStream<DecodedLayer>(
      config,
      parameters,
      token,
      (x, residual, { before, ...own }) =>
        absorbedLatentAttention(x, residual, {
          ...{ config, stage, position, ...own },
          shared: before.at(-1)?.indices ?? null,
          rotate: (x, spec) => ropeAt(x, position, spec),
          append: (name, row) =>
            cacheAppend(cache(`${name}.${own.index}`, row.cols), row, position),
        }),
    );
    return {
      logits,
      caches: Object.fromEntries(
        layers.flatMap(({ caches }, i) =>
          Object.entries(caches).map(([name, cache]) => [`${name}.${i}`, cache])
        ),
      ),
      selections: layers.flatMap(({ indices }, i) =>
        indices && i % config.indexShare === 0 ? indices : []
      ),
    };
  };
}

/**
 * Multi-head latent attention in absorbed (MQA) mode (DeepSeek-V2 §2.1.2), added to `residual`:
 * q · (W_UK c) = (W_UKᵀ q) · c and Σ p (W_UV c) = W_UV (Σ p c), so keys and values of cached tokens are
 * never made. The same function as `latentAttention`.
 *
 * @param x `[1, hiddenSize]`, the normed block input
 */
function absorbedLatentAttention(x: Tensor, residual: Tensor, layer: DecodingLayer): DecodedLayer {
  const { weight, append, position, config } = layer;
  const { numAttentionHeads: heads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = config;
  const { indexTies: ties } = config;
  const window = config.window ?? undefined;
  const { q, expanded, kPe, ...made } = latentProjections(x, layer);
  const latents = append("latent", expanded);
  const ropeKeys = append("rope_key", kPe);
  const dims = { heads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim };
  const absorbed = absorbQueries(q, weight("kv_b_proj"), dims);
  const scale = (qkNopeHeadDim + qkRopeHeadDim) ** -0.5;
  const { indices, keys, scoring } = selected({ hidden: x, ...made }, { latents, ropeKeys }, {
    ...layer,
    byAttention: (group) => {
      const [own, ownQ] = [absorbed, q].map((x) => headsOfGroup(x, group, config));
      return absorbedTopk(own, ownQ, latents, ropeKeys, position, {
        ...{ topk: layer.stage.indexTopk, heads: heads / config.indexGroups, scale, ties },
      });
    },
  });
  const ofGroup = (chosen: Tensor, group: number) => {
    const own = { heads: heads / config.indexGroups, scale, window };
    const [latent, turned] = [absorbed, q].map((x) => headsOfGroup(x, group, config));
    // Index scores that attention takes a share of come with wider queries and keys.
    const used = scoring && config.indexLoss !== "kl"
      ? {
        q: beside(turned, gatedQuery(scoring[group], scale, layer), own.heads),
        ropeKeys: beside(ropeKeys, scoring[group].kI),
      }
      : { q: turned, ropeKeys };
    return absorbedAttention(latent, used.q, latents, used.ropeKeys, position, chosen, own);
  };
  const attended = indices
    ? sideBySide(indices.map(ofGroup))
    : absorbedAttention(absorbed, q, latents, ropeKeys, position, null, { heads, scale, window });
  const o = expandLatents(attended, weight("kv_b_proj"), dims);
  return {
    output: linear(o, weight("o_proj"), residual),
    caches: { latent: latents, rope_key: ropeKeys, ...keys ? { index_key: keys } : {} },
    indices,
  };
}

/**
 * The positions that each group of heads attends to; the cache of index keys of a layer with an
 * indexer of its own whose keys are not made from what is cached anyway; and the groups' indexers of
 * the token and all cached ones.
 */
function selected(
  inputs: IndexerInputs,
  caches: Readonly<Record<"latents" | "ropeKeys", Tensor>>,
  layer: DecodingLayer & { readonly byAttention: (group: number) => Tensor },
): {
  indices: readonly Tensor[] | null;
  keys: Tensor | null;
  scoring: readonly IndexerTensors[] | null;
} {
  const { config, stage, index, position, append, shared } = layer;
  const none = { indices: null, keys: null, scoring: null };
  if (stage.selector === "dense") return none;
  if (index % config.indexShare !== 0) return { ...none, indices: shared };
  const isOracle = selectorOf(config, stage) === "oracle";
  if (isOracle && config.indexLoss === "kl") {
    return { ...none, indices: byGroup(config, layer.byAttention) };
  }
  const latentKeys = () => cachedIndexKeys(caches, layer);
  const { qI, kI, w, indexer } = lightningIndexer(inputs, layer, latentKeys);
  const keys = config.indexKeyInput === "hidden" ? append("index_key", kI) : null;
  const whole = { qI, kI: keys ?? kI, w, indexer };
  const scoring = byGroup(config, (group) => indexerOfGroup(whole, group, config));
  const indices = isOracle
    ? byGroup(config, layer.byAttention)
    : scoring.map(({ qI, kI, w, indexer }) => {
      const attributes = { topk: stage.indexTopk, indexer, ties: config.indexTies };
      return cacheTopk(qI, kI, w, position, attributes);
    });
  return { indices, keys, scoring };
}

/** Index keys of all cached tokens, made from their latents and, turned back, their rope keys. */
function cachedIndexKeys(
  { latents, ropeKeys }: Readonly<Record<"latents" | "ropeKeys", Tensor>>,
  layer: DecodingLayer,
): Tensor {
  const { config } = layer;
  const { rows: seqLen } = latents;
  const ropeKey = config.latentRope === "decoupled"
    ? rope(ropeKeys, { ...ropeKeyRotation(config), seqLen, inverse: true })
    : ropeKeys;
  const rotate = (x: Tensor, spec: Rotation) => rope(x, { ...spec, seqLen });
  return latentIndexKeys({ kvLatent: latents, ropeKey }, { ...layer, rotate });
}
