/**
 * Made-up command lines of `train` and `ablate`: refused with one line, or what they come to can be
 * typed key by key, and comes to the same.
 *
 * @module
 */
import assert from "node:assert/strict";
import { planRuns } from "../../src/ablate/plan.ts";
import { splitArguments } from "../../src/commands/command.ts";
import {
  configKeys,
  fields,
  parseOverrides,
  resolveConfig,
  type RunConfig,
} from "../../src/config/config.ts";
import {
  type Delta,
  type Experiment,
  experimentNames,
  loadExperiment,
  resolveDelta,
} from "../../src/config/experiment.ts";
import { stageFields } from "../../src/config/stage_fields.ts";
import { Rng } from "../../src/rng.ts";
import { certainly, type Findings, type Fuzzer, unclean } from "./fuzzer.ts";
import { mutateBytes, pick } from "./mutate.ts";
import { randomValue } from "./random_values.ts";

export const commandLinesFuzzer: Fuzzer = { name: "command_lines", run };

const NAMES = ["dense", "warmup", "sparse", "twin", "spares"];
const FLAGS = ["--json", "--help", "-h", "--", "-", "--steps=3", "=", "a=b=c", "=3", "steps"];

async function run({ seed, until }: Parameters<Fuzzer["run"]>[0]): Promise<Findings> {
  const rng = new Rng(seed, "command_lines");
  const experiments = await Promise.all(experimentNames().map(loadExperiment));
  const failures: Findings["failures"] = [];
  let cases = 0;
  for (; !until(); cases++) {
    const words = Array.from({ length: 1 + rng.below(4) }, () => randomWord(rng));
    const experiment = changed(rng, pick(rng, experiments));
    const error = await unclean(() => check(words, experiment));
    if (error) failures.push({ input: JSON.stringify([words, experiment]), error });
  }
  return { cases, failures };
}

/** `key=value` of a run or a stage, now and then damaged, or no such word at all. */
function randomWord(rng: Rng): string {
  if (rng.below(12) === 0) return pick(rng, FLAGS);
  const isStage = rng.below(4) === 0;
  const table = isStage ? stageFields : fields;
  const key = pick(rng, Object.keys(table));
  const field = table[key as keyof typeof table];
  const word = `${isStage ? `${pick(rng, NAMES)}.` : ""}${key}=${typed(randomValue(rng, field))}`;
  if (rng.below(6)) return word;
  return new TextDecoder().decode(mutateBytes(rng, new TextEncoder().encode(word)));
}

/** An experiment of the project, at times with another axis or variant. */
function changed(rng: Rng, experiment: Experiment): Experiment {
  const axisOf = () => {
    const key = pick(rng, configKeys);
    return [key, Array.from({ length: rng.below(4) }, () => randomValue(rng, fields[key]))];
  };
  switch (rng.below(4)) {
    case 0:
      return { ...experiment, axes: Object.fromEntries([axisOf(), axisOf()]) };
    case 1:
      return { ...experiment, variants: { one: {}, two: variant(rng) }, baseline: "one" };
    case 2:
      return { ...experiment, evaluate: { other: variant(rng) as Experiment["config"] } };
    default:
      return experiment;
  }
}

function variant(rng: Rng): Delta {
  const key = pick(rng, configKeys);
  return { [key]: randomValue(rng, fields[key]) } as Delta;
}

function typed(value: unknown): string {
  return value === null ? "none" : String(value);
}

async function check(args: string[], experiment: Experiment): Promise<void> {
  // The whole command line is to be refused or taken: one does not hide what the other does.
  const errors = [await unclean(() => checkTrain(args)), await unclean(() => plan())];
  assert.deepEqual(errors, [null, null]);

  function plan() {
    const { runs } = planRuns(experiment, splitArguments(args, ["--json"]).pairs);
    assert(runs.length > 0);
    for (const { config } of runs) {
      assert.deepEqual(certainly(() => resolveConfig(config)), config);
    }
  }
}

function checkTrain(args: readonly string[]): void {
  const { pairs } = splitArguments(args, ["--json"]);
  parseOverrides(pairs);
  const config = resolveDelta({}, pairs);
  assert.deepEqual(certainly(() => resolveDelta({}, wordsOf(config))), config);
}

/** A configuration as it is typed. */
function wordsOf(config: RunConfig): string[] {
  const own = configKeys
    // Nothing is typed for a list that is empty.
    .filter((key) => !Array.isArray(config[key]) || String(config[key]) !== "")
    .map((key) => `${key}=${typed(config[key])}`);
  const stages = config.stages.flatMap(({ name, ...stage }) =>
    Object.entries(stage).map(([key, value]) => `${name}.${key}=${typed(value)}`)
  );
  return [...own, ...stages];
}
