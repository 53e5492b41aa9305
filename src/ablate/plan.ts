/**
 * From an experiment to its runs, all of them complete and checked before the first one starts.
 *
 * @module
 */
import { isDeepStrictEqual } from "node:util";
import { parseOverrides, type RunConfig } from "../config/config.ts";
import { UserError } from "../errors.ts";
import { type Delta, type Experiment, resolveDelta, type Value } from "../config/experiment.ts";
import { modelParameters } from "../model/parameters.ts";
import { suggest } from "../text/suggest.ts";

/** One run to be made. */
export interface PlannedRun {
  /** `<variant>_s<seed>`, its folder. */
  readonly name: string;
  /** Name of the variant: that of the experiment, its axis values, or both. */
  readonly variant: string;
  /** Value of each axis. */
  readonly axes: Readonly<Record<string, Value>>;
  /** Of weights and batches. */
  readonly seed: number;
  /** What differs from the experiment's own configuration. */
  readonly delta: Delta;
  /** Complete but for a `vocabSize` that only the data tells (0). */
  readonly config: RunConfig;
}

/** An experiment in one of its sizes. */
export interface AblationPlan {
  /** In that size. */
  readonly experiment: Experiment;
  /** Values of each axis, in the experiment's order. */
  readonly axes: Readonly<Record<string, readonly Value[]>>;
  /** Seed by seed, so that what is there early is a whole grid. */
  readonly runs: readonly PlannedRun[];
  /** `key=value` words that were typed for all runs. */
  readonly typed: readonly string[];
}

/** The size that an experiment itself describes. */
export const REAL_SIZE = "real";
/** More runs than anyone waits for; the folder of each is a file name, its row one of a table. */
const MOST_RUNS = 10_000;
/** The axis of the variants where an experiment has axes too. */
const VARIANT_AXIS = "variant";

/**
 * An experiment in another size.
 *
 * @throws {UserError} if it has no such size
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { sized } from "./plan.ts";
 *
 * const experiment = {
 *   question: "?",
 *   config: { preset: "tiny", lr: 1e-3 },
 *   seeds: [0, 1, 2],
 *   sizes: { smoke: { config: { preset: "nano" }, seeds: [0] } },
 * } as const;
 * const { config, seeds } = sized(experiment, "smoke");
 * assert.deepEqual([config, seeds], [{ preset: "nano", lr: 1e-3 }, [0]]);
 * ```
 */
export function sized(experiment: Experiment, size: string): Experiment {
  if (size === REAL_SIZE) return experiment;
  const { sizes = {} } = experiment;
  if (!Object.hasOwn(sizes, size)) {
    const names = [REAL_SIZE, ...Object.keys(sizes)];
    const near = suggest(size, names);
    throw new UserError(
      `Cannot use size=${size}: ` + (near ? `did you mean ${near}?` : `use ${names.join(", ")}`),
    );
  }
  const { config, ...rest } = sizes[size];
  return { ...experiment, ...rest, config: { ...experiment.config, ...config } };
}

/**
 * All runs of an experiment, in an order that gives whole grids early.
 *
 * @param typed `key=value` words for all runs; they win over the experiment, but not over its axes
 * @throws {UserError} naming variant and field of the first configuration that cannot be
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { planRuns } from "./plan.ts";
 *
 * const { runs } = planRuns({
 *   question: "?",
 *   config: {},
 *   axes: { kvLoraRank: [16, 32], selector: ["learned"] },
 *   seeds: [0, 1],
 * });
 * assert.deepEqual(runs.map(({ name }) => name), [
 *   "kvLoraRank16_selector-learned_s0",
 *   "kvLoraRank32_selector-learned_s0",
 *   "kvLoraRank16_selector-learned_s1",
 *   "kvLoraRank32_selector-learned_s1",
 * ]);
 * ```
 */
export function planRuns(experiment: Experiment, typed: readonly string[] = []): AblationPlan {
  requireFewRuns(experiment);
  const variants = listVariants(experiment);
  const { seeds = [0] } = experiment;
  if (!variants.length || !seeds.length) {
    throw new UserError("Cannot run an experiment without variants and seeds: name some");
  }
  const keys = new Set(variants.flatMap(({ delta }) => Object.keys(delta)));
  for (const key of [...keys, "seed", "name", "resume", "otherData"]) {
    if (!typed.some((word) => word.startsWith(`${key}=`))) continue;
    throw new UserError(
      `Cannot set ${key} for all runs: ` +
        (key === "seed" ? "use seeds=0,1,2" : `the ablation sets it for each; leave it out`),
    );
  }
  const runs = seeds.flatMap((seed) =>
    variants.map(({ variant, axes, delta }): PlannedRun => {
      const name = `${variant}_s${seed}`;
      try {
        const own = { ...experiment.config, ...delta, seed, name };
        const run = { name, variant, axes, seed, delta, config: resolveDelta(own, typed) };
        checkEvaluations(experiment, run);
        return run;
      } catch (error) {
        if (!(error instanceof UserError)) throw error;
        throw new UserError(`${error.message} (variant ${variant})`);
      }
    })
  );
  const seen = new Set<string>();
  for (const { name } of runs) {
    if (seen.has(name)) throw new UserError(`Cannot plan ${name} twice: rename a variant or seed`);
    seen.add(name);
  }
  if (new Set(runs.map(({ config }) => config.device)).size > 1) {
    throw new UserError("Cannot compare devices: all runs of an ablation use one; drop the axis");
  }
  checkBaseline(experiment, variants);
  return { experiment, axes: allAxes(experiment), runs, typed };
}

