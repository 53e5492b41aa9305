/**
 * Kinds of plots that reports use again and again.
 *
 * @module
 */
import type { StageSpan } from "../../config/stages.ts";
import type { Figure, Trace } from "../page/figure.ts";
import type { Series } from "./run_data.ts";

/** What every figure says. */
export type Labels = Pick<Figure, "id" | "title" | "caption" | "half" | "height">;

/** A line of {@linkcode overSteps}. */
export interface PlotLine extends Series {
  readonly name: string;
  /** As in `page/palette.ts`. */
  readonly color: string;
  readonly dash?: "solid" | "dot" | "dash" | "dashdot";
  /** Lines of a group have one entry in the legend. */
  readonly group?: string;
  /** Whether single values are marked, as where few were measured. */
  readonly marks?: boolean;
}

/** The axis of shares, with room for points at its ends. */
export const SHARES = [-0.03, 1.03] as const;

/** Lines over the steps of a run, with its stages behind them. Lines without values are left out. */
export function overSteps(
  labels: Labels,
  { lines, spans = [], y, isLog = false, tickFormat = "~g", range }: {
    lines: readonly PlotLine[];
    spans?: readonly StageSpan[];
    y: string;
    isLog?: boolean;
    /** D3's, of a logarithmic axis. */
    tickFormat?: string;
    range?: readonly [number, number];
  },
): Figure[] {
  const shown = lines.filter(({ x }) => x.length);
  if (!shown.length) return [];
  const named = new Set<string>();
  const data = shown.map((line): Trace => {
    const { name, color, dash = "solid", group, marks } = line;
    const { x, y } = withGaps(line, spans);
    const isFirst = group === undefined || !named.has(group);
    if (group !== undefined) named.add(group);
    return {
      type: "scatter",
      mode: marks || x.length === 1 ? "lines+markers" : "lines",
      ...{ x, y, name },
      ...(group === undefined ? {} : { legendgroup: group, showlegend: isFirst }),
      line: { color, width: 2, dash },
      marker: { color, size: 6 },
    };
  });
  const [first, last] = [
    Math.min(...shown.map(({ x }) => x[0])),
    Math.max(...shown.map(({ x }) => x[x.length - 1])),
  ];
  // What is measured late only must not be pressed against the right edge.
  const from = first > 0.3 * last ? first : 0;
  const margin = Math.max(0.03 * (last - from), 1e-3);
  const layout = {
    hovermode: shown.length > 8 ? "closest" : "x unified",
    showlegend: shown.length > 1,
    xaxis: { title: { text: "step" }, range: [from - (from ? margin : 0), last + margin] },
    yaxis: {
      title: { text: y },
      exponentformat: "power",
      ...(isLog ? { type: "log", tickformat: tickFormat, dtick: "D2" } : {}),
      ...(range ? { range } : {}),
    },
    ...stageBands(spans, [from, last]),
  };
  return [{ kind: "figure", ...labels, data, layout }];
}

/** A series with a gap wherever it has no value in a whole stage. */
function withGaps({ x, y }: Series, spans: readonly StageSpan[]): { x: number[]; y: unknown[] } {
  const gaps = spans.filter(({ start, end }) =>
    x.some((step) => step <= start) && x.some((step) => step > end) &&
    !x.some((step) => step > start && step <= end)
  );
  const points = [
    ...x.map((step, i) => [step, y[i]] as const),
    ...gaps.map(({ end }) => [end, null] as const),
  ].sort(([a], [b]) => a - b);
  return { x: points.map(([step]) => step), y: points.map(([, value]) => value) };
}

/** Shapes and names that mark the stages between two steps, if there are several. */
function stageBands(
  spans: readonly StageSpan[],
  [from, to]: readonly [number, number],
): Record<string, unknown> {
  if (spans.length < 2) return {};
  const seen = spans.filter(({ start, end }) => end > from && start < to)
    .map(({ stage, index, start, end }) => ({
      ...{ name: stage.name, index, start: Math.max(start, from), end: Math.min(end, to) },
    }));
  return {
    margin: { l: 56, r: 16, t: 30, b: 44 },
    shapes: seen.filter(({ index }) => index % 2 === 1).map(({ start, end }) => ({
      ...{ type: "rect", layer: "below", xref: "x", yref: "paper" },
      ...{ x0: start, x1: end, y0: 0, y1: 1, fillcolor: "@band", line: { width: 0 } },
    })),
    annotations: seen.map(({ name, start, end }) => ({
      ...{ xref: "x", yref: "paper", x: (start + end) / 2, y: 1, yanchor: "bottom" },
      ...{ text: name, showarrow: false, font: { size: 11, color: "@soft" } },
    })),
  };
}

