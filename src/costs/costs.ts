/**
 * What a configuration costs, computed and not measured: parameters, floating-point operations,
 * cache. A multiply-add counts as two operations.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import {
  coreContext,
  hasDenseTarget,
  headWidths,
  indexerLayers,
  indexWidth,
  keysTogether,
  lossContext,
  scoredContext,
  selectsByAttention,
  selectsByIndex,
  type StageCosts,
  teacherLayers,
} from "./contexts.ts";
import { modelParameters } from "../model/parameters.ts";
import { QUANTIZED } from "../ops/token/fake_quantize.ts";
import type { Stage } from "../config/stage_fields.ts";

export type { StageCosts };

/** Bytes of a float32. */
const FLOAT = 4;

/** Numbers of parameters. */
export interface ParameterCount {
  /** The token table, `vocabSize * hiddenSize`. */
  readonly embedding: number;
  /** Projections of all layers, without the indexer's. */
  readonly attention: number;
  /** The indexers of all layers with their norms; 0 for a run in which no stage needs them. */
  readonly indexer: number;
  /** Gate, up and down projections of all layers. */
  readonly mlp: number;
  /** All other norms, those inside attention too. */
  readonly norms: number;
  /** 0 where the head shares the embedding's weights. */
  readonly head: number;
  /** The sum of all parts. */
  readonly total: number;
}

/**
 * Counts parameters; the norms inside attention count as norms, those of the indexer as its own.
 *
 * @throws {RangeError} if the size of the vocabulary is not known yet
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveConfig } from "../config/config.ts";
 * import { countParameters } from "./costs.ts";
 *
 * const { embedding, head } = countParameters(resolveConfig({ preset: "tiny" }));
 * assert.equal(embedding, 256 * 128);
 * assert.equal(head, embedding);
 * ```
 */
export function countParameters(config: RunConfig): ParameterCount {
  const count = { embedding: 0, attention: 0, indexer: 0, mlp: 0, norms: 0, head: 0, total: 0 };
  if (config.vocabSize < 1) {
    throw new RangeError(
      "Cannot count parameters: vocabSize is 0; take it from the tokenizer first",
    );
  }
  for (const { name, shape } of modelParameters(config)) {
    const part = name.includes(".indexer.")
      ? "indexer"
      : /norm\.weight$/.test(name)
      ? "norms"
      : name.includes(".self_attn.")
      ? "attention"
      : name.includes(".mlp.")
      ? "mlp"
      : name.startsWith("lm_head")
      ? "head"
      : "embedding";
    const size = shape.reduce((a, b) => a * b);
    count[part] += size;
    count.total += size;
  }
  return count;
}

/** Floating-point operations a token, forward pass, all layers. */
export interface ForwardFlops {
  /** Matrix products of attention that do not depend on the context. */
  readonly projections: number;
  /** Scores and weighted values, mean over the positions of a sequence. */
  readonly core: number;
  /** Products that make the indexers' queries, keys and head weights; 0 where none is used. */
  readonly indexerProjections: number;
  /** Scores of all the keys that are looked at in order to select, mean over the positions. */
  readonly indexScores: number;
  /** The products of the SwiGLU layers. */
  readonly mlp: number;
  /** Logits, `2 * vocabSize * hiddenSize`. */
  readonly head: number;
  /** The sum of all parts. */
  readonly total: number;
}

/** Parts of a forward pass as tables show them. */
export const FLOP_PARTS = ["projections", "core", "indexer", "mlp", "head"] as const;

/** {@linkcode FLOP_PARTS} of a forward pass: what the indexers do in one. */
export function flopParts(flops: ForwardFlops): Record<typeof FLOP_PARTS[number], number> {
  const { projections, core, indexerProjections, indexScores, mlp, head } = flops;
  return { projections, core, indexer: indexerProjections + indexScores, mlp, head };
}

/**
 * Operations of a stage's forward pass for one token of a sequence of `seqLen`. Norms, activations,
 * softmax and top-k are not counted.
 *
 * A layer of core attention costs `2 ctx H (n + r + v)`, index scores `2 ctx H_I (d_I + 1)`
 * (Megatron-Bridge, `flop_utils.py`). The mean ctx of a sequence of S is `(S + 1) / 2`; for k keys
 * at most, by selection or window, it is `k - k (k - 1) / (2 S)`. Index scores are over all keys,
 * unless only the loss over selected ones needs them; `indexKeyInput=native` has those of all heads,
 * `2 ctx H (n + r)`. A head of MoSA that looks ahead has `k (k + 1) / 2` pairs, a causal
 * one at most those of k keys, a dense one all. Groups of heads that select for themselves
 * compute as much: each head attends to k keys, and scores are of each index head once.
 *
 * @param stage default: the last of the run
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveConfig } from "../config/config.ts";
 * import { forwardFlopsPerToken } from "./costs.ts";
 *
 * const config = resolveConfig({ seqLen: 1024, indexTopk: 32 });
 * const [dense, , sparse] = config.stages.map((stage) => forwardFlopsPerToken(config, stage));
 * assert(sparse.core < dense.core / 16);
 * assert.equal(dense.indexScores, 0);
 * ```
 */
