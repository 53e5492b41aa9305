/**
 * The optimizer's numbers, step by step.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import type { GroupHyper, StepHyper } from "../engine.ts";
import type { StageSpan } from "../config/stages.ts";
import type { Stage } from "../config/stage_fields.ts";
import { learningRate } from "./schedule.ts";

/** The parameter groups of a model. */
const parameterGroups = ["backbone", "indexer"] as const;

/** A parameter group. */
export type ParameterGroup = typeof parameterGroups[number];

/** The groups that a stage updates. */
export function trainedGroups({ trains }: Pick<Stage, "trains">): ParameterGroup[] {
  return trains === "both" ? [...parameterGroups] : [trains];
}

/** Updates that a group has had when a stage starts: Adam's bias correction goes on from there. */
function updatesBefore({ stage, before }: StageSpan, group: ParameterGroup): number {
  const isReset = stage.optimizer === "reset" && trainedGroups(stage).includes(group);
  if (!before || isReset) return 0;
  const own = trainedGroups(before.stage).includes(group) ? before.stage.steps : 0;
  return updatesBefore(before, group) + own;
}

/** The hyper-parameters of one step of a stage, counted from 0 within the stage. */
export function stepHyper(config: RunConfig, span: StageSpan, step: number): StepHyper {
  const { stage } = span;
  const rates = { backbone: stage.lr, indexer: stage.indexerLr };
  const groups: Record<string, GroupHyper> = {};
  for (const group of trainedGroups(stage)) {
    groups[group] = {
      lr: learningRate({ ...stage, lr: rates[group] }, step),
      weightDecay: config.weightDecay,
      clip: config.clip ?? 0,
      update: updatesBefore(span, group) + step + 1,
    };
  }
  return { beta1: config.beta1, beta2: config.beta2, eps: config.adamEps, groups };
}
