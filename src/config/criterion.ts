/**
 * Criteria that end a stage before its last step, such as `val/accuracy>=0.99`.
 *
 * @module
 */
import { UserError } from "../errors.ts";
import { suggest } from "../text/suggest.ts";

/** A metric and its bound. */
export interface Criterion {
  /** Of an evaluation: one of {@linkcode CRITERION_METRICS}. */
  readonly metric: string;
  /** Which side of the bound it has to be on. */
  readonly operator: ">=" | "<=" | ">" | "<";
  /** The number to compare with. */
  readonly bound: number;
}

/** What evaluations measure, and the least and largest that it can be. */
const RANGES: Readonly<Record<string, readonly [number, number]>> = {
  "val/loss": [0, Infinity],
  "val/bpb": [0, Infinity],
  "val/accuracy": [0, 1],
};

/** What evaluations measure. */
export const CRITERION_METRICS: readonly string[] = Object.keys(RANGES);

/**
 * Reads a criterion.
 *
 * @throws {UserError} with what was expected
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { parseCriterion } from "./criterion.ts";
 *
 * const { metric, bound } = parseCriterion("val/accuracy >= 0.99");
 * assert.deepEqual([metric, bound], ["val/accuracy", 0.99]);
 * ```
 */
export function parseCriterion(text: string): Criterion {
  const found = /^\s*([\w/]+)\s*(>=|<=|>|<)\s*(\S+)\s*$/.exec(text);
  const bound = Number(found?.[3] ?? NaN);
  if (!found || !Number.isFinite(bound)) {
    throw new UserError(
      `Cannot read the criterion "${text}": expected a metric, >=, <=, > or <, and a number, ` +
        "such as val/accuracy>=0.99",
    );
  }
  const [, metric, operator] = found;
  if (!CRITERION_METRICS.includes(metric)) {
    const near = suggest(metric, CRITERION_METRICS);
    throw new UserError(
      `Cannot use the criterion "${text}": evaluations measure ${CRITERION_METRICS.join(", ")}` +
        (near ? ` (did you mean ${near}?)` : ""),
    );
  }
  const criterion = { metric, operator: operator as Criterion["operator"], bound };
  const [least, most] = RANGES[metric];
  if (![least, most].some((value) => meets(criterion, { [metric]: value }))) {
    const range = most === Infinity ? `is never below ${least}` : `is from ${least} to ${most}`;
    throw new UserError(`Cannot use the criterion "${text}": nothing meets it, ${metric} ${range}`);
  }
  return criterion;
}

/** Whether the metrics of an evaluation meet a criterion. */
export function meets(
  { metric, operator, bound }: Criterion,
  values: Readonly<Record<string, number>>,
): boolean {
  const { [metric]: value } = values;
  if (value === undefined) return false;
  switch (operator) {
    case ">=":
      return value >= bound;
    case "<=":
      return value <= bound;
    case ">":
      return value > bound;
    case "<":
      return value < bound;
  }
}
