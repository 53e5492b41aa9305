/**
 * Experiments: files in `experiments/` that name a question and the configuration to answer it.
 *
 * @module
 */
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { type ConfigInput, fields, resolveConfig, type RunConfig } from "./config.ts";
import { UserError } from "../errors.ts";
import { stageFields } from "./stage_fields.ts";
import { suggest } from "../text/suggest.ts";

/** A value of an axis; `none` is null. */
export type Value = number | string | boolean | null;

/** Configuration keys, those of stages also with a dot: `{ "warmup.steps": 200 }`. */
export type Delta = ConfigInput & { readonly [stageKey: `${string}.${string}`]: Value };

/** What a file in `experiments/` exports as `experiment`. */
export interface Experiment {
  /** The question it answers, in one sentence. */
  readonly question: string;
  /** What is expected, with the figure of the literature. */
  readonly expect?: string;
  /** What differs from the preset's defaults, each with its why. */
  readonly config: Delta;
  /** A grid: the values of some keys, such as `{ kvLoraRank: [16, 32], "sparse.indexTopk": [8] }`. */
  readonly axes?: Readonly<Record<string, readonly Value[]>>;
  /** Or variants by name. With both: each variant at each point of the grid. */
  readonly variants?: Readonly<Record<string, Delta>>;
  /** Default `[0]`. */
  readonly seeds?: readonly number[];
  /** Metrics to tabulate, the main one first. */
  readonly tabulate?: readonly string[];
  /**
   * What differences are taken from, paired by seed: a variant's name, or values of some axes, such
   * as `{ indexTopk: 1024 }`; then each run has its own, that agrees on the other axes.
   */
  readonly baseline?: string | Readonly<Record<string, Value>>;
  /**
   * Further evaluations of each finished run, by name: keys as of `deno task eval`, such as
   * `{ "k=16": { indexTopk: 16 } }`.
   */
  readonly evaluate?: Readonly<Record<string, ConfigInput>>;
  /**
   * Other sizes by name, such as `smoke`: `config` is merged into the experiment's own, anything
   * else replaces it.
   */
  readonly sizes?: Readonly<Record<string, Partial<Omit<Experiment, "question" | "sizes">>>>;
}

const folder = new URL("../../experiments/", import.meta.url);

/** Names of all experiments. */
export function experimentNames(): string[] {
  return [...Deno.readDirSync(folder)]
    .filter(({ name }) => name.endsWith(".ts"))
    .map(({ name }) => name.slice(0, -3))
    .sort();
}

/**
 * Loads `experiments/<name>.ts`, or any file whose name ends in `.ts`.
 *
 * @throws {UserError} if there is none of that name
 *
 * @example
 * ```ts
 * import { loadExperiment, resolveDelta } from "./experiment.ts";
 *
 * const { question, config } = await loadExperiment("quickstart");
 * console.log(question, resolveDelta(config, ["steps=10"]).steps);
 * ```
 */
export async function loadExperiment(name: string): Promise<Experiment> {
  if (name.endsWith(".ts")) return await loadFile(name);
  const names = experimentNames();
  if (!names.includes(name)) {
    const near = suggest(name, names);
    throw new UserError(
      `Cannot find experiment "${name}": ` +
        (isKey(name)
          ? `it is a key, write ${name}=…`
          : `${near ? `did you mean ${near}? ` : ""}There are ${names.join(", ")}`),
    );
  }
  return (await import(new URL(`${name}.ts`, folder).href)).experiment;
}

/** Whether a word is a key without its value, of the run or of a stage. */
function isKey(word: string): boolean {
  return Object.hasOwn(fields, word) || Object.hasOwn(stageFields, word.replace(/^\w+\./, ""));
}

async function loadFile(path: string): Promise<Experiment> {
  const file = resolve(path);
  if (!await Deno.stat(file).then(({ isFile }) => isFile, () => false)) {
    throw new UserError(`Cannot find experiment "${path}": there is no such file`);
  }
  const { experiment } = await import(pathToFileURL(file).href);
  if (typeof experiment?.config === "object") return experiment;
  throw new UserError(
    `Cannot load experiment "${path}": it must export \`experiment\` with question and config`,
  );
}

/**
 * Makes the complete configuration of an experiment's or a variant's keys; see `resolveConfig`.
 *
 * @throws {UserError} on an unknown key, a wrong type, or values that do not fit each other
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveDelta } from "./experiment.ts";
 *
 * const { stages } = resolveDelta({ recipe: "dsa", "warmup.steps": 20 }, ["sparse.steps=10"]);
 * assert.deepEqual(stages.map(({ steps }) => steps), [700, 20, 10]);
 * ```
 */
export function resolveDelta(delta: Delta, typed: readonly string[] = []): RunConfig {
  const isDotted = ([key]: [string, unknown]) => key.includes(".");
  const entries = Object.entries(delta);
  const words = entries.filter(isDotted).map(([key, value]) => `${key}=${value ?? "none"}`);
  const base: ConfigInput = Object.fromEntries(entries.filter((entry) => !isDotted(entry)));
  return resolveConfig(base, [...words, ...typed]);
}
