/**
 * From runs to variants: means over seeds, differences, fits.
 *
 * @module
 */
import type { Experiment, Value } from "../config/experiment.ts";
import { fitAdditive } from "./fit.ts";
import { isBaselineOf } from "./plan.ts";
import type { AdditiveFit, Estimate, RunResult, SummaryRow } from "./results.ts";

/**
 * Mean and sample standard deviation.
 *
 * @throws {RangeError} for no values
 */
export function estimate(values: readonly number[]): Estimate {
  const n = values.length;
  if (n === 0) throw new RangeError("Cannot estimate from no values");
  const mean = values.reduce((a, b) => a + b) / n;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, sd: n > 1 ? Math.sqrt(squares / (n - 1)) : 0, n };
}

/** Whether a run is done, and each of its stages with a criterion has met it. */
export function isCounted({ status, metrics }: Pick<RunResult, "status" | "metrics">): boolean {
  const isUnmet = ([name, value]: [string, unknown]) => name.endsWith("until/met") && value !== 1;
  return status === "done" && !Object.entries(metrics).some(isUnmet);
}

/**
 * A row for each variant, in the order of the runs. Runs with a stage that never met its criterion
 * count as such and not in means: what they are is not known yet.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { summarize } from "./summary.ts";
 *
 * const run = (variant: string, seed: number, loss: number) => ({
 *   ...{ variant, seed, axes: {}, folder: "", status: "done" as const, delta: {}, costs: {} },
 *   metrics: { "val/loss": loss },
 * });
 * const runs = [run("a", 0, 1), run("b", 0, 2), run("a", 1, 3), run("b", 1, 4)];
 * const [, b] = summarize(runs, "a");
 * assert.equal(b.metrics["val/loss"].mean, 3);
 * assert.deepEqual(b.difference!["val/loss"], { mean: 1, sd: 0, n: 2 });
 * ```
 */
export function summarize(
  runs: readonly RunResult[],
  baseline?: Experiment["baseline"],
): SummaryRow[] {
  const groups = Map.groupBy(runs, ({ variant }) => variant);
  return [...groups].map(([variant, all]): SummaryRow => {
    const done = all.filter(isCounted);
    const unmet = all.filter(({ status }) => status === "done").length - done.length;
    const [{ axes }] = all;
    const row = {
      ...{ variant, axes, n: done.length, metrics: estimates(done.map(valuesOf)) },
      ...unmet ? { unmet } : {},
    };
    const rivals = baseline === undefined
      ? []
      : runs.filter((run) => isCounted(run) && isBaselineOf(baseline, { axes }, run));
    const pairs = done.flatMap((run) => {
      const rival = rivals.find(({ seed }) => seed === run.seed);
      return rival && rival.variant !== variant ? [minus(valuesOf(run), valuesOf(rival))] : [];
    });
    return pairs.length ? { ...row, difference: estimates(pairs) } : row;
  });
}

/**
 * The fits of all metrics over a grid of two axes, of the seeds that are done in every cell; none
 * where there are no such seeds, or more or fewer axes with several values.
 */
export function fitGrid(
  runs: readonly RunResult[],
  { axes, metrics }: {
    axes: Readonly<Record<string, readonly Value[]>>;
    metrics: readonly string[];
  },
): AdditiveFit[] {
  const varied = Object.entries(axes).filter(([, list]) => list.length > 1);
  if (varied.length !== 2) return [];
  const [[rows, rowValues], [cols, colValues]] = varied;
  return metrics.flatMap((metric) => {
    const cells = rowValues.map((r) =>
      colValues.map((c) => {
        const own = runs.filter((run) =>
          isCounted(run) && run.axes[rows] === r && run.axes[cols] === c
        );
        const known = own.map((run) => [run.seed, valuesOf(run)[metric]] as const);
        return new Map(known.filter(([, value]) => value !== undefined));
      })
    );
    const seeds = [...cells[0][0].keys()].filter((seed) =>
      cells.flat().every((cell) => cell.has(seed))
    );
    if (!seeds.length) return [];
    const paired = cells.map((row) => row.map((cell) => seeds.map((seed) => cell.get(seed)!)));
    return [fitAdditive({ rows, cols, metric, rowValues, colValues, cells: paired })];
  });
}

/**
 * Metrics of a run and its evaluations, by the names of {@linkcode SummaryRow.metrics}. What was
 * not finite is null in the files of older runs, and not there.
 */
export function valuesOf({ metrics, evaluations = {} }: RunResult): Record<string, number> {
  const all = Object.entries(metrics);
  for (const [name, own] of Object.entries(evaluations)) {
    for (const [metric, value] of Object.entries(own)) all.push([`${name}/${metric}`, value]);
  }
  return Object.fromEntries(all.filter(([, value]) => Number.isFinite(value)));
}

/** Over how many runs a row's mean of a metric is. */
export function countOf({ metrics }: SummaryRow, metric: string): number {
  return metrics[metric]?.n ?? 0;
}

function minus(a: Record<string, number>, b: Record<string, number>): Record<string, number> {
  return Object.fromEntries(
    Object.keys(a).filter((key) => key in b).map((key) => [key, a[key] - b[key]]),
  );
}

function estimates(samples: readonly Record<string, number>[]): Record<string, Estimate> {
  const names = new Set(samples.flatMap((sample) => Object.keys(sample)));
  return Object.fromEntries(
    [...names].map((name) => [name, estimate(samples.flatMap((sample) => sample[name] ?? []))]),
  );
}
