/**
 * Small figures for notebooks: SVG of a few kilobytes, which Jupyter, VS Code and GitHub show
 * without any library.
 *
 * @module
 */
import { palettes } from "./palette.ts";

/** What a cell shows if it is its last value, or if it is given to `Deno.jupyter.display`. */
export interface NotebookOutput {
  /** Contents by media type; the symbol is `Symbol.for("Jupyter.display")`. */
  readonly [display: symbol]: () => Record<string, string>;
}

/** A line of {@linkcode lineChart}; points without a finite y are left out. */
export interface Line {
  /** For the legend. */
  readonly name: string;
  /** From left to right. */
  readonly points: readonly (readonly [x: number, y: number])[];
}

const { surface, ink, soft, grid, colors, sequential } = palettes.light;
const WIDTH = 680;
const MARGIN = { left: 64, right: 150, top: 38, bottom: 46 };
const CHART_HEIGHT = 320, CELL_HEIGHT = 38;

/**
 * Lines over a common axis.
 *
 * @param options.xMax end of the horizontal axis, for a chart that is still growing
 * @throws {RangeError} if there is no line to draw
 *
 * @example
 * ```ts
 * import { lineChart } from "./notebook_figure.ts";
 *
 * const lines = [{ name: "dense", points: [[0, 5.5], [100, 2.4]] }] as const;
 * lineChart({ title: "Loss", x: "step", y: "nats", lines });
 * ```
 */
export function lineChart(options: {
  title: string;
  x: string;
  y: string;
  lines: readonly Line[];
  xMax?: number;
}): NotebookOutput {
  const { title, x, y, xMax = -Infinity } = options;
  const lines = options.lines.map(({ name, points }) => ({
    name,
    points: points.filter(([, value]) => Number.isFinite(value)),
  }));
  const all = lines.flatMap(({ points }) => points);
  if (!all.length) throw new RangeError("Cannot draw a chart without points: give a line some");
  const xTicks = ticks([...all.map(([value]) => value), xMax].filter(Number.isFinite));
  const yTicks = ticks(all.map(([, value]) => value));
  const right = WIDTH - MARGIN.right, bottom = CHART_HEIGHT - MARGIN.bottom;
  const toX = scale(xTicks, MARGIN.left, right), toY = scale(yTicks, bottom, MARGIN.top);
  const parts = [
    ...xTicks.map((value) => label(toX(value), bottom + 18, format(value), "middle")),
    ...yTicks.flatMap((value) => [
      `<path d="M${MARGIN.left} ${px(toY(value))}H${right}" stroke="${grid}"/>`,
      label(MARGIN.left - 8, toY(value) + 4, format(value), "end"),
    ]),
    label((MARGIN.left + right) / 2, CHART_HEIGHT - 8, x, "middle"),
    sideways(MARGIN.top, bottom, y),
    ...lines.flatMap(({ name, points }, i) => {
      const color = colors[i % colors.length];
      const path = points.map(([a, b]) => `${px(toX(a))} ${px(toY(b))}`).join("L");
      const at = MARGIN.top + 12 + 20 * i;
      return [
        path && `<path d="M${path}" fill="none" stroke="${color}" stroke-width="2"/>`,
        `<path d="M${right + 14} ${at}h18" stroke="${color}" stroke-width="3"/>`,
        label(right + 38, at + 4, name, "start", ink),
      ];
    }),
  ];
  const text = lines.map(({ name, points }) => {
    const last = points.at(-1);
    return last ? `${name} ${format(last[1])} at ${format(last[0])}` : name;
  });
  return output(title, CHART_HEIGHT, parts, `${title}: ${text.join(", ")}`);
}

/**
 * A grid of numbers, coloured from the least to the largest. A cell that is NaN stays empty.
 *
 * @param options.values `[row][column]`
 * @param options.digits after the point
 * @throws {RangeError} if the values are not a row for each name, with a number for each column
 *
 * @example
 * ```ts
 * import { heatMap } from "./notebook_figure.ts";
 *
 * const axes = { rows: ["16", "32"], cols: ["4", "8"], y: "width", x: "keys" };
 * heatMap({ title: "Loss", ...axes, values: [[2.5, 2.4], [2.3, 2.2]], digits: 2 });
 * ```
 */
