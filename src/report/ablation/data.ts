/**
 * What an ablation's folder holds, read for a report.
 *
 * @module
 */
import { basename, join, resolve } from "node:path";
import { readResults } from "../../ablate/folder.ts";
import type { AblationResults, Estimate, RunResult, SummaryRow } from "../../ablate/results.ts";
import { UserError } from "../../errors.ts";
import type { Value } from "../../config/experiment.ts";
import { isThere } from "../../files/files.ts";
import { decimals } from "../../text/units.ts";
import { readRun, type ReportedRun } from "../run/run_data.ts";

/** An ablation as its folder tells it. */
export interface AblationData {
  readonly folder: string;
  readonly name: string;
  readonly results: AblationResults;
  /** Runs that have begun, with what they logged. */
  readonly runs: readonly { readonly result: RunResult; readonly data: ReportedRun }[];
  /** Axes with several values; the heat map's two last, rows before columns. */
  readonly axes: readonly string[];
  /** Variants by data set where that is an axis: losses of others cannot be compared. */
  readonly facets: readonly Facet[];
  /** Variants by all axes but the heat map's. */
  readonly grids: readonly Facet[];
}

/** Variants that are comparable with each other. */
export interface Facet {
  /** Stands behind ids; empty if there is one facet only. */
  readonly id: string;
  /** What they have in common, for people; empty if there is one facet only. */
  readonly label: string;
  /** Variants with finished runs. */
  readonly rows: readonly SummaryRow[];
  /** Names of all variants. */
  readonly variants: readonly string[];
}

/**
 * Reads `results.json` and the logs of its runs.
 *
 * @throws {UserError} if a file is missing or damaged
 */
export function readAblation(folder: string): AblationData {
  const results = readResults(folder);
  if (!results) throw new UserError(`Cannot report on ${folder}: it has no results.json`);
  const runs = results.runs.flatMap((result) => {
    const run = join(folder, result.folder);
    return isThere(join(run, "config.json")) ? [{ result, data: readRun(run) }] : [];
  });
  const axes = plotAxes(results);
  return {
    folder,
    name: basename(resolve(folder)),
    results,
    runs,
    axes,
    facets: facetsOf(results.summary, axes.filter((axis) => axis === "data")),
    grids: facetsOf(results.summary, axes.slice(0, -2)),
  };
}

/** The metric that an ablation is about. */
export function mainMetric({ results }: AblationData): string {
  return results.tabulate[0] ?? "val/loss";
}

/** Names of the further evaluations of runs. */
export function evaluationNames({ results }: AblationData): string[] {
  const names = results.runs.flatMap(({ evaluations = {} }) => Object.keys(evaluations));
  return [...new Set(names)];
}

/** Metrics to tabulate, without those of further evaluations. */
export function ownMetrics(ablation: AblationData): string[] {
  const prefixes = evaluationNames(ablation).map((name) => `${name}/`);
  return ablation.results.tabulate.filter((metric) =>
    !prefixes.some((prefix) => metric.startsWith(prefix))
  );
}

/** A value of an axis, for people. */
export function valueText(value: Value | undefined): string {
  return value === null ? "none" : String(value);
}

function facetsOf(rows: readonly SummaryRow[], axes: readonly string[]): Facet[] {
  const text = ({ axes: values }: SummaryRow) =>
    axes.map((axis) => `${axis} ${valueText(values[axis])}`).join(", ");
  const groups = [...Map.groupBy(rows, text)];
  return groups.map(([label, rows]) => ({
    id: label && groups.length > 1 ? `-${label.replace(/[^\w]+/g, "-")}` : "",
    label: groups.length > 1 ? label : "",
    rows: rows.filter(({ n }) => n > 0),
    variants: rows.map(({ variant }) => variant),
  }));
}

/** The mean of a cost over a variant's finished runs; null where none has it. */
export function costOf({ results }: AblationData, variant: string, cost: string): number | null {
  const values = results.runs
    .filter((run) => run.variant === variant && run.status === "done")
    .flatMap(({ costs }) => costs[cost] ?? []);
  return values.length ? values.reduce((a, b) => a + b) / values.length : null;
}

/**
 * `1.234 ± 0.005`, without the spread for one seed.
 *
 * @param options.n the count of the other estimates; another one is told
 */
export function estimateText(
  estimate: Estimate | undefined,
  { isSigned = false, n: usual }: { isSigned?: boolean; n?: number } = {},
): string {
  if (!estimate || !Number.isFinite(estimate.mean)) return "–";
  const { mean, sd, n } = estimate;
  const size = Math.abs(mean);
  const digits = size >= 100 ? 1 : size >= 10 ? 2 : 4;
  const sign = mean < 0 ? "−" : isSigned ? "+" : "";
  const own = usual === undefined || n === usual ? "" : ` (n=${n})`;
  return `${sign}${decimals(size, digits)}${n > 1 ? ` ± ${decimals(sd, digits)}` : ""}${own}`;
}

/** Axes with several values: those of numbers last, they make the better grid. */
function plotAxes({ axes, fit }: AblationResults): string[] {
  const varied = Object.keys(axes).filter((axis) => axes[axis].length > 1);
  if (fit.length) return [fit[0].rows, fit[0].cols];
  const isNumeric = (axis: string) => axes[axis].some((value) => typeof value === "number");
  return [
    ...varied.filter((axis) => !isNumeric(axis)),
    ...varied.filter(isNumeric),
  ];
}
