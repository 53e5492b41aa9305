/**
 * Which runs share their first stages. Each shared part is trained once, as a run of its own: a
 * trunk. Others start from its last checkpoint.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { type ConfigKey, configKeys, fields, type RunConfig } from "../config/config.ts";
import { isIndexed, stageSpans } from "../config/stages.ts";
import type { Stage } from "../config/stage_fields.ts";
import type { PlannedRun } from "./plan.ts";

/** The first stages of several runs. */
export interface Trunk {
  /** Of all that influences these stages; its folder under `trunks/`. */
  readonly name: string;
  /** The configuration of one of the runs. */
  readonly config: RunConfig;
  /** Steps at its end. */
  readonly until: number;
  /** Where it starts itself; null: with new weights. */
  readonly parent: Trunk | null;
}

/**
 * What a run's state at the end of each of its stages depends on: two runs with the same text for
 * a stage have bitwise the same weights at its end, but for an indexer that was not used yet, and
 * the same measurements of them.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveConfig } from "../config/config.ts";
 * import { stageIdentities } from "./trunks.ts";
 *
 * const [a, b] = [16, 32].map((indexTopk) => stageIdentities(resolveConfig({ indexTopk })));
 * assert.deepEqual(a.map((identity, i) => identity === b[i]), [true, false, false]);
 * ```
 */
export function stageIdentities(config: RunConfig): string[] {
  const stages: unknown[] = [];
  let hasIndexer = false, selects = false, hasCriterion = false;
  return config.stages.map((stage) => {
    hasIndexer ||= isIndexed(stage);
    hasCriterion ||= stage.until !== null;
    selects ||= stage.attention === "sparse" || stage.kl === "selected";
    stages.push(essence(stage));
    return JSON.stringify([configKeys.filter(matters).map((key) => [key, config[key]]), stages]);
  });

  function matters(key: ConfigKey): boolean {
    const { effect, reach } = fields[key];
    // Where a stage with a criterion ends depends on when it is looked at.
    if (key === "evalEvery" && hasCriterion) return true;
    if (effect === "run" || effect === "log") return false;
    // MoSA's heads take that many tokens in every stage.
    if (key === "indexTopk" && config.attention === "mosa") return true;
    if (reach === "stages") return false;
    return reach === undefined || hasIndexer && (selects || reach === "indexer");
  }
}

/** Whether the indexer has been trained at a step. */
export function hasTrainedIndexer(config: RunConfig, step: number): boolean {
  return stageSpans(config.stages).some(({ start, stage }) => start < step && isIndexed(stage));
}

/** A stage without the keys that have no effect in it. */
function essence(stage: Stage): Partial<Stage> {
  const { trains, schedule } = stage;
  const rest: Partial<Stage> = { ...stage };
  // A warm-up trains the same with any k, but what its indexer captures is measured with its own.
  if (!isIndexed(stage)) delete rest.indexTopk;
  if (trains === "backbone") delete rest.indexerLr;
  if (trains === "indexer") delete rest.lr;
  if (schedule !== "wsd") delete rest.decaySteps;
  if (schedule === "constant") delete rest.minLr;
  return rest;
}

/**
 * The trunk that each run starts from, null where it shares nothing. Trunks are as long as can be,
 * and one ends at each stage that a later stage goes back to (`from`).
 */
export function assignTrunks(runs: readonly PlannedRun[]): (Trunk | null)[] {
  const identities = runs.map(({ config }) => stageIdentities(config));
  const trunks: (Trunk | null)[] = runs.map(() => null);
  branch(runs.map((_, i) => i), 0, null);
  return trunks;

  /** Assigns `members`, whose stages before `depth` are the same. */
  function branch(members: readonly number[], depth: number, parent: Trunk | null): void {
    for (const i of members) trunks[i] = parent;
    for (const group of sharing(members, depth)) {
      const isBranched = sharing(group, depth + 1)[0]?.length !== group.length;
      const { name } = runs[group[0]].config.stages[depth];
      const isStart = group.some((i) => runs[i].config.stages.some(({ from }) => from === name));
      branch(group, depth + 1, isBranched || isStart ? trunkAt(group[0], depth, parent) : parent);
    }
  }

  /** Members whose stage at `depth` is the same, where there are several. */
  function sharing(members: readonly number[], depth: number): number[][] {
    const groups = new Map<string, number[]>();
    for (const i of members) {
      const { stages } = runs[i].config;
      // The last stage is followed by measurements, which need the model at its end.
      if (depth >= stages.length) continue;
      if (depth === stages.length - 1 && isIndexed(stages[depth])) continue;
      const group = groups.get(identities[i][depth]) ?? [];
      groups.set(identities[i][depth], [...group, i]);
    }
    return [...groups.values()].filter((group) => group.length > 1);
  }

  function trunkAt(run: number, depth: number, parent: Trunk | null): Trunk {
    const { config } = runs[run];
    const hash = createHash("sha256").update(identities[run][depth]).digest("hex");
    const name = `${config.stages[depth].name}_${hash.slice(0, 10)}`;
    return {
      name,
      config: { ...config, name },
      until: stageSpans(config.stages)[depth].end,
      parent,
    };
  }
}
