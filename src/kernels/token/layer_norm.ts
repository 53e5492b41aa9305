/**
 * LayerNorm: y = (x − mean(x)) / sqrt(var(x) + eps) · w + b.
 *
 * @module
 */
import { columnSum } from "./column_sum.ts";
import { Float, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { at, sumOfUnit, widthOf } from "../wgsl/layout_units.ts";
import { type Layout, layoutUniforms, read, unitType, type Width, write } from "../wgsl/operand.ts";
import { plus, type RowGroups, rowGroups } from "../wgsl/rows.ts";
import { type Sink, sinkMatrices, sinkParts } from "../wgsl/sink.ts";

/** WGSL that declares `mean` and `r` of the row; two passes, as a one-pass variance cancels. */
function moments(rows: RowGroups, width: Width): string {
  const type = unitType(width);
  return `
  var sum = ${type}(0.0);
  for (var col = sub; col < n; col += ${rows.lanes}u) { sum += ${at("x", "row", "col")}; }
  let mean = total(lane, ${sumOfUnit(width, "sum")}) / u.elements;
  var squares = ${type}(0.0);
  for (var col = sub; col < n; col += ${rows.lanes}u) {
    let v = ${at("x", "row", "col")} - mean;
    squares += v * v;
  }
  let r = inverseSqrt(total(lane, ${sumOfUnit(width, "squares")}) / u.elements + u.eps);`;
}

/** Shapes: x, y [rows, cols]; w, b [1, cols], b may be null. */
export function layerNormKernel(args: {
  x: Layout;
  w: Layout;
  b: Layout | null;
  y: Layout;
  eps: number;
  software: boolean;
}): Kernel {
  const { x, w, b, y, eps, software } = args;
  const width = widthOf(x, w, y, ...b ? [b] : []);
  const operands = {
    x: read(x, width),
    w: read(w, width),
    ...b ? { b: read(b, width) } : {},
    y: write(y, width),
  };
  const rows = rowGroups(x.rows, x.cols / width, software, 3);
  return makeKernel({
    name: "layer_norm",
    shape: `${x.rows}x${x.cols}`,
    operands,
    uniforms: {
      rows: x.rows,
      cols: x.cols / width,
      ...layoutUniforms(operands),
      elements: new Float(x.cols),
      eps: new Float(eps),
    },
    workgroup: rows.workgroup,
    grid: rows.grid,
    iterations: 3 * rows.rounds,
    declarations: rows.reduce("total", "f32", plus),
    body: `${rows.prelude}${moments(rows, width)}
  for (var col = sub; col < n; col += ${rows.lanes}u) {
    let normal = (${at("x", "row", "col")} - mean) * r;
    ${at("y", "row", "col")} = normal * ${at("w", "0u", "col")}${
      b ? ` + ${at("b", "0u", "col")}` : ""
    };
  }`,
    flops: 7 * x.rows * x.cols,
  });
}

/**
 * With g = dy ∘ w, n = (x − mean) r: dx = r (g − mean(g) − n mean(g ∘ n)). Also writes mean and r
 * into `stats` [rows, 2].
 */
export function layerNormGradient(args: {
  x: Layout;
  w: Layout;
  dy: Layout;
  stats: Layout;
  dx: Sink;
  eps: number;
  software: boolean;
}): Kernel {
  const { x, w, dy, stats } = args;
  const width = widthOf(x, w, dy, ...sinkMatrices(args.dx));
  const type = unitType(width);
  const rows = rowGroups(x.rows, x.cols / width, args.software, 4);
  const dx = sinkParts("dx", args.dx, width);
  const operands = {
    x: read(x, width),
    w: read(w, width),
    dy: read(dy, width),
    stats: write(stats),
    ...dx.operands,
  };
  return makeKernel({
    name: "layer_norm_gradient",
    shape: `${x.rows}x${x.cols}`,
    operands,
    uniforms: {
      rows: x.rows,
      cols: x.cols / width,
      ...layoutUniforms(operands),
      elements: new Float(x.cols),
      eps: new Float(args.eps),
    },
    workgroup: rows.workgroup,
    grid: rows.grid,
    iterations: 4 * rows.rounds,
    declarations: rows.reduce("total", "f32", plus) + "\n" +
      rows.reduce("totals", "vec2f", plus),
    body: `${rows.prelude}${moments(rows, width)}
  if (live && sub == 0u) {
    ${at("stats", "row", "0u")} = mean;
    ${at("stats", "row", "1u")} = r;
  }
  var slopes = ${type}(0.0);
  var products = ${type}(0.0);
  for (var col = sub; col < n; col += ${rows.lanes}u) {
    let g = ${at("dy", "row", "col")} * ${at("w", "0u", "col")};
    slopes += g;
    products += g * (${at("x", "row", "col")} - mean) * r;
  }
  let means = totals(lane, vec2f(${sumOfUnit(width, "slopes")}, ${
      sumOfUnit(width, "products")
    })) / u.elements;
  for (var col = sub; col < n; col += ${rows.lanes}u) {
    let g = ${at("dy", "row", "col")} * ${at("w", "0u", "col")};
    let normal = (${at("x", "row", "col")} - mean) * r;
    ${dx.store("row", "col", "(r * (g - means.x - normal * means.y))")}
  }`,
    flops: 16 * x.rows * x.cols,
  });
}

/**
 * Partial sums of dw = Σ_rows dy ∘ (x − mean) r, one per block of rows.
 */
export function layerNormWeightGradient(
  { x, dy, stats, dw, software }: {
    x: Layout;
    dy: Layout;
    stats: Layout;
    dw: Sink;
    software: boolean;
  },
): Kernel {
  const normal = `(${at("x", "row", "col")} - ${at("stats", "row", "0u")}) * ${
    at("stats", "row", "1u")
  }`;
  return columnSum({
    name: "layer_norm_weight_gradient",
    matrices: { x, dy },
    scalars: { stats },
    term: `${normal} * ${at("dy", "row", "col")}`,
    out: dw,
    software,
  });
}

/** Partial sums of db = Σ_rows dy. */
export function layerNormBiasGradient(
  { dy, db, software }: { dy: Layout; db: Sink; software: boolean },
): Kernel {
  return columnSum({
    name: "layer_norm_bias_gradient",
    matrices: { dy },
    term: at("dy", "row", "col"),
    out: db,
    software,
  });
}
