/**
 * What a configuration costs, computed and not measured: parameters, floating-point operations,
 * cache. A multiply-add counts as two operations.
 *
 * @module
 */
import type { RunConfig } from "./config.ts";
import { modelParameters } from "./model/parameters.ts";

/** Numbers of parameters. */
export interface ParameterCount {
  /** The token table, `vocabSize * hiddenSize`. */
  readonly embedding: number;
  /** Projections of all layers. */
  readonly attention: number;
  /** Gate, up and down projections of all layers. */
  readonly mlp: number;
  /** All norms, those inside attention too. */
  readonly norms: number;
  /** 0 where the head shares the embedding's weights. */
  readonly head: number;
  /** The sum of all parts. */
  readonly total: number;
}

/**
 * Counts parameters; the norms inside attention count as norms.
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
  const count = { embedding: 0, attention: 0, mlp: 0, norms: 0, head: 0, total: 0 };
  if (config.vocabSize < 1) {
    throw new RangeError(
      "Cannot count parameters: vocabSize is 0; take it from the tokenizer first",
    );
  }
  for (const { name, shape } of modelParameters(config)) {
    const part = /norm\.weight$/.test(name)
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
  /** The products of the SwiGLU layers. */
  readonly mlp: number;
  /** Logits, `2 * vocabSize * hiddenSize`. */
  readonly head: number;
  /** The sum of all parts. */
  readonly total: number;
}

/**
 * Operations of the forward pass for one token of a sequence of `seqLen`, which attends to
 * `(seqLen + 1) / 2` keys on average. Norms, activations and softmax are not counted.
 *
 * Core attention costs `2 ctx H (n + r + v)` a layer (Megatron-Bridge, `flop_utils.py`).
 */
export function forwardFlopsPerToken(config: RunConfig): ForwardFlops {
  const { attention, mlp } = countParameters(config);
  const { qk, v } = headWidths(config);
  const context = (config.seqLen + 1) / 2;
  const flops = {
    projections: 2 * attention,
    core: 2 * context * config.numAttentionHeads * (qk + v) * config.numHiddenLayers,
    mlp: 2 * mlp,
    head: 2 * config.vocabSize * config.hiddenSize,
  };
  return { ...flops, total: flops.projections + flops.core + flops.mlp + flops.head };
}

/**
 * Operations of forward and backward pass for one token: three times the forward pass. What
 * attention computes again in its backward pass is not counted.
 */
export function trainingFlopsPerToken(config: RunConfig): number {
  return 3 * forwardFlopsPerToken(config).total;
}

/** What generating keeps of each token. */
export interface CacheCost {
  /** Elements a token and layer: `2 H d_h` mha, `2 G d_h` gqa, `d_c + r` mla. */
  readonly elementsPerLayer: number;
  /** Elements a token, all layers. */
  readonly elements: number;
  /** Bytes a token, all layers, in float32. */
  readonly bytes: number;
}

/**
 * Cache a token (DeepSeek-V2, table 1).
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveConfig } from "./config.ts";
 * import { cachePerToken } from "./costs.ts";
 *
 * const elements = (attention: "mha" | "mla") =>
 *   cachePerToken(resolveConfig({ preset: "small", attention })).elementsPerLayer;
 * assert.equal(elements("mha"), 2 * 384);
 * assert.equal(elements("mla"), 128 + 32);
 * ```
 */
export function cachePerToken(config: RunConfig): CacheCost {
  const elementsPerLayer = config.attention === "mla"
    ? config.kvLoraRank + config.qkRopeHeadDim
    : 2 * config.numKeyValueHeads * config.headDim;
  const elements = elementsPerLayer * config.numHiddenLayers;
  return { elementsPerLayer, elements, bytes: 4 * elements };
}

/**
 * The costs of a configuration in a few lines.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveConfig } from "./config.ts";
 * import { describeCosts } from "./costs.ts";
 *
 * assert.match(describeCosts(resolveConfig({ preset: "base" })), /^parameters +92\.5 M/);
 * ```
 */
export function describeCosts(config: RunConfig): string {
  const parameters = countParameters(config);
  const flops = forwardFlopsPerToken(config);
  const cache = cachePerToken(config);
  const { qk, v } = headWidths(config);
  const uncompressed = config.numAttentionHeads * (qk + v);
  const tokens = config.batchSize * config.seqLen * config.accumulate;
  const share = (part: number) => `${(100 * part / flops.total).toFixed(0)} %`;
  const ratio = uncompressed / cache.elementsPerLayer;
  return [
    `parameters  ${withUnit(parameters.total)} (embedding ${withUnit(parameters.embedding)}, ` +
    `attention ${withUnit(parameters.attention)}, mlp ${withUnit(parameters.mlp)}, ` +
    `head ${withUnit(parameters.head)}, norms ${withUnit(parameters.norms)})`,
    `forward     ${withUnit(flops.total)}FLOP a token (projections ${share(flops.projections)}, ` +
    `core attention ${share(flops.core)}, mlp ${share(flops.mlp)}, head ${share(flops.head)})`,
    `training    ${withUnit(trainingFlopsPerToken(config) * tokens)}FLOP a step of ` +
    `${tokens.toLocaleString("en-US")} tokens`,
    `cache       ${cache.bytes.toLocaleString("en-US")} bytes a token: ` +
    `${cache.elementsPerLayer} elements a layer` +
    (ratio === 1 ? "" : `; keys and values of all heads would be ${uncompressed}, ` +
      `${ratio.toFixed(1)} times as many`),
  ].join("\n");
}

function headWidths(config: RunConfig): { qk: number; v: number } {
  return config.attention === "mla"
    ? { qk: config.qkNopeHeadDim + config.qkRopeHeadDim, v: config.vHeadDim }
    : { qk: config.headDim, v: config.headDim };
}

/** `13179648` as `13.2 M`; numbers below a thousand as they are. */
function withUnit(value: number): string {
  const power = Math.min(5, Math.floor(Math.log10(Math.max(value, 1)) / 3));
  return power === 0 ? `${value}` : `${(value / 1000 ** power).toPrecision(3)} ${" kMGTP"[power]}`;
}
