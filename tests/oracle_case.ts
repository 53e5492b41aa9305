/** A small model with an indexer, for what must hold whatever the weights. */
import { type ConfigInput, resolveConfig, type RunConfig } from "../src/config/config.ts";
import type { Batch } from "../src/data/dataset.ts";
import type { EngineOptions } from "../src/engine.ts";
import { initialParameters, modelParameters } from "../src/model/parameters.ts";
import type { StageView } from "../src/model/stage_view.ts";
import { languageModel } from "../src/model/transformer.ts";
import type { Stage } from "../src/config/stage_fields.ts";
import { WebGpuEngine } from "../src/webgpu/engine/engine.ts";
import { testGpu } from "./check_op.ts";

/** A model with an indexer, small enough for float64, of odd sizes. */
export const SMALL = {
  tokenizer: "byte",
  vocabSize: 23,
  batchSize: 2,
  seqLen: 21,
  hiddenSize: 20,
  intermediateSize: 24,
  numHiddenLayers: 2,
  numAttentionHeads: 3,
  qLoraRank: 14,
  kvLoraRank: 12,
  qkNopeHeadDim: 6,
  qkRopeHeadDim: 4,
  vHeadDim: 5,
  indexNHeads: 3,
  indexHeadDim: 8,
  indexTopk: 5,
  // Large weights: attention far from uniform, so that a wrong key shows.
  initializerRange: 0.4,
} as const satisfies ConfigInput;

/** Sparse attention by the indexer, without KL. */
export const sparse: StageView = {
  selector: "learned",
  indexTopk: 5,
  kl: "none",
  trainsIndexer: true,
  measures: false,
};

/** A configuration with a seed of its own. */
export function config(changes: ConfigInput = {}): RunConfig {
  return resolveConfig({ ...SMALL, seed: Math.floor(Math.random() * 1e9), ...changes });
}

/** Tokens and targets, all of them scored. */
export function randomBatch({ batchSize, seqLen, vocabSize }: RunConfig): Batch {
  const count = batchSize * seqLen;
  const ids = () => Int32Array.from({ length: count }, () => Math.floor(Math.random() * vocabSize));
  return { tokens: ids(), targets: ids(), count };
}

/** An engine for the model in a stage. */
export function options(
  c: RunConfig,
  stage: StageView,
  trains: Stage["trains"] = "both",
): EngineOptions {
  return {
    parameters: modelParameters(c),
    initial: initialParameters(c),
    loss: languageModel(c, { stage, trains }),
    batchSize: c.batchSize,
    seqLen: c.seqLen,
  };
}

/** What the model makes of a batch on WebGPU. */
export interface Results {
  readonly loss: number;
  readonly logits: Float32Array;
  readonly gradients: Map<string, Float32Array>;
}

/** Runs forward and backward passes with first weights. */
export async function results(
  c: RunConfig,
  stage: StageView,
  batch: Batch,
  trains?: Stage["trains"],
): Promise<Results> {
  using engine = await WebGpuEngine.open(await testGpu(), options(c, stage, trains));
  return {
    loss: (await engine.evaluate(batch)).loss,
    logits: await engine.logits(batch.tokens),
    gradients: await engine.gradients(batch),
  };
}

/** Whether a parameter belongs to an indexer. */
export const isIndexer = (name: string): boolean => name.includes(".indexer.");
/** Whether all values are 0. */
export const isZero = (x: Float32Array): boolean => x.every((value) => value === 0);
