/**
 * The results of an ablation as a table for people.
 *
 * @module
 */
import { textTable } from "../text/text_table.ts";
import { decimals } from "../text/units.ts";
import type { AblationResults, AdditiveFit, Estimate, RunResult, SummaryRow } from "./results.ts";
import { DEFAULT_METRICS } from "./collect.ts";
import { countOf } from "./summary.ts";

/** Costs of a table, where runs have them; `scale` makes the unit of the title. */
const COSTS: readonly { title: string; cost: string; scale: number }[] = [
  { title: "stored B", cost: "cache/storedBytes", scale: 1 },
  { title: "read kB", cost: "cache/readBytes", scale: 1e-3 },
  { title: "kFLOP/tok", cost: "flopsPerToken/total", scale: 1e-3 },
  { title: "ms/step", cost: "time/step_ms", scale: 1 },
];
/** Tabulated besides what the experiment names, where runs have it. */
const CAPTURED = "index/captured_mass";

/**
 * Variants with mean ± standard deviation over seeds, differences to the baseline, and costs: cache
 * bytes stored of a token, read for a token, operations a token. Below: the additive fit of
 * the main metric, and what failed or is missing.
 */
export function resultsTable(results: AblationResults): string {
  const { summary, runs, tabulate, fit } = results;
  const [main = DEFAULT_METRICS[0]] = tabulate;
  const all = [...tabulate, CAPTURED];
  const rest = all.filter((metric, i) =>
    metric !== main && all.indexOf(metric) === i && summary.some((row) => metric in row.metrics)
  );
  const hasDifference = summary.some(({ difference }) => difference);
  const costs = COSTS.filter(({ cost }) => runs.some((run) => cost in run.costs));
  const header = [
    ...["variant", "n", main],
    ...(hasDifference ? ["difference"] : []),
    ...rest,
    ...costs.map(({ title }) => title),
  ];
  const lines = summary.map((row) => [
    row.variant,
    countText(row, main),
    row.n ? formatEstimate(row.metrics[main]) : stateOf(row, runs),
    ...(hasDifference ? [formatEstimate(row.difference?.[main], "+", countOf(row, main))] : []),
    ...rest.map((metric) => formatEstimate(row.metrics[metric], "", countOf(row, main))),
    ...costs.map(({ cost, scale }) => formatCost(scale * meanCost(row, runs, cost))),
  ]);
  return [
    results.question,
    ...(results.expect ? [`expected: ${results.expect}`] : []),
    [
      `${results.experiment}, size ${results.size}`,
      ...results.typed ?? [],
      results.adapter,
      ...(results.git ? [`commit ${results.git}`] : []),
    ].join(", "),
    "",
    textTable([header, ...lines]),
    ...fit.filter(({ metric }) => metric === main).flatMap((one) => ["", ...fitLines(one)]),
    ...notes(runs),
  ].join("\n");
}

/**
 * `2.3451 ± 0.0021`; without spread for one seed, empty for none, and for what was not finite.
 *
 * @param usual the row's count of runs; another one is told
 */
export function formatEstimate(
  value: Estimate | undefined,
  sign: "+" | "" = "",
  usual?: number,
): string {
  // Files of earlier versions have null there.
  if (!value || !Number.isFinite(value.mean)) return "";
  const { mean, sd, n } = value;
  const plus = sign && mean >= 0 ? sign : "";
  const own = usual === undefined || n === usual ? "" : ` (n=${n})`;
  return `${plus}${decimals(mean)}${
    n > 1 && Number.isFinite(sd) ? ` ± ${decimals(sd)}` : ""
  }${own}`;
}

/** How many runs a mean is over, and how many never got as far as they should have. */
export function countText(row: SummaryRow, metric: string): string {
  return `${countOf(row, metric)}${row.unmet ? ` (${row.unmet} unmet)` : ""}`;
}

function stateOf({ variant, unmet }: SummaryRow, runs: readonly RunResult[]): string {
  if (unmet) return "criterion not met";
  const own = runs.filter((run) => run.variant === variant);
  const failed = own.find(({ status }) => status === "failed");
  if (!failed) return "missing";
  return failed.failedStep === undefined ? "failed" : `failed at step ${failed.failedStep}`;
}

function meanCost({ variant }: SummaryRow, runs: readonly RunResult[], cost: string): number {
  const values = runs.flatMap((run) => run.variant === variant ? run.costs[cost] ?? [] : []);
  return values.reduce((a, b) => a + b, 0) / values.length;
}

/** Three digits, or all before the point. */
function formatCost(value: number): string {
  if (Number.isNaN(value)) return "";
  return value >= 100 ? Math.round(value).toLocaleString("en-US") : value.toPrecision(3);
}

/** The fit and its residuals: a row for each value of the first axis. */
function fitLines({ rows, cols, metric, ...fit }: AdditiveFit): string[] {
  const colNames = Object.keys(fit.colEffects);
  const signed = (value: number) => (value < 0 ? "" : "+") + decimals(value);
  const table = [
    [`${rows} \\ ${cols}`, ...colNames, "effect"],
    ...Object.entries(fit.rowEffects).map(([name, effect], i) => [
      name,
      ...fit.residuals[i].map(signed),
      signed(effect),
    ]),
    ["effect", ...colNames.map((name) => signed(fit.colEffects[name])), ""],
  ];
  return [
    `${metric} = ${fit.mean.toFixed(4)} + ${rows} + ${cols} + residual; the residuals are ` +
    `${percent(fit.interaction)} of the variance (seeds alone would leave ` +
    `${percent(fit.interactionNoise)}), at most ${decimals(fit.maxResidual)}; seeds differ by ` +
    `${decimals(fit.seedSd)} (sd)`,
    textTable(table),
  ];
}

function percent(share: number): string {
  return `${(100 * share).toPrecision(2)} %`;
}

function notes(runs: readonly RunResult[]): string[] {
  const failed = runs.filter(({ status }) => status === "failed");
  const missing = runs.filter(({ status }) => status === "missing");
  const name = ({ variant, seed }: RunResult) => `${variant}_s${seed}`;
  const lines = failed.map((run) => `failed: ${name(run)}: ${run.error}`);
  if (missing.length) lines.push(`missing: ${missing.length} of ${runs.length} runs`);
  return lines.length ? ["", ...lines] : [];
}
