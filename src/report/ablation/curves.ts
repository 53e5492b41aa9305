/**
 * The runs of an ablation over their steps.
 *
 * @module
 */
import { layersOf } from "../../metrics/names.ts";
import { type AblationData, evaluationNames, type Facet, ownMetrics } from "./data.ts";
import { decimals } from "../../text/units.ts";
import type { Block, Figure, Section } from "../page/figure.ts";
import { heatMapFigure, overSteps, type PlotLine, SHARES } from "../run/plots.ts";
import { type ReportedRun, seriesOf } from "../run/run_data.ts";

/** Points of a line: there may be many lines. */
const MOST_POINTS = 200;
/** More variants than this have their names at the side, one under the other. */
const MOST_BELOW = 6;

const dashes = ["solid", "dash", "dot", "dashdot"] as const;

/** Losses, captured mass and KL of all runs. */
export function curveSection(ablation: AblationData): Section {
  const blocks: Block[] = [
    ...ablation.facets.flatMap((facet) => curves(ablation, facet)),
    ...byLayer(ablation, {
      metric: "captured_mass",
      id: "mass-layers",
      title: "Captured mass by layer",
      caption: "At the end, mean over seeds; a weak column is a layer that is hard to select for.",
    }),
    ...byLayer(ablation, {
      metric: "dense_kl",
      id: "kl-layers",
      title: "KL by layer",
      caption: "At the end, over all keys, in nats, mean over seeds.",
    }),
    ...byLayer(ablation, {
      metric: "effective_rank",
      prefix: "latent",
      id: "rank-layers",
      title: "Effective rank of the latents by layer",
      caption: "Participation ratio at the end, mean over seeds: how many directions are in use.",
    }),
  ];
  return { id: "curves", title: "Over the steps", blocks };
}

/** Each run of a facet as a line. */
function curves(ablation: AblationData, { id: suffix, label, variants }: Facet): Figure[] {
  const runs = ablation.runs.filter(({ result }) => variants.includes(result.variant));
  const spans = commonSpans(runs.map(({ data }) => data));
  const styles = stylesOf(ablation);
  const figure = (
    metric: string,
    { id, title, caption }: Pick<Figure, "id" | "title" | "caption">,
    options: { y: string; range?: readonly [number, number]; marks?: boolean },
  ) => {
    const lines = runs.map(({ result: { variant }, data }): PlotLine => ({
      ...seriesOf(data.rows, metric, MOST_POINTS),
      ...{ name: variant, group: variant, marks: options.marks, ...styles.get(variant)! },
    }));
    const labels = { id: id + suffix, title: title + (label ? ` (${label})` : ""), caption };
    return overSteps(labels, { lines, spans, ...options }).map(withManyNames);
  };
  return [
    ...figure("train/loss", {
      id: "loss",
      title: "Training loss of all runs",
      caption: "One line for each run, seeds of a variant alike; click a name to hide it.",
    }, { y: "nats a token" }),
    ...figure("val/loss", {
      id: "validation",
      title: "Validation loss of all runs",
      caption: "Nats a token; bands mark the stages where all runs have the same.",
    }, { y: "nats a token", marks: true }),
    ...figure("index/captured_mass", {
      id: "mass",
      title: "Captured attention mass",
      caption: "Share of dense attention's weight on the selected keys, mean over layers; fewer " +
        "keys can capture less.",
    }, { y: "share", range: SHARES, marks: true }),
    ...figure("index/dense_kl", {
      id: "kl",
      title: "KL divergence over all keys",
      caption:
        "From dense attention to the indexer's softmax on validation text, in nats; 0 is a " +
        "perfect copy.",
    }, { y: "nats", marks: true }),
  ];
}

