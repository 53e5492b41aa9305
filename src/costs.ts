/**
 * What a configuration costs, computed and not measured: parameters, floating-point operations,
 * cache. A multiply-add counts as two operations.
 *
 * @module
 */
import type { RunConfig } from "./config.ts";
import {
  coreContext,
  headWidths,
  indexerLayers,
  indexWidth,
  keysAtMost,
  lossContext,
  scoredContext,
  selectsByIndex,
  type StageCosts,
  teacherLayers,
} from "./cost_contexts.ts";
import { modelParameters } from "./model/parameters.ts";
import type { Stage } from "./stages.ts";

export type { StageCosts };

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
 * import { resolveConfig } from "./config.ts";
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
  /** The indexers' scores of all the keys they look at, mean over the positions. */
  readonly indexScores: number;
  /** The products of the SwiGLU layers. */
  readonly mlp: number;
  /** Logits, `2 * vocabSize * hiddenSize`. */
  readonly head: number;
  /** The sum of all parts. */
  readonly total: number;
}

/**
 * Operations of a stage's forward pass for one token of a sequence of `seqLen`. Norms, activations,
 * softmax and top-k are not counted.
 *
 * A layer of core attention costs `2 ctx H (n + r + v)`, index scores `2 ctx H_I (d_I + 1)`
 * (Megatron-Bridge, `flop_utils.py`). The mean ctx of a sequence of S is `(S + 1) / 2`; for k keys
 * at most, by selection or window, it is `k - k (k - 1) / (2 S)`. Index scores are over all keys,
 * unless only the loss over selected ones needs them. A head of MoSA has `k (k + 1) / 2` pairs.
 *
 * @param stage default: the last of the run
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveConfig } from "./config.ts";
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
  const flops = {
    projections: 2 * attention,
    core: 2 * coreContext(config, stage) * config.numAttentionHeads * (qk + v) *
      config.numHiddenLayers,
    indexerProjections: isUsed ? 2 * indexerProjections(config) : 0,
    indexScores: isUsed
      ? 2 * scoredContext(config, stage) * indexWidth(config) * indexerLayers(config)
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
 * - indexer, trained: its projections twice (no gradient goes on to their input), and
 *   `4 ctx H_I (d_I + 1)` for the gradient of its scores, over the keys of its loss.
 * - its teacher: attention scores once more, `2 ctx H (n + r)`, over the keys of its loss; and dense
 *   attention beside sparse attention, where the teacher or the selector needs it.
 *
 * What attention computes again in its backward pass is not counted.
 *
 * @param stage default: the last of the run
 */
export function trainingFlopsPerToken(
  config: RunConfig,
  stage: StageCosts = lastStage(config),
): number {
  const forward = forwardFlopsPerToken(config, stage);
  const { qk, v } = headWidths(config);
  const { numAttentionHeads: heads, numHiddenLayers: layers } = config;
  const indexer = forward.indexerProjections + forward.indexScores;
  const backbone = forward.total - indexer;
  let flops = indexer + (stage.trains === "indexer" ? 1 : 3) * backbone;
  if (stage.kl !== "none") {
    flops += 2 * lossContext(config, stage) * heads * qk * teacherLayers(config);
    if (stage.trains !== "backbone") {
      flops += forward.indexerProjections +
        4 * lossContext(config, stage) * indexWidth(config) * teacherLayers(config);
    }
  }
  const isDenseToo = config.selector === "oracle" ||
    stage.kl === "selected" && config.klTarget === "renormalized";
  if (stage.attention === "sparse" && isDenseToo) {
    flops += 2 * coreContext(config, { ...stage, attention: "dense" }) * heads * (qk + v) * layers;
  }
  return flops;
}

