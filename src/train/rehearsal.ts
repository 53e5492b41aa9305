/**
 * All plans of a run made once before it begins: none of its stages, and no measurement at the end of
 * one, finds out after hours that it does not fit.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import { isIndexed, type StageSpan } from "../config/stages.ts";
import type { LossFunction } from "../engine.ts";
import { measuringVariant, swappedVariants } from "../measure/indexer.ts";
import { densityVariant } from "../measure/latents.ts";
import { modelParameters } from "../model/parameters.ts";
import { viewOf } from "../model/stage_view.ts";
import { languageModel } from "../model/transformer.ts";
import { type Device, requirePlan } from "../open_device.ts";
import type { Rehearsal } from "../webgpu/engine/rehearsal.ts";
import { trainedGroups } from "./hyper.ts";

/**
 * Sizes below which every plan fits, on any adapter whose buffers hold the weights: what runs out
 * with them, grids, loops and windows, has room for many times as much. There no rehearsal is worth
 * the few hundred milliseconds that it takes.
 */
const ORDINARY = { tokens: 2 ** 15, width: 2 ** 14, vocabulary: 2 ** 18, sequence: 2 ** 25 };

/** Whether plans may not fit, though the memory of the run does. */
function isExtraordinary(config: RunConfig): boolean {
  const { batchSize, seqLen, numAttentionHeads, indexNHeads, hiddenSize, vocabSize } = config;
  const { qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = config;
  const heads = numAttentionHeads * (qkNopeHeadDim + qkRopeHeadDim + vHeadDim);
  return batchSize * seqLen > ORDINARY.tokens || vocabSize > ORDINARY.vocabulary ||
    seqLen * heads > ORDINARY.sequence ||
    Math.max(hiddenSize, numAttentionHeads, indexNHeads) > ORDINARY.width;
}

/**
 * Rehearses the steps of stages, and what is evaluated and measured in them, if their sizes are out
 * of the ordinary.
 *
 * @throws {UserError} if a plan does not fit on the device
 */
export function requirePlans(
  device: Pick<Device, "gpu">,
  config: RunConfig,
  spans: readonly StageSpan[],
): void {
  if (!isExtraordinary(config)) return;
  for (const plan of plansOf(config, spans)) requirePlan(device, plan);
}

/** What is planned for stages: their steps, and all that is evaluated and measured in them. */
export function* plansOf(
  config: RunConfig,
  spans: readonly StageSpan[],
): Generator<Rehearsal> {
  const { batchSize, seqLen } = config;
  const shared = { parameters: modelParameters(config), batchSize, seqLen };
  for (const { stage } of spans) {
    const loss = languageModel(config, { stage: viewOf(stage, config), trains: stage.trains });
    const measured = config.attention === "mla" ? [densityVariant(config, stage)] : [];
    if (isIndexed(stage)) {
      measured.push(measuringVariant(config, stage), ...swappedVariants(config, stage));
    }
    const evaluated: LossFunction[] = [loss, ...measured.map((variant) => variant.loss)];
    yield { ...shared, loss, trained: trainedGroups(stage) };
    for (const loss of evaluated) yield { ...shared, loss, trained: [] };
  }
}
