/**
 * What variants cost, and what they give for it.
 *
 * @module
 */
import { isLessBetter } from "../../metrics/table.ts";
import { FLOP_PARTS } from "../../costs/costs.ts";
import { withUnit } from "../../text/units.ts";
import { type AblationData, costOf, type Facet, mainMetric, valueText } from "./data.ts";
import { claimsTable } from "../run/cost_section.ts";
import { type Block, bytes, type Figure, type Section, type Table } from "../page/figure.ts";
import { stackedBars } from "../run/plots.ts";

const frontCosts = [
  { cost: "cache/readBytes", name: "cache bytes read for a decoded token", id: "read" },
  { cost: "cache/storedBytes", name: "cache bytes stored a token", id: "stored" },
  { cost: "flopsPerToken/total", name: "forward FLOP a token", id: "flops" },
];

/** The main metric against each cost that differs between variants. */
export function paretoSection(ablation: AblationData): Section {
  const blocks = ablation.facets.flatMap((facet) =>
    frontCosts.flatMap((cost) => pareto(ablation, facet, cost))
  );
  return { id: "pareto", title: "What it gives for what it costs", blocks };
}

function pareto(
  ablation: AblationData,
  { id: suffix, label, rows }: Facet,
  { cost, name, id }: typeof frontCosts[number],
): Figure[] {
  const metric = mainMetric(ablation);
  // Points are named by the values of the axes: whole names would overlap.
  const axes = ablation.axes.filter((axis) => axis !== "data");
  const points = rows.flatMap(({ variant, axes: values, metrics }) => {
    const x = costOf(ablation, variant, cost);
    const y = metrics[metric];
    const short = axes.map((axis) => valueText(values[axis])).join(" · ") || variant;
    return x === null || !y ? [] : [{ variant, short, x, y: y.mean, sd: y.sd }];
  });
  if (new Set(points.map(({ x }) => x)).size < 2) return [];
  const sign = isLessBetter(metric) ? 1 : -1;
  const sorted = points.toSorted((a, b) => a.x - b.x || sign * (a.y - b.y));
  const front: typeof points = [];
  for (const point of sorted) {
    if (!front.length || sign * point.y < sign * front[front.length - 1].y) front.push(point);
  }
  const others = points.filter((point) => !front.includes(point));
  const trace = (of: typeof points, rest: Record<string, unknown>, color: string) => ({
    ...{ type: "scatter", x: of.map(({ x }) => x), y: of.map(({ y }) => y) },
    ...{ text: of.map(({ short }) => short), customdata: of.map(({ variant }) => variant) },
    error_y: {
      ...{ type: "data", array: of.map(({ sd }) => sd), visible: of.some(({ sd }) => sd > 0) },
      ...{ color, thickness: 1, width: 3 },
    },
    marker: { color, size: 9 },
    hovertemplate: "%{customdata}<br>%{x:.4s}, %{y:.4f}<extra></extra>",
    ...rest,
  });
  const where = label ? ` (${label})` : "";
  return [{
    kind: "figure",
    id: `pareto-${id}${suffix}`,
    title: `${metric} against ${name}${where}`,
    caption: "Points on the line are the front: nothing else is both cheaper and " +
      `${sign > 0 ? "lower" : "higher"}; bars are the standard deviation over seeds.` +
      (axes.length ? ` Names are ${axes.join(" · ")}.` : ""),
    data: [
      trace(others, { mode: "markers", name: "other variants" }, "@5"),
      trace(front, {
        mode: "lines+markers+text",
        name: "front",
        line: { color: "@0", width: 2, shape: "hv" },
        textposition: sign > 0 ? "bottom left" : "top left",
        textfont: { size: 10, color: "@soft" },
        cliponaxis: false,
      }, "@0"),
    ],
    layout: {
      hovermode: "closest",
      margin: { l: 56, r: 60, t: 24, b: 44 },
      // The labels stand to the left of their points, so the first one needs room.
      xaxis: { title: { text: name }, type: "log", range: logRange(points), ...ticks(points) },
      yaxis: { title: { text: metric } },
    },
    height: 420,
  }];
}

/** The values themselves, but for those too near to the one before. */
function ticks(points: readonly { x: number }[]) {
  const values = points.map(({ x }) => x).sort((a, b) => a - b);
  const least = (values[values.length - 1] / values[0]) ** 0.08;
  const tickvals: number[] = [];
  for (const value of values) {
    if (!tickvals.length || value >= least * tickvals[tickvals.length - 1]) tickvals.push(value);
  }
  return { tickvals, ticktext: tickvals.map(withUnit), tickangle: 0 };
}

