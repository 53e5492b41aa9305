/**
 * The configuration of a run: one flat object. Parsing, checking and the help text follow from the
 * table of its keys in `run_fields.ts`.
 *
 * @module
 */
import { checkTeaching, checkTogether, isTask } from "./checks.ts";
import {
  type ConfigInput,
  type ConfigKey,
  configKeys,
  fields,
  type RunConfig,
} from "./run_fields.ts";
import { UserError } from "../errors.ts";
import { checkValue, describeField, type Field, groups, parseValue } from "./fields.ts";
import { presets } from "./presets.ts";
import { resolveStages, stageField } from "./stages.ts";
import { stageFields, type StageInput } from "./stage_fields.ts";
import { suggest } from "../text/suggest.ts";

export * from "./run_fields.ts";

/**
 * Makes the complete configuration: defaults, then the preset, then `base` (an experiment's
 * deltas, or the configuration of an earlier run), then what was typed, a preset first.
 *
 * @param overrides `key=value` each; numbers may be written `1e-3` or `10_000`, no value is `none`
 * @throws {UserError} on an unknown key, a wrong type, or values that do not fit each other
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveConfig } from "./config.ts";
 *
 * const config = resolveConfig({ preset: "tiny", steps: 500 }, ["lr=1e-3", "qLoraRank=none"]);
 * assert.equal(config.lr, 1e-3);
 * assert.equal(config.qLoraRank, null);
 * assert.equal(config.hiddenSize, 128);
 * ```
 */
export function resolveConfig(
  base: ConfigInput,
  overrides: readonly string[] = [],
): RunConfig {
  const { stages: typedStages = [], ...typed } = parseOverrides(overrides);
  const { stages: givenStages = null, ...given0 } = base;
  base = Object.fromEntries(Object.entries(given0).filter(([, value]) => value !== undefined));
  for (const [key, value] of Object.entries(base)) checkValue(key, fieldOf(key), value);
  const preset = typed.preset ?? base.preset ?? fields.preset.default;
  const source: ConfigInput = { ...presets[preset], ...base };
  // A preset that was typed is a later wish than the experiment's deltas.
  if (typed.preset) Object.assign(source, presets[typed.preset]);
  const given: ConfigInput = { ...source, ...typed };
  if (typed.vocabSize === undefined && !sameVocabulary(derive(source), derive(given))) {
    delete given.vocabSize;
  }
  const config = derive(given);
  checkTogether(config);
  // Those that follow from others, too.
  for (const key of configKeys) checkValue(key, fields[key], config[key]);
  const stages = typed.recipe ? null : givenStages;
  // The steps of a saved run are in its stages: typed ones are meant for the first.
  const first = stages && typed.steps !== undefined
    ? [{ name: stages[0].name, steps: typed.steps }]
    : [];
  config.stages = resolveStages(config, stages, [...first, ...typedStages]);
  checkTeaching(config);
  return config;
}

/**
 * Reads `key=value` words, without filling in anything else.
 *
 * @throws {UserError} on an unknown key or a wrong type
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { parseOverrides } from "./config.ts";
 *
 * assert.deepEqual(parseOverrides(["steps=10_000", "clip=none"]), { steps: 10_000, clip: null });
 * ```
 */
export function parseOverrides(overrides: readonly string[]): ConfigInput {
  const typed: Record<string, unknown> = {};
  const stages: StageInput[] = [];
  for (const word of overrides) {
    const at = word.indexOf("=");
    if (at < 1) throw new UserError(`Cannot read "${word}": write key=value, such as steps=500`);
    const key = word.slice(0, at);
    if (key.startsWith("-")) {
      throw new UserError(
        `Cannot read "${word}": write ${word.replace(/^-+/, "")}, without dashes`,
      );
    }
    const dot = key.indexOf(".");
    if (dot > 0) {
      const [name, stageKey] = [key.slice(0, dot), key.slice(dot + 1)];
      const text = word.slice(at + 1);
      // A key that no stage has is refused with the stages at hand: its stage may be unknown too.
      const value = Object.hasOwn(stageFields, stageKey)
        ? parseValue(key, stageField(name, stageKey), text)
        : text;
      stages.push({ name, [stageKey]: value });
    } else {
      typed[key] = parseValue(key, fieldOf(key), word.slice(at + 1));
    }
  }
  return (stages.length ? { ...typed, stages } : typed) as ConfigInput;
}

/** The keys with meaning, allowed values and defaults, by group: the body of `--help`. */
export function describeFields(): string {
  const lines = groups.map((group) => {
    const table: Record<string, Field<unknown>> = group === "stage" ? stageFields : fields;
    const own = Object.entries(table).filter(([, field]) => field.group === group);
    const title = group === "stage"
      ? "stage (one of the recipe's, e.g. warmup.steps=200):"
      : `${group}:`;
    return [title, ...own.map(([key, field]) => describeField(key, field))].join("\n");
  });
  return [...lines, "* may be changed with resume=…, (*) when a run has failed"].join("\n");
}

/** Whether the vocabulary size of one configuration holds for another. */
function sameVocabulary(a: RunConfig, b: RunConfig): boolean {
  if (a.tokenizer !== b.tokenizer || a.taskVocab !== b.taskVocab) return false;
  return a.data === b.data || (b.tokenizer !== "char" && !isTask(a.data) && !isTask(b.data));
}

function derive(given: ConfigInput): RunConfig {
  const defaults = Object.fromEntries(configKeys.map((key) => [key, fields[key].default]));
  const config = { ...defaults, ...given, stages: [] } as unknown as RunConfig;
  const { attention, numAttentionHeads: heads } = config;
  if (given.vocabSize === undefined) {
    const sizes = { byte: 256, char: 0, bpe: 1024 };
    config.vocabSize = isTask(config.data) ? config.taskVocab : sizes[config.tokenizer];
  }
  if (given.warmupSteps === undefined) {
    config.warmupSteps = Math.min(100, Math.floor(config.steps / 10));
  }
  if (given.decaySteps === undefined) config.decaySteps = Math.floor(config.steps / 5);
  if (given.numKeyValueHeads === undefined) {
    config.numKeyValueHeads = attention !== "gqa" ? heads : heads % 2 === 0 ? heads / 2 : 1;
  }
  if (given.headDim === undefined) {
    config.headDim = attention === "mla"
      ? config.qkNopeHeadDim + config.qkRopeHeadDim
      : config.hiddenSize / heads;
  }
  if (given.recipe === undefined) config.recipe = attention === "mla" ? "dsa" : "dense";
  if (given.indexInput === undefined && config.qLoraRank === null) config.indexInput = "hidden";
  if (given.ropeInterleave === undefined) config.ropeInterleave = attention === "mla";
  return config;
}

function fieldOf(key: string): Field<unknown> {
  if (Object.hasOwn(fields, key)) return fields[key as ConfigKey];
  const near = suggest(key, configKeys);
  throw new UserError(
    `Cannot set "${key}": ` +
      (near ? `did you mean ${near}?` : "there is no such key; --help lists all"),
  );
}