/** A colour and a dash for each variant: by the two axes of the grid, where there is one. */
function stylesOf({ results, axes }: AblationData): Map<string, Pick<PlotLine, "color" | "dash">> {
  const variants = new Map(results.runs.map((run) => [run.variant, run.axes]));
  const own = axes.filter((axis) => axis !== "data");
  const [first, second] = own.length > 2 ? [] : own;
  const place = (axis: string, values: (typeof results.runs)[number]["axes"]) =>
    results.axes[axis].indexOf(values[axis]);
  return new Map([...variants].map(([variant, values], i) => {
    if (!first) return [variant, { color: `@${i}`, dash: dashes[Math.floor(i / 8) % 4] }];
    const count = results.axes[first].length;
    const color = `@r${place(first, values) / Math.max(count - 1, 1)}`;
    const dash = second ? dashes[place(second, values) % dashes.length] : "solid";
    return [variant, { color, dash }];
  }));
}

function withManyNames(figure: Figure): Figure {
  const names = figure.data.filter(({ showlegend }) => showlegend);
  if (names.length <= MOST_BELOW) return { ...figure, height: 380 };
  return {
    ...figure,
    height: Math.max(420, 80 + 19 * names.length),
    layout: {
      ...figure.layout,
      legend: { orientation: "v", x: 1.01, y: 1, font: { size: 10 } },
    },
  };
}

/** The stages, if all runs have the same of the same lengths. */
function commonSpans(runs: readonly ReportedRun[]): ReportedRun["spans"] {
  const text = ({ spans }: ReportedRun) =>
    spans.map(({ stage, end }) => `${stage.name} ${end}`).join();
  return new Set(runs.map(text)).size === 1 ? runs[0].spans : [];
}

function byLayer(
  { results }: AblationData,
  { metric, prefix = "index", ...labels }: Pick<Figure, "id" | "title" | "caption"> & {
    metric: string;
    prefix?: string;
  },
): Figure[] {
  const names = results.summary.flatMap(({ metrics }) => Object.keys(metrics));
  const layers = layersOf(names, prefix, metric);
  const rows = results.summary.filter(({ metrics }) =>
    layers.some((layer) => metrics[`${prefix}/${layer}/${metric}`])
  );
  if (!rows.length) return [];
  const cells = rows.map(({ metrics }) =>
    layers.map((layer) => metrics[`${prefix}/${layer}/${metric}`]?.mean ?? null)
  );
  return [heatMapFigure({ ...labels, height: 120 + 26 * rows.length }, {
    columns: layers.map(String),
    rows: rows.map(({ variant }) => variant),
    values: cells,
    texts: cells.map((row) => row.map((value) => value === null ? "" : value.toPrecision(3))),
    name: metric.replaceAll("_", " "),
    xTitle: "layer",
    yTitle: "",
  })];
}

/** Each run under other settings than it was trained with; no blocks without such evaluations. */
export function evaluationSection(ablation: AblationData): Section {
  const { results } = ablation;
  const names = evaluationNames(ablation);
  const blocks = ownMetrics(ablation).flatMap((metric, i): Block[] => {
    const rows = results.summary.filter(({ metrics }) =>
      names.some((name) => metrics[`${name}/${metric}`])
    );
    if (!rows.length) return [];
    const cells = rows.map(({ metrics }) => names.map((name) => metrics[`${name}/${metric}`]));
    return [heatMapFigure({
      id: `evaluations-${i}`,
      title: `${metric} under other settings`,
      caption:
        "Rows are trained variants, columns what they were evaluated with; mean ± standard " +
        "deviation over seeds.",
      height: 130 + 44 * rows.length,
    }, {
      columns: names,
      rows: rows.map(({ variant }) => variant),
      values: cells.map((row) => row.map((one) => one?.mean ?? null)),
      texts: cells.map((row) => row.map((one) => one ? cellText(one) : "")),
      name: metric,
      xTitle: "evaluated with",
      yTitle: "",
    })];
  });
  return { id: "evaluations", title: "Evaluated otherwise than trained", blocks };
}

function cellText({ mean, sd, n }: { mean: number; sd: number; n: number }): string {
  return decimals(mean) + (n > 1 ? `<br>± ${decimals(sd)}` : "");
}