/** What generating keeps of each token, and what it reads of the others. */
export interface CacheCost {
  /**
   * Elements a token and layer: `2 H d_h` mha, `2 G d_h` gqa, `d_c + r` mla, `d_c + r + d_I` DSA.
   * With `indexShare` only some layers have `d_I`: then their mean.
   */
  readonly elementsPerLayer: number;
  /** Elements a token, all layers. */
  readonly elements: number;
  /** Bytes a token, all layers, in float32. */
  readonly bytes: number;
  /**
   * Elements that a layer reads for the token at position `seqLen`: `S (d_c + r)` mla,
   * `S d_I + k (d_c + r)` DSA.
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
 * import { resolveConfig } from "./config.ts";
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
  const { seqLen } = config;
  const own = config.attention === "mla"
    ? config.kvLoraRank + config.qkRopeHeadDim
    : 2 * config.numKeyValueHeads * config.headDim;
  const indexKeys = selectsByIndex(config, stage) ? config.indexHeadDim * indexerLayers(config) : 0;
  const elements = own * config.numHiddenLayers + indexKeys;
  const elementsPerLayer = elements / config.numHiddenLayers;
  const ranksAll = stage.attention === "sparse" && config.selector === "oracle";
  const keys = ranksAll ? seqLen : keysAtMost(config, stage);
  const readPerLayer = seqLen * indexKeys / config.numHiddenLayers + Math.min(keys, seqLen) * own;
  return { elementsPerLayer, elements, bytes: 4 * elements, readPerLayer };
}

/**
 * The costs of a configuration in a few lines; those of the model are of its last sparse stage, or
 * of its last stage if none is sparse.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveConfig } from "./config.ts";
 * import { describeCosts } from "./costs.ts";
 *
 * const config = resolveConfig({ preset: "base", recipe: "dense" });
 * assert.match(describeCosts(config), /^parameters +92\.5 M/);
 * ```
 */
export function describeCosts(config: RunConfig): string {
  const { stages } = config;
  const stage = stages.findLast(({ attention }) => attention === "sparse") ?? lastStage(config);
  const { total, ...parts } = countParameters(config);
  const flops = forwardFlopsPerToken(config, stage);
  const tokens = config.batchSize * config.seqLen * config.accumulate;
  const share = (part: number) => `${(100 * part / flops.total).toFixed(0)} %`;
  const named = (value: number, name: string) => value ? [`${name} ${withUnit(value)}`] : [];
  const index = flops.indexerProjections + flops.indexScores;
  const steps = stages.map((stage) =>
    (stages.length > 1 ? `${stage.name} ` : "") +
    `${withUnit(trainingFlopsPerToken(config, stage) * tokens)}FLOP`
  );
  return [
    `parameters  ${withUnit(total)} (` +
    Object.entries(parts).flatMap(([name, value]) => named(value, name)).join(", ") + ")",
    `forward     ${withUnit(flops.total)}FLOP a token (projections ${share(flops.projections)}, ` +
    `core attention ${share(flops.core)}, ${index ? `indexer ${share(index)}, ` : ""}` +
    `mlp ${share(flops.mlp)}, head ${share(flops.head)})`,
    `training    ${steps.join(", ")} a step of ${tokens.toLocaleString("en-US")} tokens`,
    ...describeCache(config, stage),
    ...(selectsByIndex(config, stage) ? describeIndexer(config) : []),
  ].join("\n");
}

function describeCache(config: RunConfig, stage: Stage): string[] {
  const cache = cachePerToken(config, stage);
  const { qk, v } = headWidths(config);
  const uncompressed = config.numAttentionHeads * (qk + v);
  const ratio = uncompressed / cache.elementsPerLayer;
  const dense = cachePerToken(config, { ...stage, attention: "dense", indexTopk: config.seqLen });
  const whole = selectsByIndex(config, stage)
    ? `, dense attention ${dense.readPerLayer.toLocaleString("en-US")}`
    : "";
  const indexKey = cache.elementsPerLayer - dense.elementsPerLayer;
  return [
    `cache       ${cache.bytes.toLocaleString("en-US")} bytes a token: ` +
    `${cache.elementsPerLayer} elements a layer` +
    (indexKey ? ` (latent and rope key ${dense.elementsPerLayer}, index key ${indexKey})` : "") +
    (ratio === 1 ? "" : `; keys and values of all heads would be ${uncompressed}, ` +
      `${ratio.toFixed(1)} times as many`),
    `decoding    reads ${cache.readPerLayer.toLocaleString("en-US")} elements a layer for token ` +
    `${config.seqLen.toLocaleString("en-US")}${whole}`,
  ];
}

function describeIndexer(config: RunConfig): string[] {
  const { qk, v } = headWidths(config);
  const [index, attention] = [2 * indexWidth(config), 2 * config.numAttentionHeads * (qk + v)];
  const lines = [
    "note        selecting does not shrink the stored cache, and the total cost stays quadratic in " +
    `the length with a small constant: ${index} FLOP a pair of tokens, not ${attention}`,
  ];
  if (index > MOST_INDEX_SHARE * attention) {
    lines.push(
      `warning     index scores cost ${
        (100 * index / attention).toPrecision(3)
      } % of dense attention, ` +
        `more than ${100 * MOST_INDEX_SHARE} %: an oversized indexer removes the benefit; ` +
        "lower indexNHeads or indexHeadDim",
    );
  }
  return lines;
}

/** What index scores may cost of dense attention for sparse attention to be worth it. */
const MOST_INDEX_SHARE = 0.2;

function lastStage({ stages }: RunConfig): Stage {
  return stages[stages.length - 1];
}

/** Weights of the indexers' products, all layers. */
function indexerProjections(config: RunConfig): number {
  return modelParameters(config)
    .filter(({ name, shape }) => name.includes(".indexer.") && shape.length === 2)
    .reduce((sum, { rows, cols }) => sum + rows * cols, 0);
}

/** `13179648` as `13.2 M`; numbers below a thousand as they are. */
function withUnit(value: number): string {
  const power = Math.min(6, Math.floor(Math.log10(Math.max(value, 1)) / 3));
  return power === 0 ? `${value}` : `${(value / 1000 ** power).toPrecision(3)} ${" kMGTPE"[power]}`;
}
