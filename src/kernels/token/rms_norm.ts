/**
 * RMSNorm: y = x / sqrt(mean(x²) + eps) · w.
 *
 * @module
 */
import { columnSum } from "./column_sum.ts";
import { Float, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { at, sumOfUnit, widthOf } from "../wgsl/layout_units.ts";
import { type Layout, layoutUniforms, read, unitType, write } from "../wgsl/operand.ts";
import { plus, rowGroups } from "../wgsl/rows.ts";
import { type Sink, sinkMatrices, sinkParts } from "../wgsl/sink.ts";

/** Shapes: x, y [rows, cols]; w [1, cols]. */
export function rmsNormKernel(
  { x, w, y, eps, software }: { x: Layout; w: Layout; y: Layout; eps: number; software: boolean },
): Kernel {
  const width = widthOf(x, w, y);
  const operands = { x: read(x, width), w: read(w, width), y: write(y, width) };
  const type = unitType(width);
  const rows = rowGroups(x.rows, x.cols / width, software, 2);
  return makeKernel({
    name: "rms_norm",
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
    iterations: 2 * rows.rounds,
    declarations: rows.reduce("total", "f32", plus),
    body: `${rows.prelude}
  var squares = ${type}(0.0);
  for (var col = sub; col < n; col += ${rows.lanes}u) {
    let v = ${at("x", "row", "col")};
    squares += v * v;
  }
  let rstd = inverseSqrt(total(lane, ${sumOfUnit(width, "squares")}) / u.elements + u.eps);
  for (var col = sub; col < n; col += ${rows.lanes}u) {
    ${at("y", "row", "col")} = ${at("x", "row", "col")} * rstd * ${at("w", "0u", "col")};
  }`,
    flops: 4 * x.rows * x.cols,
  });
}

/**
 * With g = dy ∘ w and r = 1 / sqrt(mean(x²) + eps): dx = r g − x r³ mean(g ∘ x). Also writes r
 * into `rstd` [rows, 1].
 */
export function rmsNormGradient(args: {
  x: Layout;
  w: Layout;
  dy: Layout;
  rstd: Layout;
  dx: Sink;
  eps: number;
  software: boolean;
}): Kernel {
  const { x, w, dy, rstd } = args;
  const width = widthOf(x, w, dy, ...sinkMatrices(args.dx));
  const type = unitType(width);
  const rows = rowGroups(x.rows, x.cols / width, args.software, 2);
  const dx = sinkParts("dx", args.dx, width);
  const operands = {
    x: read(x, width),
    w: read(w, width),
    dy: read(dy, width),
    rstd: write(rstd),
    ...dx.operands,
  };
  return makeKernel({
    name: "rms_norm_gradient",
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
    iterations: 2 * rows.rounds,
    declarations: rows.reduce("total", "vec2f", plus),
    body: `${rows.prelude}
  var squares = ${type}(0.0);
  var products = ${type}(0.0);
  for (var col = sub; col < n; col += ${rows.lanes}u) {
    let v = ${at("x", "row", "col")};
    squares += v * v;
    products += v * ${at("dy", "row", "col")} * ${at("w", "0u", "col")};
  }
  let sums = total(lane, vec2f(${sumOfUnit(width, "squares")}, ${sumOfUnit(width, "products")}));
  let r = inverseSqrt(sums.x / u.elements + u.eps);
  let slope = r * r * r * sums.y / u.elements;
  if (live && sub == 0u) { ${at("rstd", "row", "0u")} = r; }
  for (var col = sub; col < n; col += ${rows.lanes}u) {
    let g = ${at("dy", "row", "col")} * ${at("w", "0u", "col")};
    ${dx.store("row", "col", `(g * r - ${at("x", "row", "col")} * slope)`)}
  }`,
    flops: 10 * x.rows * x.cols,
  });
}

/**
 * Partial sums of dw = Σ_rows dy ∘ x · rstd, one per block of rows.
 */
export function rmsNormWeightGradient(
  { x, dy, rstd, dw, software }: {
    x: Layout;
    dy: Layout;
    rstd: Layout;
    dw: Sink;
    software: boolean;
  },
): Kernel {
  return columnSum({
    name: "rms_norm_weight_gradient",
    matrices: { x, dy },
    scalars: { rstd },
    term: `${at("x", "row", "col")} * ${at("dy", "row", "col")} * ${at("rstd", "row", "0u")}`,
    out: dw,
    software,
  });
}