export function heatMap(options: {
  title: string;
  x: string;
  y: string;
  rows: readonly string[];
  cols: readonly string[];
  values: readonly (readonly number[])[];
  digits: number;
}): NotebookOutput {
  const { title, x, y, rows, cols, values, digits } = options;
  if (values.length !== rows.length || values.some(({ length }) => length !== cols.length)) {
    throw new RangeError(
      `Cannot draw ${rows.length} x ${cols.length} cells: the values have another shape`,
    );
  }
  const known = values.flat().filter(Number.isFinite);
  const least = Math.min(...known), range = Math.max(...known) - least || 1;
  const cell = (WIDTH - MARGIN.left - 60) / cols.length;
  const bottom = MARGIN.top + rows.length * CELL_HEIGHT;
  const cells = values.flatMap((row, i) =>
    row.map((value, j) => {
      if (!Number.isFinite(value)) return "";
      const share = (value - least) / range;
      const color = sequential[Math.round(share * (sequential.length - 1))];
      const left = MARGIN.left + 40 + j * cell, top = MARGIN.top + i * CELL_HEIGHT;
      return `<rect x="${px(left)}" y="${px(top)}" width="${px(cell - 2)}" ` +
        `height="${CELL_HEIGHT - 2}" fill="${color}"/>` +
        label(
          left + cell / 2,
          top + CELL_HEIGHT / 2 + 4,
          value.toFixed(digits),
          "middle",
          share > 0.45 ? surface : ink,
        );
    })
  );
  const parts = [
    ...cells,
    ...rows.map((name, i) =>
      label(MARGIN.left + 32, MARGIN.top + i * CELL_HEIGHT + CELL_HEIGHT / 2 + 4, name, "end")
    ),
    ...cols.map((name, j) =>
      label(MARGIN.left + 40 + (j + 0.5) * cell, bottom + 18, name, "middle")
    ),
    label((MARGIN.left + 40 + WIDTH) / 2, bottom + 40, x, "middle"),
    sideways(MARGIN.top, bottom, y),
  ];
  const text = rows.map((name, i) =>
    `${name}: ${values[i].map((value) => value.toFixed(digits)).join(" ")}`
  );
  return output(title, bottom + 52, parts, [title, ...text].join("\n"));
}

/** A table; the first column is to the left, the others to the right. */
export function notebookTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
): NotebookOutput {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const rule = header.map((_, i) => i === 0 ? "---" : "---:");
  const text = [header, rule, ...rows].map(line).join("\n");
  return {
    [Symbol.for("Jupyter.display")]: () => ({ "text/markdown": text, "text/plain": text }),
  };
}

function output(
  title: string,
  height: number,
  parts: readonly string[],
  text: string,
): NotebookOutput {
  const svg = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" ` +
    `height="${height}" font-family="system-ui, sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${height}" fill="${surface}"/>`,
    `<text x="16" y="22" font-size="14" font-weight="600" fill="${ink}">${escape(title)}</text>`,
    ...parts.filter(Boolean),
    "</svg>",
  ].join("\n");
  return {
    [Symbol.for("Jupyter.display")]: () => ({ "image/svg+xml": svg, "text/plain": text }),
  };
}

function label(
  x: number,
  y: number,
  text: string,
  anchor: "start" | "middle" | "end",
  color: string = soft,
): string {
  return `<text x="${px(x)}" y="${px(y)}" text-anchor="${anchor}" fill="${color}">` +
    `${escape(text)}</text>`;
}

/** The title of the vertical axis. */
function sideways(top: number, bottom: number, text: string): string {
  const middle = px((top + bottom) / 2);
  return `<text transform="translate(18 ${middle}) rotate(-90)" text-anchor="middle" ` +
    `fill="${soft}">${escape(text)}</text>`;
}

/** About five round numbers; the first and last enclose all values. */
function ticks(values: readonly number[]): number[] {
  const least = Math.min(...values), most = Math.max(...values);
  const rough = (most - least || Math.abs(most) || 1) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999)!;
  const first = Math.floor(least / step + 1e-9), last = Math.ceil(most / step - 1e-9);
  return Array.from(
    { length: Math.max(last, first + 1) - first + 1 },
    (_, i) => (first + i) * step,
  );
}

function scale(ends: readonly number[], from: number, to: number): (value: number) => number {
  const first = ends[0], last = ends[ends.length - 1];
  return (value) => from + (value - first) / (last - first) * (to - from);
}

function format(value: number): string {
  return String(Number(value.toPrecision(3)));
}

/** A tenth of a pixel is enough. */
function px(value: number): string {
  return String(Math.round(value * 10) / 10);
}

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
