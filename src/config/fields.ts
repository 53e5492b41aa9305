/**
 * Typed keys of a configuration: their defaults, meanings, reading and checking.
 *
 * @module
 */
import { UserError } from "../errors.ts";
import { suggest } from "../text/suggest.ts";

/** Headings of the help text, in its order. */
export const groups = [
  "run",
  "data",
  "training",
  "log",
  "model",
  "indexer",
  "task",
  "stage",
] as const;

/**
 * What a key acts on:
 *
 * - `model`: what is computed from the weights
 * - `training`: what they become
 * - `data`: the tokens that they are trained on
 * - `measurement`: what the numbers of evaluations are over
 * - `log`: what is written when
 * - `run`: how and where it is computed, without a change of any value
 */
export type Effect = "model" | "training" | "data" | "measurement" | "log" | "run";

/** The effect of the keys under a heading, unless a key says otherwise. */
const effects: Readonly<Record<typeof groups[number], Effect>> = {
  run: "run",
  data: "data",
  training: "training",
  log: "log",
  model: "model",
  indexer: "model",
  task: "data",
  stage: "training",
};

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
  /** What it acts on. Shared beginnings, resuming and the help text follow from it. */
  readonly effect: Effect;
  /**
   * Where it acts: by way of the stages alone, which hold what it comes to; where an indexer is
   * trained or used; where keys are selected. Default: everywhere.
   */
  readonly reach?: "stages" | "indexer" | "selection";
  /**
   * Whether a run that goes on may change it: always, after it has failed, or never. Default:
   * always, if it acts on what is measured, logged or how it runs.
   */
  readonly onResume: "free" | "afterFailure" | "fixed";
  /**
   * Which of Hugging Face's models have it in their config.json, under the same word in snake_case:
   * all, those with MLA, or those with its indexer. `latentk`: those that no class there computes,
   * with an indexer; `taught`: the same, for how it was taught.
   */
  readonly huggingFace?: "all" | "mla" | "indexer" | "latentk" | "taught";
}

/** A heading of the help text. */
export type Group = Field<unknown>["group"];
/** Limits of a value, where it comes from if nobody sets it, and what it acts on. */
export type Rest = Partial<
  Pick<
    Field<unknown>,
    "min" | "max" | "derived" | "effect" | "reach" | "onResume" | "huggingFace"
  >
>;

/** What all kinds of fields have in common. */
function common(group: Group, describe: string, rest: Rest) {
  const effect = rest.effect ?? effects[group];
  const isFree = effect === "measurement" || effect === "log" || effect === "run";
  const onResume = isFree ? "free" : "fixed";
  return { group, describe, nullable: false, effect, onResume, ...rest } as const;
}

/** The largest whole number. */
const MOST = 2 ** 31 - 1;

/** A whole number, from 1 up unless said otherwise. */
export function integer(
  group: Group,
  fallback: number,
  describe: string,
  rest: Rest = {},
): Field<number> {
  const limits = { min: 1, max: MOST };
  return { ...limits, ...common(group, describe, rest), default: fallback, kind: "integer" };
}

/** A number, from 0 up unless said otherwise. */
export function number(
  group: Group,
  fallback: number,
  describe: string,
  rest: Rest = {},
): Field<number> {
  return { min: 0, ...common(group, describe, rest), default: fallback, kind: "number" };
}

/** Any text. */
export function text(
  group: Group,
  fallback: string,
  describe: string,
  rest: Rest = {},
): Field<string> {
  return { ...common(group, describe, rest), default: fallback, kind: "text" };
}

/** True or false. */
export function flag(
  group: Group,
  fallback: boolean,
  describe: string,
  rest: Rest = {},
): Field<boolean> {
  return { ...common(group, describe, rest), default: fallback, kind: "boolean" };
}

/** Several numbers with commas between. */
export function numbers(group: Group, describe: string, rest: Rest): Field<readonly number[]> {
  return { min: 0, ...common(group, describe, rest), default: [], kind: "numbers" };
}

/** One of a few texts. */
export function choice<const V extends readonly string[]>(
  group: Group,
  values: V,
  fallback: V[number],
  describe: string,
  rest: Rest = {},
): Field<V[number]> {
  return { ...common(group, describe, rest), default: fallback, kind: "text", values };
}

/** The same, or `none`. */
export function orNone<T>(field: Field<T>, fallback: T | null): Field<T | null> {
  return { ...field, default: fallback, nullable: true };
}

/**
 * Reads what was typed for a key.
 *
 * @throws {UserError} naming key, value and what was expected
 */
export function parseValue(key: string, field: Field<unknown>, typed: string): unknown {
  if (field.nullable && (typed === "none" || typed === "null")) return null;
  if (field.kind === "text") return checkValue(key, field, typed);
  if (field.kind === "boolean") {
    return checkValue(key, field, typed === "true" ? true : typed === "false" ? false : typed);
  }
  if (field.kind === "numbers") return checkValue(key, field, typed.split(",").map(readNumber));
  return checkValue(key, field, readNumber(typed));
}

/** The number, zero without a sign as JSON has it, or the text itself where it is none. */
function readNumber(typed: string): unknown {
  const isNumber = /^[+-]?(\d+(_\d+)*\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(typed);
  return isNumber ? Number(typed.replaceAll("_", "")) + 0 : typed;
}

/**
 * Checks one value against its field and returns it.
 *
 * @throws {UserError} naming key, value and what was expected
 */
export function checkValue(key: string, field: Field<unknown>, value: unknown): unknown {
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
    `Cannot set ${key}=${show(value)}: ` +
      `expected ${expectation(field, value)}${near ? ` (did you mean ${near}?)` : ""}`,
  );
}

function expectation(field: Field<unknown>, value: unknown): string {
  const none = field.nullable ? ", or none" : "";
  if (field.values) return field.values.join(" | ");
  if (field.kind === "boolean") return "true or false";
  if (field.kind === "text") return `a text${none}`;
  const { min, max } = field;
  const least = min === Number.MIN_VALUE ? " above 0" : min === undefined ? "" : ` from ${min}`;
  // That whole numbers have 32 bits is told to those who want more.
  const isTold = max !== undefined && (max !== MOST || typeof value === "number" && value > max);
  const most = isTold ? ` to ${max}` : "";
  const word = { integer: "a whole number", number: "a number", numbers: "numbers" }[field.kind];
  return `${word}${least || most ? `${least}${most}` : ""}${none}`;
}

/** A value as people type it; what nobody types, as JSON. */
export function show(value: unknown): string {
  if (Array.isArray(value)) return value.map(show).join(",");
  if (typeof value === "object" && value !== null) return JSON.stringify(value);
  if (typeof value === "number" && value > 0 && value < 1e-3) return value.toExponential();
  return String(value ?? "none");
}

/** Defaults of a table of fields. */
export type ValuesOf<T> = {
  -readonly [K in keyof T]: T[K] extends Field<infer V> ? V : never;
};

/** The lines of the help text for one field. */
export function describeField(key: string, field: Field<unknown>): string {
  const values = field.values ? `${field.values.join(" | ")}: ` : "";
  const mark = { free: "*", afterFailure: "(*)", fixed: "" }[field.onResume];
  return `  ${(key + mark).padEnd(18)} ${values}${field.describe} [${
    field.derived ?? show(field.default)
  }]`;
}