/** A heat map of {@linkcode heatMapFigure}. */
export interface Cells {
  /** Labels of columns and rows, the first row on top. */
  readonly columns: readonly string[];
  readonly rows: readonly string[];
  /** `[row][column]`; null where there is nothing. */
  readonly values: readonly (readonly (number | null)[])[];
  /** Printed in the cells; none: only colour. */
  readonly texts?: readonly (readonly string[])[];
  /** Name of the values. */
  readonly name: string;
  readonly xTitle: string;
  readonly yTitle: string;
  /** Whether zero is the middle of the colours. */
  readonly isSigned?: boolean;
  /** Least and largest value of the colours. */
  readonly range?: readonly [number, number];
}

/** Colours in cells. */
export function heatMapFigure(labels: Labels, cells: Cells): Figure {
  const { columns, rows, values, texts, name, xTitle, yTitle, isSigned, range } = cells;
  const known = values.flat().filter((value) => value !== null);
  const largest = Math.max(1e-12, ...known.map(Math.abs));
  const [zmin, zmax] = isSigned
    ? [-largest, largest]
    : range ?? [Math.min(...known), Math.max(...known)];
  const scale = isSigned ? "diverging" : "sequential";
  const data: Trace[] = [{
    type: "heatmap",
    ...{ x: columns, y: rows, z: values, zmin, zmax },
    ...(texts ? { text: texts } : {}),
    colorscale: `@${scale}`,
    colorbar: {
      ...{ thickness: 12, outlinewidth: 0, exponentformat: "power" },
      title: { text: name, side: "top" },
    },
    hoverongaps: false,
    hovertemplate: `${xTitle} %{x}<br>${yTitle} %{y}<br>${name} ` +
      (texts ? "%{text}" : "%{z:.4g}") + "<extra></extra>",
    ...{ xgap: columns.length > 60 ? 0 : 1, ygap: 1 },
  }];
  if (texts) {
    // Plotly's own texts in cells are grey on all but dark colours.
    const places = values.flatMap((row, i) =>
      row.flatMap((value, j) => value === null ? [] : [{ i, j, value }])
    );
    data.push({
      ...{ type: "scatter", mode: "text", hoverinfo: "skip", showlegend: false },
      ...{ x: places.map(({ j }) => columns[j]), y: places.map(({ i }) => rows[i]) },
      text: places.map(({ i, j }) => texts[i][j]),
      textfont: {
        size: 12,
        color: places.map(({ value }) => `@on-${scale}-${(value - zmin) / (zmax - zmin || 1)}`),
      },
    });
  }
  const axis = { type: "category", showgrid: false };
  const layout = {
    margin: { l: 70, r: 16, t: 18, b: 50 },
    font: { color: "@ink" },
    xaxis: { ...axis, title: { text: xTitle }, nticks: 20 },
    yaxis: { ...axis, title: { text: yTitle }, autorange: "reversed" },
  };
  const height = Math.max(200, Math.min(560, 110 + 38 * rows.length));
  return { kind: "figure", height, ...labels, data, layout };
}

/** Horizontal bars, the first on top, with their values beside them. */
export function bars(
  labels: Labels,
  { names, values, texts, x }: {
    names: readonly string[];
    values: readonly number[];
    texts: readonly string[];
    x: string;
  },
): Figure {
  const [least, largest] = [Math.min(0, ...values), Math.max(0, ...values)];
  // For the texts, which stand beyond the bars.
  const room = 0.35 * Math.max(largest - least, 1e-9);
  const data = [{
    type: "bar",
    orientation: "h",
    ...{ x: values, y: names, text: texts },
    textposition: "outside",
    cliponaxis: false,
    marker: { color: "@0" },
    hovertemplate: "%{y}: %{text}<extra></extra>",
  }];
  const layout = {
    margin: { l: 80, r: 70, t: 10, b: 44 },
    bargap: 0.45,
    xaxis: { title: { text: x }, range: [least - room * (least < 0 ? 1 : 0), largest + room] },
    yaxis: { type: "category", autorange: "reversed" },
  };
  return { kind: "figure", height: 90 + 32 * names.length, ...labels, data, layout };
}

/** Bars of several parts, one on the other. */
export function stackedBars(
  labels: Labels,
  { names, parts, x }: {
    names: readonly string[];
    parts: readonly { name: string; values: readonly number[] }[];
    x: string;
  },
): Figure {
  const data = parts.map(({ name, values }, i) => ({
    type: "bar",
    orientation: "h",
    ...{ x: values, y: names, name },
    marker: { color: `@${i}`, line: { color: "@surface", width: 1 } },
    hovertemplate: `%{y}<br>${name}: %{x:.4s}<extra></extra>`,
  }));
  const height = labels.height ?? 180 + 32 * names.length;
  const layout = {
    barmode: "stack",
    bargap: 0.4,
    // The legend stands below, as many pixels under the axis whatever the height.
    margin: { l: 80, r: 16, t: 10, b: 120 },
    xaxis: { title: { text: x } },
    yaxis: { type: "category", autorange: "reversed" },
    showlegend: true,
    legend: { y: -62 / (height - 130), traceorder: "normal" },
  };
  return { kind: "figure", ...labels, height, data, layout };
}
