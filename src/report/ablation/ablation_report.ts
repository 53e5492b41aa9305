/**
 * The report of an ablation.
 *
 * @module
 */
import { isLessBetter } from "../../metrics/table.ts";
import { join } from "node:path";
import { countText } from "../../ablate/table.ts";
import { countOf, isCounted } from "../../ablate/summary.ts";
import { describeIdentity } from "../../data/identity.ts";
import { decimals, withUnit } from "../../text/units.ts";
import { ablationCostSection, paretoSection } from "./costs.ts";
import { curveSection, evaluationSection } from "./curves.ts";
import {
  type AblationData,
  costOf,
  estimateText,
  type Facet,
  mainMetric,
  readAblation,
} from "./data.ts";
import { gridSection } from "./grid.ts";
import {
  type Block,
  bytes,
  type Figure,
  type Headline,
  percent,
  type Report,
  type Section,
} from "../page/figure.ts";
import { REPORT_FILE, writeReport } from "../page/write.ts";

/**
 * Writes `report.html` into an ablation's folder, of one that is not finished too.
 *
 * @param options `seconds`: see `loadPlotly`
 * @returns its path
 * @throws {UserError} if there is no `results.json`, or Plotly cannot be loaded
 */
export async function writeAblationReport(
  folder: string,
  { seconds }: { seconds?: number } = {},
): Promise<string> {
  const path = join(folder, REPORT_FILE);
  await writeReport(path, ablationReport(readAblation(folder)), seconds);
  return path;
}

/** The content of an ablation's report. */
export function ablationReport(ablation: AblationData): Report {
  const { results, name } = ablation;
  return {
    title: name,
    lead: results.question,
    facts: facts(ablation),
    headlines: headlines(ablation),
    sections: [
      resultSection(ablation),
      gridSection(ablation),
      evaluationSection(ablation),
      paretoSection(ablation),
      curveSection(ablation),
      ablationCostSection(ablation),
      unfinishedSection(ablation),
    ],
  };
}

function facts({ results }: AblationData): string[] {
  const { runs, size, typed = [], adapter, git, data = {}, finished } = results;
  const count = (status: string) => runs.filter((run) => run.status === status).length;
  const seeds = new Set(runs.map(({ seed }) => seed)).size;
  const parts = ["done", "failed", "missing"].filter(count)
    .map((status) => `${count(status)} ${status}`);
  return [
    `${finished ? "finished" : "not finished"}: ${parts.join(", ")} of ${runs.length} runs`,
    `size ${size}`,
    ...typed,
    `${seeds} ${seeds === 1 ? "seed" : "seeds"}`,
    ...Object.entries(data).map(([name, text]) => `data ${name}: ${describeIdentity(text)}`),
    adapter,
    ...(git ? [`commit ${git.slice(0, 7)}${git.endsWith("+") ? " with changes" : ""}`] : []),
  ];
}

function headlines(ablation: AblationData): Headline[] {
  const metric = mainMetric(ablation);
  const fit = ablation.results.fit.find((fit) => fit.metric === metric);
  const sign = isLessBetter(metric) ? 1 : -1;
  const best = ablation.facets.flatMap(({ label, rows }): Headline[] => {
    const known = rows.filter(({ metrics }) => metrics[metric]);
    if (!known.length) return [];
    const first = known.reduce((a, b) =>
      sign * b.metrics[metric].mean < sign * a.metrics[metric].mean ? b : a
    );
    const where = label ? `${label}: ` : "";
    return [{
      label: `${where}best ${metric}, ${first.variant}`,
      value: estimateText(first.metrics[metric]),
    }];
  });
  return [
    ...best,
    ...(fit
      ? [
        {
          label: `of the variance is interaction of ${fit.rows} and ${fit.cols}`,
          value: percent(fit.interaction),
        },
        { label: "largest interaction residual", value: decimals(fit.maxResidual) },
        { label: "standard deviation over seeds", value: decimals(fit.seedSd) },
      ]
      : []),
  ];
}

function resultSection(ablation: AblationData): Section {
  const { results, facets } = ablation;
  const blocks: Block[] = [
    ...(results.expect ? [{ kind: "text" as const, text: `Expected: ${results.expect}` }] : []),
    ...facets.filter(({ rows }) => rows.length).flatMap((
      facet,
    ) => [resultTable(ablation, facet), ...dots(ablation, facet)]),
  ];
  return { id: "results", title: "Results", blocks };
}