function logRange(points: readonly { x: number }[]): [number, number] {
  const logs = points.map(({ x }) => Math.log10(x));
  const [least, largest] = [Math.min(...logs), Math.max(...logs)];
  return [least - 0.15 * (largest - least), largest + 0.05 * (largest - least)];
}

/** Operations, cache and time by variant. */
export function ablationCostSection(ablation: AblationData): Section {
  const { results, runs } = ablation;
  const variants = [...new Set(results.runs.map(({ variant }) => variant))];
  const cost = (variant: string, name: string) => costOf(ablation, variant, name);
  const known = variants.filter((variant) => cost(variant, "flopsPerToken/total") !== null);
  const sparse = runs.find(({ result, data }) =>
    result.status === "done" && data.config.attention === "mla" &&
    data.config.stages.some(({ attention }) => attention === "sparse")
  );
  const blocks: Block[] = known.length
    ? [
      stackedBars({
        id: "flops",
        title: "Operations of the forward pass",
        caption: "FLOP a token by part, computed from each configuration.",
      }, {
        names: known,
        parts: FLOP_PARTS.map((name) => ({
          name,
          values: known.map((variant) => cost(variant, `flopsPerToken/${name}`) ?? 0),
        })),
        x: "FLOP a token",
      }),
      ...times(ablation, known),
      costTable(ablation, known),
      ...(sparse ? [claimsTable(sparse.data)] : []),
    ]
    : [];
  return { id: "costs", title: "Costs", blocks };
}

/** GPU time by kernel group where it was measured, else the time of a step. */
function times(ablation: AblationData, variants: readonly string[]): Figure[] {
  const names = [...new Set(ablation.results.runs.flatMap(({ costs }) => Object.keys(costs)))];
  /** Stages of the costs `<family>/<stage>/<key>`. */
  const stages = (family: string) => {
    const paths = names.map((name) => name.split("/"));
    const own = paths.filter((path) => path.length === 3 && path[0] === family);
    return [...new Set(own.map(([, stage]) => stage))];
  };
  const profiled = stages("gpu");
  const value = (variant: string, name: string) => costOf(ablation, variant, name) ?? 0;
  if (profiled.length) {
    return profiled.map((stage) => {
      const prefix = `gpu/${stage}/`;
      const groups = names.filter((name) => name.startsWith(prefix) && name.endsWith("_ms"));
      return stackedBars({
        id: `time-${stage}`,
        title: `GPU time of a training step, stage ${stage}`,
        caption: "Milliseconds by group of kernels, measured with timestamps.",
      }, {
        names: variants,
        parts: groups.map((name) => ({
          name: name.slice(prefix.length, -"_ms".length),
          values: variants.map((variant) => value(variant, name)),
        })),
        x: "ms a step",
      });
    });
  }
  const timed = stages("time");
  if (!timed.length) return [];
  const figure = stackedBars({
    id: "time",
    title: "Time of a training step",
    caption: "Milliseconds a step of each stage, median over its steps, mean over seeds.",
    height: 180 + (16 + 12 * timed.length) * variants.length,
  }, {
    names: variants,
    parts: timed.map((stage) => ({
      name: stage,
      values: variants.map((variant) => value(variant, `time/${stage}/step_ms`)),
    })),
    x: "ms a step",
  });
  return [{ ...figure, layout: { ...figure.layout, barmode: "group" } }];
}

function costTable(ablation: AblationData, variants: readonly string[]): Table {
  const columns: [name: string, cost: string, format: (value: number) => string][] = [
    ["parameters", "parameters", withUnit],
    ["cache stored", "cache/storedBytes", bytes],
    ["cache read", "cache/readBytes", bytes],
    ["FLOP a token", "flopsPerToken/total", withUnit],
    ["core attention", "flopsPerToken/core", withUnit],
    ["indexer", "flopsPerToken/indexer", withUnit],
    ["teacher", "flopsPerToken/teacher", withUnit],
    ["training FLOP", "flopsPerToken/training", withUnit],
  ];
  return {
    kind: "table",
    caption: "A token each. Stored and read: cache in float32, all layers; selection reads less " +
      "and stores more, by the indexer's keys.",
    header: ["variant", ...columns.map(([name]) => name)],
    rows: variants.map((variant) => [
      variant,
      ...columns.map(([, cost, format]) => {
        const value = costOf(ablation, variant, cost);
        return value === null ? "–" : format(value);
      }),
    ]),
  };
}