/**
 * What was typed in place of what the experiment says: with it, its question may be another.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { planRuns, replacements } from "./plan.ts";
 *
 * const plan = planRuns({ question: "?", config: { data: "recall" } }, ["data=copy", "lr=1e-3"]);
 * assert.deepEqual(replacements(plan), ["data=copy, not recall"]);
 * ```
 */
export function replacements({ experiment: { config }, typed }: AblationPlan): string[] {
  return typed.flatMap((word) => {
    const [key] = word.split("=", 1) as [keyof Delta & string];
    if (!Object.hasOwn(config, key)) return [];
    const own = String(config[key] ?? "none");
    const [wanted, usual] = [word, `${key}=${own}`].map((pair) => parseOverrides([pair]));
    return isDeepStrictEqual(wanted, usual) ? [] : [`${word}, not ${own}`];
  });
}

/** A variant's name at a point of a grid: `kvLoraRank16_selector-block`. */
function pointName(point: Readonly<Record<string, Value>>): string {
  return Object.entries(point).map(([key, value]) => {
    const text = String(value ?? "none");
    const word = key === VARIANT_AXIS
      ? text
      : typeof value === "number"
      ? key + text
      : `${key}-${text}`;
    return word.replaceAll(/[^\w.+-]+/g, "-").replace(/^[^\w]+/, "");
  }).join("_");
}

/** The runs that a row's differences are taken from: whether `other` is the baseline of `axes`. */
export function isBaselineOf(
  baseline: NonNullable<Experiment["baseline"]>,
  row: Pick<PlannedRun, "axes">,
  other: Pick<PlannedRun, "axes" | "variant">,
): boolean {
  if (baseline === other.variant) return true;
  const fixed = typeof baseline === "string" ? { [VARIANT_AXIS]: baseline } : baseline;
  const wanted = { ...row.axes, ...fixed };
  return Object.keys(fixed).every((key) => key in other.axes) &&
    Object.entries(wanted).every(([key, value]) => other.axes[key] === value);
}

/** Before any of them is made. */
function requireFewRuns({ axes = {}, variants = { base: {} }, seeds = [0] }: Experiment): void {
  const sizes = [
    ...Object.entries(axes).map(([key, values]) => [key, values.length] as const),
    ["variants", Object.keys(variants).length] as const,
    ["seeds", seeds.length] as const,
  ];
  const runs = sizes.reduce((product, [, size]) => product * size, 1);
  if (runs <= MOST_RUNS) return;
  const factors = sizes.filter(([, size]) => size > 1).map(([key, size]) => `${key} ${size}`);
  throw new UserError(
    `Cannot plan ${runs} runs (${factors.join(" x ")}): an ablation has at most ${MOST_RUNS}; ` +
      "name fewer values",
  );
}

type Variant = Pick<PlannedRun, "variant" | "axes" | "delta">;

function listVariants({ axes = {}, variants }: Experiment): Variant[] {
  const points = gridPoints(axes);
  if (!variants) {
    const isGrid = Object.keys(axes).length > 0;
    return points.map((point) => ({
      variant: isGrid ? pointName(point) : "base",
      axes: point,
      delta: point as Delta,
    }));
  }
  return Object.entries(variants).flatMap(([name, delta]) =>
    points.map((point) => {
      const isGrid = Object.keys(point).length > 0;
      const own = { [VARIANT_AXIS]: name, ...point };
      return {
        variant: pointName(own),
        axes: isGrid ? own : {},
        delta: { ...delta, ...point } as Delta,
      };
    })
  );
}

function allAxes({ axes = {}, variants }: Experiment): Record<string, readonly Value[]> {
  return variants && Object.keys(axes).length
    ? { [VARIANT_AXIS]: Object.keys(variants), ...axes }
    : { ...axes };
}

/** The first axis changes slowest. */
function gridPoints(axes: Readonly<Record<string, readonly Value[]>>): Record<string, Value>[] {
  let points: Record<string, Value>[] = [{}];
  for (const [key, values] of Object.entries(axes)) {
    points = points.flatMap((point) => values.map((value) => ({ ...point, [key]: value })));
  }
  return points;
}

function checkBaseline({ baseline }: Experiment, variants: readonly Variant[]): void {
  if (baseline === undefined) return;
  if (variants.some((row) => variants.some((other) => isBaselineOf(baseline, row, other)))) return;
  const names = variants.map(({ variant }) => variant);
  throw new UserError(
    `Cannot take ${
      typeof baseline === "string" ? baseline : JSON.stringify(baseline)
    } as baseline: the variants are ${names.join(", ")}`,
  );
}

/** Evaluations must be of the same weights. */
function checkEvaluations({ evaluate = {} }: Experiment, { config }: PlannedRun): void {
  const shapes = (c: RunConfig) =>
    JSON.stringify(modelParameters(c).map(({ name, shape }) => [name, shape]));
  for (const [name, keys] of Object.entries(evaluate)) {
    if (shapes(resolveDelta({ ...config, ...keys })) === shapes(config)) continue;
    throw new UserError(`Cannot evaluate "${name}": it changes the model's weights`);
  }
}
