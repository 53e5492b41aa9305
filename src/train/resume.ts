/**
 * Going on with a run: the configuration that it has then.
 *
 * @module
 */
import { join } from "node:path";
import {
  type ConfigInput,
  type ConfigKey,
  configKeys,
  fields,
  parseOverrides,
  resolveConfig,
  type RunConfig,
} from "../config/config.ts";
import { isTask } from "../config/checks.ts";
import { UserError } from "../errors.ts";
import { isThere, readJson } from "../files/files.ts";
import { savedConfig } from "../config/saved_config.ts";
import { stageSpans } from "../config/stages.ts";
import type { Stage } from "../config/stage_fields.ts";
import { learningRate } from "./schedule.ts";
import { newestCheckpoint } from "../runs/checkpoint.ts";
import type { Summary } from "../runs/run_folder.ts";

/** The rates of a stage. */
const rates = ["lr", "indexerLr"] as const;

/**
 * The configuration of a run that was stopped before its first checkpoint, or null where there is
 * a checkpoint or no run. Such a run starts again from its beginning.
 */
export async function unsavedConfig(run: string): Promise<RunConfig | null> {
  if (await newestCheckpoint(run)) return null;
  const path = join(run, "config.json");
  const config = readJson(path);
  return config && isThere(join(run, "summary.json")) ? savedConfig(config, path) : null;
}

/**
 * The configuration of a checkpoint with the rates that its run has had since: one that went back
 * to it after a failure may have stopped before it saved again.
 *
 * @param run the run folder
 */
export function withRates(config: RunConfig, run: string): RunConfig {
  const path = join(run, "config.json");
  const json = readJson(path);
  const own = json && savedConfig(json, path);
  const names = (c: RunConfig) => c.stages.map(({ name }) => name).join();
  if (!own || names(own) !== names(config)) return config;
  const { lr, indexerLr, clip } = own;
  const stages = config.stages.map((stage, i) => {
    const { lr, indexerLr } = own.stages[i];
    return { ...stage, lr, indexerLr };
  });
  return { ...config, lr, indexerLr, clip, stages };
}

/**
 * The configuration of a run that goes on: that of its checkpoint with what was typed, which may
 * only change keys whose field says so; of a run that has failed also `clip` and the rates
 * of stages that are not over. `lr=…` then scales those of all of them.
 *
 * @param options.failedAfter steps at the checkpoint to which a failed run goes back
 * @param options.ended how stages with a criterion have ended so far
 * @throws {UserError} naming the key, its old and its new value
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveConfig } from "../config/config.ts";
 * import { resumeConfig } from "./resume.ts";
 *
 * const saved = resolveConfig({ recipe: "dense", steps: 300 });
 * assert.equal(resumeConfig(saved, ["resume=runs/quickstart_001", "steps=600"]).steps, 600);
 * assert.throws(() => resumeConfig(saved, ["hiddenSize=128"]), /hiddenSize=128/);
 * ```
 */
export function resumeConfig(
  saved: RunConfig,
  overrides: readonly string[],
  { failedAfter, ended = {} }: { failedAfter?: number; ended?: Summary["until"] } = {},
): RunConfig {
  const typed = parseOverrides(overrides);
  const hasCriterion = saved.stages.some(({ until }) => until !== null);
  const hasFailed = failedAfter !== undefined;
  const mayChange = (key: ConfigKey) =>
    fields[key].onResume === "free" || hasFailed && fields[key].onResume === "afterFailure";
  for (const key of configKeys) {
    const value = typed[key];
    const isOtherTask = key === "data" && [value, saved.data].some((data) => isTask(String(data)));
    const decidesEnds = hasCriterion && (key === "evalEvery" || key === "evalBatches");
    if (value === undefined || mayChange(key) && !isOtherTask && !decidesEnds) continue;
    if (String(value) === String(saved[key])) continue;
    throw new UserError(
      `Cannot resume with ${key}=${value ?? "none"}: the run was started with ` +
        `${key}=${saved[key] ?? "none"}; leave it out, or start a new run`,
    );
  }
  const spans = stageSpans(saved.stages);
  const isOpen = (i: number) => hasFailed && spans[i].end > failedAfter;
  const stages = saved.stages.map((stage, i) => isOpen(i) ? scaled(stage, saved, typed) : stage);
  const config = resolveConfig({ ...saved, stages }, overrides);
  const last = stages.length - 1;
  const { name, steps } = config.stages[last];
  if (ended[name]?.met && steps !== stages[last].steps) {
    throw new UserError(
      `Cannot resume with ${name}.steps=${steps}: the stage ended when it met ` +
        `${ended[name].criterion}, after ${ended[name].steps} steps; start a new run`,
    );
  }
  const fixed = (stages: readonly Stage[]) =>
    JSON.stringify(stages.map((stage, i) => ({
      ...stage,
      ...(i === last ? { steps: 0 } : {}),
      ...(isOpen(i) ? { lr: 0, indexerLr: 0 } : {}),
    })));
  if (fixed(config.stages) !== fixed(saved.stages)) {
    throw new UserError(
      "Cannot resume with other stages: only the steps of the last one may be changed " +
        `(${stages[last].name}.steps=…), after a failure also lr and indexerLr of stages that ` +
        "are not over; start a new run",
    );
  }
  return config;
}

/**
 * What a run that is made longer, or shorter, does to the learning rate: a schedule that had come
 * down goes on higher up. Null where the rate stays what it would have been.
 *
 * @param done finished steps
 */
export function rateNote(saved: RunConfig, config: RunConfig, done: number): string | null {
  const [before, after] = [saved, config].map(({ stages }) => stages[stages.length - 1]);
  const step = done - stageSpans(config.stages).at(-1)!.start;
  if (before.steps === after.steps || step < 1) return null;
  const [last, next] = [learningRate(before, step - 1), learningRate(after, step)];
  if (next === learningRate(before, step)) return null;
  return `${after.name}.steps=${after.steps}: with schedule=${after.schedule} the learning rate ` +
    `goes from ${last.toExponential(2)} in step ${done} to ${
      next.toExponential(2)
    } in the next, and ` +
    `reaches ${(after.minLr * after.lr).toExponential(2)} in the last`;
}

/** A stage whose rates follow the run's: they are as many times as large as before. */
function scaled(stage: Stage, saved: RunConfig, typed: ConfigInput): Stage {
  const own = { ...stage };
  for (const key of rates) {
    const value = typed[key];
    if (value === undefined) continue;
    own[key] = stage[key] === saved[key] ? value : stage[key] * (value / saved[key]);
  }
  return own;
}
