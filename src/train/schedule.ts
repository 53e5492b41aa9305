/**
 * Learning-rate schedules, as functions of the step alone.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";

/** The keys that a schedule depends on. */
export type ScheduleConfig = Pick<
  RunConfig,
  "schedule" | "lr" | "minLr" | "steps" | "warmupSteps" | "decaySteps"
>;

/**
 * The learning rate of a step, counted from 0.
 *
 * All schedules rise linearly over `warmupSteps`, reaching `lr` at the last of them. Then
 * `constant` stays; `cosine` falls to `minLr * lr` along half a cosine (Loshchilov & Hutter,
 * arXiv:1608.03983); `wsd` stays and falls linearly over the last `decaySteps`
 * (warm-up-stable-decay, arXiv:2404.06395).
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveConfig } from "../config/config.ts";
 * import { learningRate } from "./schedule.ts";
 *
 * const config = resolveConfig({ schedule: "cosine", lr: 1e-3, steps: 100, warmupSteps: 10 });
 * assert.equal(learningRate(config, 0), 1e-4);
 * assert.equal(learningRate(config, 9), 1e-3);
 * assert(Math.abs(learningRate(config, 100) - config.minLr * 1e-3) < 1e-12);
 * ```
 */
export function learningRate(config: ScheduleConfig, step: number): number {
  const { schedule, lr, minLr, steps, warmupSteps, decaySteps } = config;
  if (step < warmupSteps) return lr * (step + 1) / warmupSteps;
  const fall = schedule === "constant"
    ? 0
    : schedule === "cosine"
    ? (1 - Math.cos(Math.PI * progress(step, warmupSteps, steps))) / 2
    : progress(step, steps - decaySteps, steps);
  return lr * (1 - (1 - minLr) * fall);
}

/** Share of the way from one step to another: 0 before, 1 after. */
function progress(step: number, from: number, to: number): number {
  return to > from ? Math.min(1, Math.max(0, (step - from) / (to - from))) : Number(step >= to);
}