function resultTable(ablation: AblationData, { label, rows }: Facet): Block {
  const { results } = ablation;
  const metric = mainMetric(ablation);
  const hasDifference = rows.some(({ difference }) => difference?.[metric]);
  const cost = (variant: string, name: string, format: (value: number) => string) => {
    const value = costOf(ablation, variant, name);
    return value === null ? "–" : format(value);
  };
  return {
    kind: "table",
    caption: `${label ? `${label}. ` : ""}Mean ± standard deviation over n seeds` +
      (hasDifference
        ? `; difference: ${metric} to ${baselineText(results.baseline)}, paired by seed.`
        : "."),
    header: [
      "variant",
      "n",
      ...results.tabulate,
      ...(hasDifference ? ["difference"] : []),
      "cache stored",
      "cache read",
      "FLOP a token",
    ],
    rows: rows.map((row) => {
      const { variant, metrics, difference } = row;
      const n = countOf(row, metric);
      return [
        variant,
        countText(row, metric),
        ...results.tabulate.map((name) => estimateText(metrics[name], { n })),
        ...(hasDifference ? [estimateText(difference?.[metric], { isSigned: true, n })] : []),
        cost(variant, "cache/storedBytes", bytes),
        cost(variant, "cache/readBytes", bytes),
        cost(variant, "flopsPerToken/total", withUnit),
      ];
    }),
  };
}

function baselineText(baseline: AblationData["results"]["baseline"]): string {
  if (typeof baseline === "string") return baseline;
  return Object.entries(baseline ?? {}).map(([axis, value]) => `${axis} ${value ?? "none"}`)
    .join(", ");
}

/** Each seed as a dot, so that differences can be seen against the spread. */
function dots(ablation: AblationData, { id, label, rows }: Facet): Figure[] {
  const { results } = ablation;
  const metric = mainMetric(ablation);
  const known = rows.filter(({ metrics }) => metrics[metric]);
  if (!known.length) return [];
  const variants = known.map(({ variant }) => variant);
  const seeds = results.runs.filter((run) =>
    variants.includes(run.variant) && metric in run.metrics && isCounted(run)
  );
  const scatter = { type: "scatter", mode: "markers" };
  return [{
    kind: "figure",
    id: `variants${id}`,
    title: `${metric} by variant${label ? ` (${label})` : ""}`,
    caption: `Dots are seeds, lines means; ${
      isLessBetter(metric) ? "further left" : "further right"
    } is better, and variants whose dots overlap are not told apart.`,
    data: [
      {
        ...scatter,
        name: "seed",
        x: seeds.map(({ metrics }) => metrics[metric]),
        y: seeds.map(({ variant }) => variant),
        customdata: seeds.map(({ seed }) => seed),
        marker: { color: "@0", size: 8, opacity: 0.7 },
        hovertemplate: "%{y}, seed %{customdata}: %{x:.4f}<extra></extra>",
      },
      {
        ...scatter,
        name: "mean",
        x: known.map(({ metrics }) => metrics[metric].mean),
        y: variants,
        marker: { color: "@1", size: 16, symbol: "line-ns-open", line: { color: "@1", width: 3 } },
        hovertemplate: "%{y}: %{x:.4f}<extra></extra>",
      },
    ],
    layout: {
      margin: { l: 80, r: 16, t: 10, b: 100 },
      xaxis: { title: { text: metric } },
      yaxis: { type: "category", autorange: "reversed", categoryarray: variants },
      legend: { y: -62 / (28 * variants.length + 60) },
    },
    height: 170 + 28 * variants.length,
  }];
}

/** Runs that failed, have not been made, or never met a criterion. */
function unfinishedSection({ results }: AblationData): Section {
  const open = results.runs.filter((run) => !isCounted(run));
  const blocks: Block[] = open.length
    ? [{
      kind: "table",
      isText: true,
      caption:
        "Failed runs, and those with a stage that never met its criterion (unmet), take no " +
        "part in means and dots; missing ones are made when the ablation goes on.",
      header: ["run", "status", "step", "reason"],
      rows: open.map(({ variant, seed, status, failedStep, error }) => [
        `${variant}, seed ${seed}`,
        status === "done" ? "unmet" : status,
        failedStep === undefined ? "" : String(failedStep),
        error ?? "",
      ]),
    }]
    : [];
  return { id: "unfinished", title: "Runs without result", blocks };
}