export function forwardFlopsPerToken(
  config: RunConfig,
  stage: StageCosts = lastStage(config),
): ForwardFlops {
  const { attention, mlp } = countParameters(config);
  const { qk, v } = headWidths(config);
  const isUsed = selectsByIndex(config, stage) || stage.kl !== "none";
  const isNative = selectsByAttention(config, stage) && config.selector === "learned";
  // Index scores in attention make its queries and keys wider.
  const isScored = stage.attention === "sparse" && config.indexLoss !== "kl";
  const inCore = qk + v + (isScored ? config.indexHeadDim : 0);
  const flops = {
    projections: 2 * attention,
    core: 2 * coreContext(config, stage) * config.numAttentionHeads * inCore *
      config.numHiddenLayers,
    indexerProjections: isUsed ? 2 * indexerProjections(config) : 0,
    indexScores: isUsed
      ? 2 * scoredContext(config, stage) * indexWidth(config) * indexerLayers(config)
      : isNative
      ? 2 * denseContext(config, stage) * config.numAttentionHeads * qk * indexerLayers(config)
      : 0,
    mlp: 2 * mlp,
    head: 2 * config.vocabSize * config.hiddenSize,
  };
  return { ...flops, total: Object.values(flops).reduce((a, b) => a + b) };
}

/**
 * Operations of a stage's training step for one token, by what the stage trains:
 *
 * - backbone: three times its forward pass; frozen, once.
 * - indexer, trained: its projections twice (no gradient goes on to their input, unless
 *   `indexerDetach=false` and the backbone is trained too), and `4 ctx H_I (d_I + 1)` for the
 *   gradient of its scores, over the keys of its loss.
 * - its teacher, see {@linkcode teacherFlopsPerToken}; and for what is selected by attention itself
 *   (`selector=oracle`, `indexKeyInput=native`) dense attention beside sparse attention.
 *
 * What is computed again is not counted: by attention in its backward pass, and with `recompute`.
 *
 * @param stage default: the last of the run
 */
export function trainingFlopsPerToken(
  config: RunConfig,
  stage: StageCosts = lastStage(config),
): number {
  const forward = forwardFlopsPerToken(config, stage);
  const { indexer } = flopParts(forward);
  const backbone = forward.total - indexer;
  let flops = indexer + (stage.trains === "indexer" ? 1 : 3) * backbone +
    teacherFlopsPerToken(config, stage);
  if (stage.kl !== "none" && stage.trains !== "backbone") {
    const goesOn = !config.indexerDetach && stage.trains === "both";
    flops += (goesOn ? 2 : 1) * forward.indexerProjections +
      4 * lossContext(config, stage) * indexWidth(config) * teacherLayers(config);
  }
  // Layers share it with their teacher.
  if (selectsByAttention(config, stage) && !hasDenseTarget(config, stage)) {
    flops += denseBeside(config, stage) * indexerLayers(config);
  }
  return flops;
}

/**
 * Operations a token that a training step spends on the indexer's target: attention scores once
 * more, `2 ctx H (n + r)`, over the keys of its loss; and dense attention beside sparse attention
 * where the loss needs it.
 *
 * @param stage default: the last of the run
 */
export function teacherFlopsPerToken(
  config: RunConfig,
  stage: StageCosts = lastStage(config),
): number {
  if (stage.kl === "none") return 0;
  const scores = 2 * lossContext(config, stage) * config.numAttentionHeads * headWidths(config).qk;
  const dense = hasDenseTarget(config, stage) ? denseBeside(config, stage) : 0;
  return (scores + dense) * teacherLayers(config);
}

/** Operations a token and layer of dense attention in a sparse stage; 0 in others, which have it. */
function denseBeside(config: RunConfig, stage: StageCosts): number {
  if (stage.attention !== "sparse") return 0;
  const { qk, v } = headWidths(config);
  return 2 * denseContext(config, stage) * config.numAttentionHeads * (qk + v);
}

/** Pairs of core attention a token and head, if all keys were attended to. */
function denseContext(config: RunConfig, stage: StageCosts): number {
  return coreContext(config, { ...stage, attention: "dense" });
}

