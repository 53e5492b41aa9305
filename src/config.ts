/**
 * The configuration of a run: one flat object. {@linkcode fields} is the only place that knows a
 * key's type, default and meaning; parsing, checking and the help text follow from it.
 *
 * Model keys are Hugging Face's words in camelCase.
 *
 * @module
 */
import { checkTogether, isTask } from "./config_checks.ts";
import { UserError } from "./errors.ts";
import { presets } from "./presets.ts";
import { suggest } from "./suggest.ts";

/** Headings of the help text, in its order. */
export const groups = ["run", "data", "training", "log", "model", "indexer", "task"] as const;

/** One key of the configuration. */
export interface Field<T> {
  /** The value if nothing else sets one. */
  readonly default: T;
  /** One line, for the help text. */
  readonly describe: string;
  /** Heading in the help text. */
  readonly group: typeof groups[number];
  /** What is parsed; `numbers` is a list with commas. */
  readonly kind: "integer" | "number" | "text" | "boolean" | "numbers";
  /** Whether `none` is a value (null in the object). */
  readonly nullable: boolean;
  /** The only texts allowed. */
  readonly values?: readonly string[];
  /** Least number allowed. */
  readonly min?: number;
  /** Largest number allowed. */
  readonly max?: number;
  /** Says where the value comes from if neither typed nor given by experiment or preset. */
  readonly derived?: string;
}

type Group = Field<unknown>["group"];
type Rest = { min?: number; max?: number; derived?: string };

function integer(group: Group, fallback: number, describe: string, rest: Rest = {}): Field<number> {
  const field = { group, default: fallback, describe, nullable: false, min: 1, max: 2 ** 31 - 1 };
  return { ...field, kind: "integer", ...rest };
}
function number(group: Group, fallback: number, describe: string, rest: Rest = {}): Field<number> {
  return { group, default: fallback, describe, nullable: false, min: 0, ...rest, kind: "number" };
}
function text(group: Group, fallback: string, describe: string): Field<string> {
  return { group, default: fallback, describe, nullable: false, kind: "text" };
}
function flag(group: Group, fallback: boolean, describe: string, rest: Rest = {}): Field<boolean> {
  return { group, default: fallback, describe, nullable: false, ...rest, kind: "boolean" };
}
function numbers(group: Group, describe: string, rest: Rest): Field<readonly number[]> {
  return { group, default: [], describe, nullable: false, min: 0, ...rest, kind: "numbers" };
}
function choice<const V extends readonly string[]>(
  group: Group,
  values: V,
  fallback: V[number],
  describe: string,
): Field<V[number]> {
  return { group, default: fallback, describe, nullable: false, kind: "text", values };
}
function orNone<T>(field: Field<T>, fallback: T | null): Field<T | null> {
  return { ...field, default: fallback, nullable: true };
}

