/**
 * What a run costs, computed from its configuration and measured in its log.
 *
 * @module
 */
import type { RunConfig } from "../config.ts";
import {
  cachePerToken,
  countParameters,
  forwardFlopsPerToken,
  trainingFlopsPerToken,
} from "../costs.ts";
import { coreContext, headWidths, lossContext } from "../cost_contexts.ts";
import { type Stage, stageSpans } from "../stages.ts";
import type { MetricsRow } from "../train/run_folder.ts";

/** Bytes of a float32. */
const FLOAT = 4;

/** The stage that a run's costs are of: its last sparse one, or its last. */
export function mainStage({ stages }: Pick<RunConfig, "stages">): Stage {
  return stages.findLast(({ attention }) => attention === "sparse") ?? stages[stages.length - 1];
}

/**
 * The costs of `RunResult.costs` that follow from the configuration, of its last sparse stage or
 * else its last. Empty where only the data will tell the size of the vocabulary.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveConfig } from "../config.ts";
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
    "cache/readBytes": FLOAT * cache.readPerLayer * config.numHiddenLayers,
    "flopsPerToken/projections": flops.projections,
    "flopsPerToken/core": flops.core,
    "flopsPerToken/indexer": flops.indexerProjections + flops.indexScores,
    "flopsPerToken/mlp": flops.mlp,
    "flopsPerToken/head": flops.head,
    "flopsPerToken/total": flops.total,
    "flopsPerToken/teacher": teacherFlops(config, stage),
    "flopsPerToken/training": trainingFlopsPerToken(config, stage),
  };
}

/**
 * Operations a token that a training step spends on the indexer's target: attention scores once
 * more over the keys of its loss, and dense attention beside the sparse one where the target needs
 * it.
 */
function teacherFlops(config: RunConfig, stage: Stage): number {
  if (stage.kl === "none") return 0;
  const { qk, v } = headWidths(config);
  const { numAttentionHeads: heads, numHiddenLayers: layers } = config;
  const isDenseToo = stage.attention === "sparse" && stage.kl === "selected" &&
    config.klTarget === "renormalized";
  const dense = isDenseToo ? coreContext(config, { ...stage, attention: "dense" }) * (qk + v) : 0;
  return 2 * heads * layers * (lossContext(config, stage) * qk + dense);
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
  for (const { stage, start, end } of stageSpans(config.stages)) {
    const own = rows.filter(({ step }) => step > start && step <= end);
    const times = own.flatMap((row) => row["time/step_ms"] ?? []).sort((a, b) => a - b);
    if (times.length) {
      const median = times[Math.floor(times.length / 2)];
      costs[`time/${stage.name}/step_ms`] = median;
      if (stage === mainStage(config)) costs["time/step_ms"] = median;
    }
    for (const [name, value] of own.flatMap((row) => Object.entries(row))) {
      const group = name.match(/^time\/gpu\/(.+)$/)?.[1];
      if (group && value !== null) costs[`gpu/${stage.name}/${group}`] = value;
    }
  }
  return costs;
}
