/**
 * What a configuration costs, for people.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import { headWidths, indexWidth, mainStage, selectsByIndex } from "./contexts.ts";
import {
  cachePerToken,
  countParameters,
  flopParts,
  forwardFlopsPerToken,
  trainingFlopsPerToken,
} from "./costs.ts";
import type { Stage } from "../config/stage_fields.ts";
import { grouped, withUnit } from "../text/units.ts";

/**
 * The costs of a configuration in a few lines; those of the model are of its last sparse stage, or
 * of its last stage if none is sparse.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveConfig } from "../config/config.ts";
 * import { describeCosts } from "./description.ts";
 *
 * const config = resolveConfig({ preset: "base", recipe: "dense" });
 * assert.match(describeCosts(config), /^parameters +92\.5 M/);
 * ```
 */
export function describeCosts(config: RunConfig): string {
  const { stages } = config;
  const stage = mainStage(config);
  const { total, ...parts } = countParameters(config);
  const flops = forwardFlopsPerToken(config, stage);
  const tokens = config.batchSize * config.seqLen * config.accumulate;
  const share = (part: number) => `${(100 * part / flops.total).toFixed(0)} %`;
  const named = (value: number, name: string) => value ? [`${name} ${withUnit(value)}`] : [];
  const { projections, core, indexer, mlp, head } = flopParts(flops);
  const steps = stages.map((stage) =>
    (stages.length > 1 ? `${stage.name} ` : "") +
    `${withUnit(trainingFlopsPerToken(config, stage) * tokens)}FLOP`
  );
  return [
    `parameters  ${withUnit(total)} (` +
    Object.entries(parts).flatMap(([name, value]) => named(value, name)).join(", ") + ")",
    `forward     ${withUnit(flops.total)}FLOP a token (projections ${share(projections)}, ` +
    `core attention ${share(core)}, ${indexer ? `indexer ${share(indexer)}, ` : ""}` +
    `mlp ${share(mlp)}, head ${share(head)})`,
    `training    ${steps.join(", ")} a step of ${grouped(tokens)} tokens`,
    ...describeCache(config, stage),
    ...(selectsByIndex(config, stage) ? describeIndexer(config) : []),
  ].join("\n");
}

function describeCache(config: RunConfig, stage: Stage): string[] {
  const cache = cachePerToken(config, stage);
  const { qk, v } = headWidths(config);
  const uncompressed = config.numAttentionHeads * (qk + v);
  const ratio = uncompressed / cache.elementsPerLayer;
  const dense = cachePerToken(config, { ...stage, attention: "dense", indexTopk: config.seqLen });
  const whole = selectsByIndex(config, stage)
    ? `, dense attention ${grouped(dense.readPerLayer)}`
    : "";
  const indexKey = cache.elementsPerLayer - dense.elementsPerLayer;
  return [
    `cache       ${grouped(cache.bytes)} bytes a token: ` +
    `${grouped(cache.elementsPerLayer)} elements a layer` +
    (indexKey
      ? ` (latent and rope key ${dense.elementsPerLayer}, index key ${grouped(indexKey)})`
      : "") +
    (ratio === 1 ? "" : `; keys and values of all heads would be ${uncompressed}, ` +
      `${ratio.toFixed(1)} times as many`),
    `decoding    reads ${grouped(cache.readPerLayer)} elements a layer for token ` +
    `${grouped(config.seqLen)}${whole}`,
  ];
}

function describeIndexer(config: RunConfig): string[] {
  const { qk, v } = headWidths(config);
  const [index, attention] = [2 * indexWidth(config), 2 * config.numAttentionHeads * (qk + v)];
  const lines = [
    "note        selecting does not shrink the stored cache, and the total cost stays quadratic in " +
    `the length with a small constant: ${index} FLOP a pair of tokens, not ${attention}`,
  ];
  if (index > MOST_INDEX_SHARE * attention) {
    lines.push(
      `warning     index scores cost ${
        (100 * index / attention).toPrecision(3)
      } % of dense attention, ` +
        `more than ${100 * MOST_INDEX_SHARE} %: an oversized indexer removes the benefit; ` +
        "lower indexNHeads or indexHeadDim",
    );
  }
  return lines;
}

/** What index scores may cost of dense attention for sparse attention to be worth it. */
const MOST_INDEX_SHARE = 0.2;