/** Every key, with its default: the `nano` preset, the quick start on two CPU cores. */
export const fields = {
  name: orNone(text("run", "", "folder under runs/; none: experiment and a number"), null),
  resume: orNone(text("run", "", "run folder to go on with, from its last checkpoint"), null),
  seed: integer("run", 0, "of weights, batches and samples", { min: 0, max: 2 ** 32 - 1 }),
  preset: choice("run", ["nano", "tiny", "small", "base", "long"], "nano", "sizes to start from"),
  device: choice("run", ["auto", "webgpu", "cpu"], "auto", "auto: WebGPU if there is an adapter"),
  profile: flag("run", false, "print a table of the GPU time of each kernel"),

  data: text(
    "data",
    "moby_dick",
    "moby_dick | sotu | copy | recall | needle | path or glob of text files",
  ),
  tokenizer: choice("data", ["byte", "char", "bpe"], "byte", "how text becomes tokens"),
  vocabSize: integer("data", 0, "tokens; bpe learns that many; 0: as many as char finds", {
    min: 0,
    derived: "of the tokenizer; 1024 for bpe",
  }),
  batchSize: integer("data", 8, "sequences of a micro-batch"),
  seqLen: integer("data", 128, "tokens of a sequence", { min: 2 }),

  steps: integer("training", 700, "updates of the weights"),
  lr: number("training", 4e-3, "peak learning rate", { min: Number.MIN_VALUE }),
  schedule: choice(
    "training",
    ["constant", "cosine", "wsd"],
    "cosine",
    "learning rate after the warm-up; wsd: stable, then linear decay",
  ),
  warmupSteps: integer("training", 0, "steps of linear warm-up", {
    min: 0,
    derived: "steps / 10, at most 100",
  }),
  decaySteps: integer("training", 0, "last steps, over which wsd decays", {
    min: 0,
    derived: "steps / 5",
  }),
  minLr: number("training", 0.1, "last learning rate as a fraction of lr", { max: 1 }),
  weightDecay: number("training", 0.1, "decoupled; norms are not decayed"),
  beta1: number("training", 0.9, "of AdamW's first moment", { max: 1 - 1e-7 }),
  beta2: number("training", 0.95, "of AdamW's second moment", { max: 1 - 1e-7 }),
  adamEps: number("training", 1e-8, "of AdamW", { min: Number.MIN_VALUE }),
  clip: orNone(number("training", 0, "largest global gradient norm; none: not clipped"), 1),
  accumulate: integer("training", 1, "micro-batches of a step"),

  logEvery: integer("log", 10, "steps between rows of metrics.jsonl"),
  evalEvery: integer("log", 100, "steps between evaluations; 0: only at the end", { min: 0 }),
  evalBatches: integer("log", 8, "batches of an evaluation"),
  saveEvery: integer("log", 100, "steps between checkpoints; 0: only at the end", { min: 0 }),
  keepCheckpoints: integer("log", 2, "checkpoints to keep, the newest"),
  sampleEvery: integer("log", 0, "steps between samples; 0: only at the end", { min: 0 }),
  sampleTokens: integer("log", 200, "tokens of a sample; 0: no samples", { min: 0 }),
  samplePrompt: text("log", "Call me ", "start of a sample"),
  temperature: number("log", 0.8, "of sampling; 0: always the likeliest token"),

  attention: choice("model", ["mha", "gqa", "mla"], "mla", "kind of attention"),
  hiddenSize: integer("model", 96, "width of the residual stream"),
  intermediateSize: integer("model", 256, "width of the SwiGLU layer"),
  numHiddenLayers: integer("model", 3, "blocks"),
  numAttentionHeads: integer("model", 4, "query heads"),
  numKeyValueHeads: integer("model", 0, "key and value heads", {
    derived: "numAttentionHeads; a half of them for gqa",
  }),
  headDim: integer("model", 0, "width of a query head of mha and gqa", {
    derived: "hiddenSize / numAttentionHeads",
  }),
  qLoraRank: orNone(integer("model", 0, "width of the query latent; none: not compressed"), 48),
  kvLoraRank: integer("model", 32, "width of the cached latent of mla"),
  qkNopeHeadDim: integer("model", 16, "part of an mla head that is not rotated"),
  qkRopeHeadDim: integer("model", 8, "part of an mla head that is rotated; even", { min: 2 }),
  vHeadDim: integer("model", 16, "width of an mla value head"),
  ropeTheta: number("model", 10_000, "base of the rotary frequencies", { min: 1 }),
  ropeInterleave: flag("model", true, "rotate neighbours; false: halves", {
    derived: "true for mla, else false",
  }),
  rmsNormEps: number("model", 1e-6, "of RMSNorm", { min: Number.MIN_VALUE }),
  tieWordEmbeddings: flag("model", false, "the head shares the embedding's weights"),
  initializerRange: number("model", 0.02, "standard deviation of the first weights", {
    min: Number.MIN_VALUE,
  }),

  indexNHeads: integer("indexer", 4, "heads of the lightning indexer"),
  indexHeadDim: integer("indexer", 16, "width of an indexer head"),
  indexTopk: integer("indexer", 32, "latents that a query attends to"),

  taskVocab: integer("task", 64, "symbols of copy, recall and needle", { min: 2 }),
  copyLength: orNone(integer("task", 0, "symbols of a string of copy; none: seqLen / 2"), null),
  numPairs: orNone(integer("task", 0, "key-value pairs of recall; none: as many as fit"), 8),
  numNeedles: integer("task", 1, "key-value pairs hidden in the filler of needle"),
  needleDepths: orNone(
    numbers("task", "where they hide, from 0 to 1, such as 0.1,0.9; none: anywhere", { max: 1 }),
    null,
  ),
};

/** The configuration of a run. See {@linkcode fields} for what each key means. */
export type RunConfig = {
  -readonly [K in keyof typeof fields]: typeof fields[K] extends Field<infer T> ? T : never;
};

/** A key of {@linkcode RunConfig}. */
export type ConfigKey = keyof RunConfig;

