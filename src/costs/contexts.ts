/**
 * How many keys a token looks at, and what one of them costs: the parts of `costs.ts`.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import type { Stage } from "../config/stage_fields.ts";
import { selectors } from "../ops/select/selectors/selectors.ts";

/** What the costs depend on of a {@linkcode Stage}. */
export type StageCosts = Pick<Stage, "attention" | "trains" | "kl" | "indexTopk">;

/** The stage that a run's costs are of: its last sparse one, or its last. */
export function mainStage({ stages }: Pick<RunConfig, "stages">): Stage {
  return stages.findLast(({ attention }) => attention === "sparse") ?? stages[stages.length - 1];
}

/** Whether attention goes to keys that were chosen by their index scores. */
export function selectsByIndex(config: RunConfig, { attention }: StageCosts): boolean {
  const { by } = selectors[config.selector];
  return attention === "sparse" && by === "index" && config.indexKeyInput !== "native";
}

/** Whether attention goes to keys that were chosen by what dense attention gives them. */
export function selectsByAttention(config: RunConfig, { attention }: StageCosts): boolean {
  const { by } = selectors[config.selector];
  const isNative = by === "index" && config.indexKeyInput === "native";
  return attention === "sparse" && (by === "attention" || isNative);
}

/** Keys that a query attends to at most, without the dense heads of mosa. */
export function keysAtMost(config: RunConfig, stage: StageCosts): number {
  if (config.attention === "mosa") return config.indexTopk;
  return stage.attention === "sparse" ? stage.indexTopk : config.window ?? Infinity;
}

/**
 * Keys that the heads of a query attend to together at most: groups choose the same by positions
 * alone, else theirs need not coincide (`index/union_size` tells how far they do).
 */
export function keysTogether(config: RunConfig, stage: StageCosts): number {
  const isOne = stage.attention !== "sparse" || selectors[config.selector].by === "positions";
  return keysAtMost(config, stage) * (isOne ? 1 : config.indexGroups);
}

/** Mean of min(position, k) over the positions 1 … S. */
function meanContext(seqLen: number, k: number): number {
  return k < seqLen ? k - k * (k - 1) / (2 * seqLen) : (seqLen + 1) / 2;
}

/**
 * Pairs of core attention, a token and head, in the mean of the heads. Causal heads of mosa count as
 * if they took every token: how many they do depends on the data.
 */
export function coreContext(config: RunConfig, stage: StageCosts): number {
  const k = keysAtMost(config, stage);
  if (config.attention !== "mosa") return meanContext(config.seqLen, k);
  const { seqLen, mosaDenseHeads: dense, numAttentionHeads: heads } = config;
  const picks = Math.min(k, seqLen);
  const own = config.mosaCausal ? meanContext(seqLen, k) : picks * (picks + 1) / (2 * seqLen);
  return (dense * meanContext(seqLen, Infinity) + (heads - dense) * own) / heads;
}

/** Keys of the indexer's loss, a token. */
export function lossContext({ seqLen }: RunConfig, { kl, indexTopk }: StageCosts): number {
  return meanContext(seqLen, kl === "selected" ? indexTopk : Infinity);
}

/** Keys that the indexer scores, a token. */
export function scoredContext(config: RunConfig, stage: StageCosts): number {
  if (selectsByIndex(config, stage)) return meanContext(config.seqLen, Infinity);
  return lossContext(config, stage);
}

/** Layers with an indexer of their own. */
export function indexerLayers({ numHiddenLayers, indexShare }: RunConfig): number {
  return Math.ceil(numHiddenLayers / indexShare);
}

/** Layers whose attention teaches an indexer. */
export function teacherLayers(config: RunConfig): number {
  return config.indexShareLoss === "served" ? config.numHiddenLayers : indexerLayers(config);
}

/** Whether the indexer's loss needs attention to all keys: for its keys, or for their target. */
export function hasDenseTarget({ klTarget }: RunConfig, { kl }: StageCosts): boolean {
  return kl === "dense" || kl === "selected" && klTarget === "renormalized";
}

/** Multiply-adds of one index score. */
export function indexWidth({ indexNHeads, indexHeadDim }: RunConfig): number {
  return indexNHeads * (indexHeadDim + 1);
}

/** Widths of a query or key head, and of a value head. */
export function headWidths(config: RunConfig): { qk: number; v: number } {
  return config.attention === "mla"
    ? { qk: config.qkNopeHeadDim + config.qkRopeHeadDim, v: config.vHeadDim }
    : { qk: config.headDim, v: config.headDim };
}
