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
 * `constant` stays; `cosine` falls along half a cosine (Loshchilov & Hutter, arXiv:1608.03983);
 * `wsd` stays, and each of the last `decaySteps` takes an equal part of the way down
 * (warm-up-stable-decay, arXiv:2404.06395). The last step has `minLr * lr`.
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
 * assert(Math.abs(learningRate(config, 99) - config.minLr * 1e-3) < 1e-12);
 * ```
 */
export function learningRate(config: ScheduleConfig, step: number): number {
  const { schedule, lr, minLr, steps, warmupSteps, decaySteps } = config;
  if (step < warmupSteps) return lr * (step + 1) / warmupSteps;
  const last = steps - 1;
  // The step before the fall: that of `lr`, which is the only one where there is nothing to fall.
  const peak = Math.max(0, warmupSteps - 1);
  const fall = schedule === "constant"
    ? 0
    : schedule === "cosine"
    ? (1 - Math.cos(Math.PI * progress(step, peak, last))) / 2
    : progress(step, last - decaySteps, last);
  return lr * (1 - (1 - minLr) * fall);
}

/** Share of the way from one step to another: 0 up to the first, 1 from the second on. */
function progress(step: number, from: number, to: number): number {
  return step <= from || to <= from ? 0 : Math.min(1, (step - from) / (to - from));
}