/** All keys, in the order of {@linkcode fields}. */
export const configKeys: readonly ConfigKey[] = Object.keys(fields) as ConfigKey[];

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
  base: Partial<RunConfig>,
  overrides: readonly string[] = [],
): RunConfig {
  const typed = parseOverrides(overrides);
  base = Object.fromEntries(Object.entries(base).filter(([, value]) => value !== undefined));
  for (const [key, value] of Object.entries(base)) check(key, value);
  const preset = typed.preset ?? base.preset ?? fields.preset.default;
  const source: Partial<RunConfig> = { ...presets[preset], ...base };
  // A preset that was typed is a later wish than the experiment's deltas.
  if (typed.preset) Object.assign(source, presets[typed.preset]);
  const given: Partial<RunConfig> = { ...source, ...typed };
  if (typed.vocabSize === undefined && !sameVocabulary(derive(source), derive(given))) {
    delete given.vocabSize;
  }
  const config = derive(given);
  checkTogether(config);
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
export function parseOverrides(overrides: readonly string[]): Partial<RunConfig> {
  const typed: Record<string, unknown> = {};
  for (const word of overrides) {
    const at = word.indexOf("=");
    if (at < 1) throw new UserError(`Cannot read "${word}": write key=value, such as steps=500`);
    const key = word.slice(0, at);
    if (key.startsWith("-")) {
      throw new UserError(
        `Cannot read "${word}": write ${word.replace(/^-+/, "")}, without dashes`,
      );
    }
    typed[key] = parseValue(key, word.slice(at + 1));
  }
  return typed as Partial<RunConfig>;
}

/** The keys with meaning, allowed values and defaults, by group: the body of `--help`. */
export function describeFields(): string {
  const lines: string[] = [];
  for (const group of groups) {
    lines.push(`${group}:`);
    for (const key of configKeys) {
      const field: Field<unknown> = fields[key];
      if (field.group !== group) continue;
      const values = field.values ? `${field.values.join(" | ")}: ` : "";
      const fallback = field.derived ?? show(field.default);
      lines.push(`  ${key.padEnd(18)} ${values}${field.describe} [${fallback}]`);
    }
  }
  return lines.join("\n");
}

function show(value: unknown): string {
  if (typeof value === "number" && value > 0 && value < 1e-3) return value.toExponential();
  return String(value ?? "none");
}

/** Whether the vocabulary size of one configuration holds for another. */
function sameVocabulary(a: RunConfig, b: RunConfig): boolean {
  if (a.tokenizer !== b.tokenizer || a.taskVocab !== b.taskVocab) return false;
  return a.data === b.data || (b.tokenizer !== "char" && !isTask(a.data) && !isTask(b.data));
}

function derive(given: Partial<RunConfig>): RunConfig {
  const defaults = Object.fromEntries(configKeys.map((key) => [key, fields[key].default]));
  const config = { ...defaults, ...given } as RunConfig;
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
  if (given.ropeInterleave === undefined) config.ropeInterleave = attention === "mla";
  return config;
}

function parseValue(key: string, typed: string): unknown {
  const field = fieldOf(key);
  if (field.nullable && (typed === "none" || typed === "null")) return null;
  if (field.kind === "text") return check(key, typed);
  if (field.kind === "boolean") {
    return check(key, typed === "true" ? true : typed === "false" ? false : typed);
  }
  if (field.kind === "numbers") return check(key, typed.split(",").map(readNumber));
  return check(key, readNumber(typed));
}

/** The number, or the text itself where it is none. */
function readNumber(typed: string): unknown {
  const isNumber = /^[+-]?(\d+(_\d+)*\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(typed);
  return isNumber ? Number(typed.replaceAll("_", "")) : typed;
}

/** Checks one value against its field and returns it. */
function check(key: string, value: unknown): unknown {
  const field = fieldOf(key);
  if (value === null && field.nullable) return value;
  const { kind, min = -Infinity, max = Infinity, values } = field;
  const isIn = (v: unknown) =>
    typeof v === "number" && Number.isFinite(v) && v >= min && v <= max &&
    (kind !== "integer" || Number.isSafeInteger(v));
  const ok = kind === "text"
    ? typeof value === "string"
    : kind === "boolean"
    ? typeof value === "boolean"
    : kind === "numbers"
    ? Array.isArray(value) && value.every(isIn)
    : isIn(value);
  if (ok && (!values || values.includes(String(value)))) return value;
  const near = ok && values ? suggest(String(value), values) : null;
  throw new UserError(
    `Cannot set ${key}=${Array.isArray(value) ? value : show(value)}: ` +
      `expected ${expectation(field)}${near ? ` (did you mean ${near}?)` : ""}`,
  );
}

function expectation(field: Field<unknown>): string {
  const none = field.nullable ? ", or none" : "";
  if (field.values) return field.values.join(" | ");
  if (field.kind === "boolean") return "true or false";
  if (field.kind === "text") return `a text${none}`;
  const { min, max } = field;
  const least = min === Number.MIN_VALUE ? " above 0" : min === undefined ? "" : ` from ${min}`;
  const most = max === undefined || max === 2 ** 31 - 1 ? "" : ` to ${max}`;
  const word = { integer: "a whole number", number: "a number", numbers: "numbers" }[field.kind];
  return `${word}${least || most ? `${least}${most}` : ""}${none}`;
}

function fieldOf(key: string): Field<unknown> {
  if (Object.hasOwn(fields, key)) return fields[key as ConfigKey];
  const dot = key.indexOf(".");
  if (dot > 0) {
    throw new UserError(
      `Cannot set ${key}: there is no stage "${key.slice(0, dot)}"; ` +
        `write ${key.slice(dot + 1)}= to set the key for the whole run`,
    );
  }
  const near = suggest(key, configKeys);
  throw new UserError(
    `Cannot set "${key}": ` +
      (near ? `did you mean ${near}?` : "there is no such key; --help lists all"),
  );
}