/** What generating keeps of each token, and what it reads of the others. */
export interface CacheCost {
  /**
   * Elements a token and layer: `2 H d_h` mha, `2 G d_h` gqa, `d_c + r` mla, `d_c + r + d_I` DSA.
   * With `indexShare` only some layers have `d_I`: then their mean. Index keys of what is cached
   * anyway (`indexKeyInput`) have none.
   */
  readonly elementsPerLayer: number;
  /** Elements a token, all layers. */
  readonly elements: number;
  /** Bytes a token, all layers: float32, or `latentBits` and `indexBits` and a scale for each row. */
  readonly bytes: number;
  /** Bytes read for the token at position `seqLen`, all layers. */
  readonly readBytes: number;
  /**
   * Elements that a layer reads for the token at position `seqLen`: `S (d_c + r)` mla,
   * `S d_I + k (d_c + r)` DSA; index keys of latents, or of latents and rope keys, read those of all
   * tokens instead: `S d_c` or `S (d_c + r)`. What attention itself selects reads those, and no
   * latents besides. Of G groups of heads (`indexGroups`) that share no key it is `G k` for `k`.
   */
  readonly readPerLayer: number;
}

/**
 * Cache a token (DeepSeek-V2, table 1). Sparse attention keeps as many latents as dense attention,
 * and the indexer's keys besides, but reads few of them. A head of mosa keeps only tokens that it
 * picks: `elementsPerLayer` is of a token that all heads pick.
 *
 * @param stage default: the last of the run
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveConfig } from "../config/config.ts";
 * import { cachePerToken } from "./costs.ts";
 *
 * const elements = (recipe: "dense" | "dsa") =>
 *   cachePerToken(resolveConfig({ preset: "small", recipe })).elementsPerLayer;
 * assert.equal(elements("dense"), 128 + 32);
 * assert.equal(elements("dsa"), 128 + 32 + 64);
 * ```
 */
export function cachePerToken(
  config: RunConfig,
  stage: StageCosts = lastStage(config),
): CacheCost {
  const { seqLen, numHiddenLayers: layers } = config;
  const indexers = selectsByIndex(config, stage) ? indexerLayers(config) : 0;
  // Where attention itself selects it reads what all tokens keep.
  const ranking = selectsByAttention(config, stage) ? indexerLayers(config) : 0;
  const most = Math.min(keysTogether(config, stage), seqLen);
  const dense = config.attention === "mosa" ? config.mosaDenseHeads / config.numAttentionHeads : 0;
  const keys = dense * seqLen + (1 - dense) * most;
  const sums = (unit: keyof Size) => {
    const { own, indexKey: { stored, read } } = cachedSizes(config);
    const attended = ranking * seqLen + (layers - ranking) * keys;
    return {
      kept: own[unit] * layers + stored[unit] * indexers,
      read: seqLen * read[unit] * indexers + attended * own[unit],
    };
  };
  const [elements, bytes] = [sums("elements"), sums("bytes")];
  return {
    elementsPerLayer: elements.kept / layers,
    elements: elements.kept,
    bytes: bytes.kept,
    readBytes: bytes.read,
    readPerLayer: elements.read / layers,
  };
}

/** What something of a token takes in memory. */
interface Size {
  readonly elements: number;
  readonly bytes: number;
}

/** What a layer keeps of a token, and of it for its index key: stored besides, and read. */
function cachedSizes(
  config: RunConfig,
): { own: Size; indexKey: { stored: Size; read: Size } } {
  const { indexKeyInput, indexHeadDim, indexBits, kvLoraRank, qkRopeHeadDim } = config;
  if (config.attention !== "mla") {
    const own = sizeOf(2 * config.numKeyValueHeads * config.headDim, null);
    return { own, indexKey: { stored: NOTHING, read: NOTHING } };
  }
  const [latent, rope] = [sizeOf(kvLoraRank, config.latentBits), sizeOf(qkRopeHeadDim, null)];
  const own = plus(latent, rope);
  const key = sizeOf(indexHeadDim, indexBits);
  const indexKey = indexKeyInput === "hidden"
    ? { stored: key, read: key }
    : { stored: NOTHING, read: indexKeyInput === "kvLatent" ? latent : own };
  return { own, indexKey };
}

const NOTHING: Size = { elements: 0, bytes: 0 };

function plus(a: Size, b: Size): Size {
  return { elements: a.elements + b.elements, bytes: a.bytes + b.bytes };
}

/** Numbers in float32, or in fewer bits beside a scale in float32. */
function sizeOf(elements: number, bits: RunConfig["latentBits"]): Size {
  if (bits === null) return { elements, bytes: FLOAT * elements };
  return { elements, bytes: Math.ceil(elements * QUANTIZED[bits].bits / 8) + FLOAT };
}

function lastStage({ stages }: RunConfig): Stage {
  return stages[stages.length - 1];
}

/** Weights of the indexers' products, all layers. */
function indexerProjections(config: RunConfig): number {
  return modelParameters(config)
    .filter(({ name, shape }) => name.includes(".indexer.") && shape.length === 2)
    .reduce((sum, { rows, cols }) => sum + rows * cols, 0);
}
