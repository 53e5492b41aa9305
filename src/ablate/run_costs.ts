/**
 * What a run costs, computed from its configuration and measured in its log.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import { mainStage } from "../costs/contexts.ts";
import {
  cachePerToken,
  countParameters,
  flopParts,
  forwardFlopsPerToken,
  teacherFlopsPerToken,
  trainingFlopsPerToken,
} from "../costs/costs.ts";
import { type StageSpan, stageSpans } from "../config/stages.ts";
import type { MetricsRow } from "../runs/run_folder.ts";

/**
 * The costs of `RunResult.costs` that follow from the configuration, of its last sparse stage or
 * else its last. Empty where only the data will tell the size of the vocabulary.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveConfig } from "../config/config.ts";
 * import { computedCosts } from "./run_costs.ts";
 *
 * const [few, many] = [8, 64].map((indexTopk) => computedCosts(resolveConfig({ indexTopk })));
 * assert.equal(few["cache/storedBytes"], many["cache/storedBytes"]);
 * assert(few["cache/readBytes"] < many["cache/readBytes"]);
 * ```
 */
export function computedCosts(config: RunConfig): Record<string, number> {
  if (config.vocabSize < 1) return {};
  const stage = mainStage(config);
  const flops = forwardFlopsPerToken(config, stage);
  const cache = cachePerToken(config, stage);
  return {
    "parameters": countParameters(config).total,
    "cache/storedBytes": cache.bytes,
    "cache/readBytes": cache.readBytes,
    ...Object.fromEntries(
      Object.entries(flopParts(flops)).map(([part, count]) => [`flopsPerToken/${part}`, count]),
    ),
    "flopsPerToken/total": flops.total,
    "flopsPerToken/teacher": teacherFlopsPerToken(config, stage),
    "flopsPerToken/training": trainingFlopsPerToken(config, stage),
  };
}

/** Median time of a step in a stage; null where none was logged. */
export function medianStepMs(
  rows: readonly MetricsRow[],
  { start, end }: StageSpan,
): number | null {
  const times = rows.filter(({ step }) => step > start && step <= end)
    .flatMap((row) => row["time/step_ms"] ?? []).sort((a, b) => a - b);
  return times.length ? times[times.length >> 1] : null;
}

/**
 * Times from a run's log: `time/<stage>/step_ms` (median over its rows; the first steps of a stage
 * wait for kernels to be compiled) and `gpu/<stage>/<group>_ms`; of the main stage also
 * `time/step_ms`.
 */
export function measuredCosts(
  config: RunConfig,
  rows: readonly MetricsRow[],
): Record<string, number> {
  const costs: Record<string, number> = {};
  for (const span of stageSpans(config.stages)) {
    const { stage, start, end } = span;
    const own = rows.filter(({ step }) => step > start && step <= end);
    const median = medianStepMs(rows, span);
    if (median !== null) {
      costs[`time/${stage.name}/step_ms`] = median;
      if (stage === mainStage(config)) costs["time/step_ms"] = median;
    }
    for (const [name, value] of own.flatMap((row) => Object.entries(row))) {
      const [family, device, group] = name.split("/");
      const isGpu = family === "time" && device === "gpu";
      if (isGpu && value !== null) costs[`gpu/${stage.name}/${group}`] = value;
    }
  }
  return costs;
}
