/**
 * The outcome of an ablation: by variant, over its axes, and what these do together.
 *
 * @module
 */
import { describeMetric } from "../../metrics/table.ts";
import type { AdditiveFit, Estimate, SummaryRow } from "../../ablate/results.ts";
import {
  type AblationData,
  estimateText,
  type Facet,
  mainMetric,
  ownMetrics,
  valueText,
} from "./data.ts";
import { type Block, type Figure, percent, type Section, signed } from "../page/figure.ts";
import { decimals } from "../../text/units.ts";
import { heatMapFigure } from "../run/plots.ts";

/** Heat maps, lines and the interaction over the axes; no blocks without axes. */
export function gridSection(ablation: AblationData): Section {
  const { axes, grids, results } = ablation;
  const metric = mainMetric(ablation);
  const blocks: Block[] = [];
  if (axes.length >= 2) {
    for (const facet of grids) {
      blocks.push(
        ...grid(ablation, facet, { metric, id: "grid", of: (row) => row.metrics[metric] }),
      );
    }
    for (const facet of grids) blocks.push(...differences(ablation, facet, metric));
    blocks.push(
      ...results.fit.filter((fit) => fit.metric === metric)
        .map((fit) => interaction(ablation, fit)),
    );
  }
  for (const facet of grids) {
    ownMetrics(ablation).forEach((metric, i) => {
      if (axes.length) blocks.push(...lines(ablation, facet, { metric, i, isSwapped: false }));
      if (axes.length >= 2) blocks.push(...lines(ablation, facet, { metric, i, isSwapped: true }));
    });
  }
  return { id: "axes", title: "Over the axes", blocks };
}

/** The last two axes: rows and columns. */
function plane({ axes, results }: AblationData) {
  const [rowAxis, colAxis] = axes.slice(-2);
  return { rowAxis, colAxis, rows: results.axes[rowAxis], cols: results.axes[colAxis] };
}

function grid(
  ablation: AblationData,
  { id: suffix, label, rows: variants }: Facet,
  { metric, id, of, isSigned }: {
    metric: string;
    id: string;
    of: (row: SummaryRow) => Estimate | undefined;
    isSigned?: boolean;
  },
): Figure[] {
  const { rowAxis, colAxis, ...all } = plane(ablation);
  const cell = (r: unknown, c: unknown) => {
    const row = variants.find(({ axes }) => axes[rowAxis] === r && axes[colAxis] === c);
    return row && of(row);
  };
  // The baseline has no difference to itself.
  const rows = all.rows.filter((r) => !isSigned || all.cols.some((c) => cell(r, c)));
  const cols = all.cols.filter((c) => !isSigned || all.rows.some((r) => cell(r, c)));
  const cells = rows.map((r) => cols.map((c) => cell(r, c)));
  if (cells.flat().every((one) => one === undefined)) return [];
  const where = label ? ` (${label})` : "";
  const about = describeMetric(metric);
  return [heatMapFigure({
    id: id + suffix,
    title: isSigned ? `Difference of ${metric} to the baseline${where}` : `${metric}${where}`,
    caption: isSigned
      ? "Paired by seed, mean ± standard deviation; blue is less than the baseline, red more."
      : `${
        about && `${about[0].toUpperCase()}${about.slice(1)}. `
      }Mean ± standard deviation over ` +
        "seeds; stronger colour is a larger value, empty cells have no finished run.",
    height: 130 + 52 * rows.length,
  }, {
    columns: cols.map(valueText),
    rows: rows.map(valueText),
    values: cells.map((row) => row.map((one) => one?.mean ?? null)),
    texts: cells.map((row) =>
      row.map((one) => one ? twoLines(estimateText(one, { isSigned })) : "")
    ),
    name: metric,
    xTitle: colAxis,
    yTitle: rowAxis,
    isSigned,
  })];
}

function differences(ablation: AblationData, facet: Facet, metric: string): Figure[] {
  return facet.rows.some(({ difference }) => difference?.[metric])
    ? grid(ablation, facet, {
      ...{ metric, id: "difference", isSigned: true },
      of: (row) => row.difference?.[metric],
    })
    : [];
}

function interaction({ results }: AblationData, fit: AdditiveFit): Figure {
  const { rows, cols, metric, residuals, maxResidual, seedSd } = fit;
  return heatMapFigure({
    id: "interaction",
    title: `Interaction of ${rows} and ${cols}`,
    caption: `What is left of ${metric} after the best sum of a row and a column effect: ` +
      `${percent(fit.interaction)} of the variance, at most ${
        decimals(maxResidual)
      }, where seeds ` +
      `differ by ${decimals(seedSd)} (standard deviation); red is worse together than the two ` +
      "effects add up to, if lower is better.",
    height: 130 + 52 * residuals.length,
  }, {
    columns: results.axes[cols].map(valueText),
    rows: results.axes[rows].map(valueText),
    values: residuals,
    texts: residuals.map((row) => row.map((value) => signed(value))),
    name: "residual",
    xTitle: cols,
    yTitle: rows,
    isSigned: true,
  });
}

/** A metric over one axis, a line for each value of the other. */
function lines(
  ablation: AblationData,
  { id: suffix, label, rows: variants }: Facet,
  { metric, i, isSwapped }: { metric: string; i: number; isSwapped: boolean },
): Figure[] {
  const { axes, results } = ablation;
  const [a, b] = axes.slice(-2);
  const [across, along] = axes.length === 1 ? [null, a] : isSwapped ? [b, a] : [a, b];
  const values = across === null ? [undefined] : results.axes[across];
  const x = results.axes[along];
  const data = values.map((value, j) => {
    const points = x.map((at) =>
      variants.find(({ axes }) => axes[along] === at && (across === null || axes[across] === value))
        ?.metrics[metric]
    );
    const color = values.length === 1
      ? "@0"
      : typeof values.find((one) => one !== null) === "number"
      ? `@r${j / (values.length - 1)}`
      : `@${j}`;
    return {
      ...{ type: "scatter", mode: "lines+markers", name: valueText(value), connectgaps: false },
      x: x.map(valueText),
      y: points.map((point) => point?.mean ?? null),
      error_y: {
        ...{ type: "data", visible: points.some((point) => point && point.n > 1), thickness: 1 },
        ...{ array: points.map((point) => point?.sd ?? 0), color },
      },
      line: { color, width: 2 },
      marker: { color, size: 7 },
    };
  });
  if (data.every(({ y }) => y.every((value) => value === null))) return [];
  const where = label ? ` (${label})` : "";
  return [{
    kind: "figure",
    id: `line-${i}${isSwapped ? "-swapped" : ""}${suffix}`,
    title: `${metric} over ${along}${where}`,
    caption: (across === null ? "Mean over seeds" : `One line for each ${across}`) +
      "; bars are the standard deviation over seeds" +
      (across === null ? "." : ", parallel lines mean that the two do not interact."),
    half: true,
    data,
    layout: {
      showlegend: across !== null,
      legend: { title: { text: across ?? "" } },
      hovermode: "x unified",
      xaxis: { type: "category", title: { text: along } },
      yaxis: { title: { text: metric } },
    },
  }];
}

/** Mean and spread, one under the other. */
function twoLines(text: string): string {
  return text.replace(" ± ", "<br>± ");
}
