/**
 * Heads of a row, summed up with weights of their own and a factor for all.
 *
 * @module
 */
import { spread } from "../wgsl/elementwise.ts";
import { Float, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { at } from "../wgsl/layout_units.ts";
import { type Layout, layoutUniforms, read, write } from "../wgsl/operand.ts";
import { type Sink, sinkParts } from "../wgsl/sink.ts";

/** What all of these kernels read. */
export interface MixHeadsSpec {
  /** [rows, heads · dim]. */
  readonly x: Layout;
  /** [rows, heads]: weights. */
  readonly w: Layout;
  /** [1, 1]: a factor that is learned. */
  readonly gate: Layout;
  /** One that is not. */
  readonly scale: number;
}

function operandsOf({ x, w, gate }: MixHeadsSpec) {
  return { x: read(x), w: read(w), gate: read(gate) };
}

const GATE = `${at("gate", "0u", "0u")} * u.scale`;

/** y[t] = gate · scale · Σ_j w[t, j] · x[t, j]. */
export function mixHeadsKernel(spec: MixHeadsSpec & { y: Layout }): Kernel {
  const { w: { cols: heads }, y, scale } = spec;
  const over = spread(y.rows, y.cols);
  const operands = { ...operandsOf(spec), y: write(y) };
  return makeKernel({
    name: "mix_heads",
    shape: `${y.rows}x${heads}x${y.cols}`,
    operands,
    uniforms: { ...over.uniforms, heads, scale: new Float(scale), ...layoutUniforms(operands) },
    workgroup: over.workgroup,
    grid: over.grid,
    iterations: heads,
    body: `${over.prelude}
  var sum = 0.0;
  for (var head = 0u; head < u.heads; head++) {
    sum += ${at("w", "row", "head")} * ${at("x", "row", "head * u.cols + col")};
  }
  ${at("y", "row", "col")} = ${GATE} * sum;`,
    flops: 2 * y.rows * y.cols * heads,
  });
}

/** dx[t, j] = gate · scale · w[t, j] · dy[t]. */
export function mixHeadsGradient(
  { w, gate, scale, dy, dx }: Omit<MixHeadsSpec, "x"> & { dy: Layout; dx: Sink },
): Kernel {
  const { rows, cols } = dx.into;
  const over = spread(rows, cols);
  const sink = sinkParts("dx", dx, 1);
  const operands = { w: read(w), gate: read(gate), dy: read(dy), ...sink.operands };
  const value = `${GATE} * ${at("w", "row", "col / u.dim")} * ${at("dy", "row", "col % u.dim")}`;
  return makeKernel({
    name: "mix_heads_gradient",
    shape: `${rows}x${w.cols}x${dy.cols}`,
    operands,
    uniforms: {
      ...over.uniforms,
      dim: dy.cols,
      scale: new Float(scale),
      ...layoutUniforms(operands),
    },
    workgroup: over.workgroup,
    grid: over.grid,
    body: `${over.prelude}
  ${sink.store("row", "col", value)}`,
    flops: 3 * rows * cols,
  });
}

/** dw[t, j] = gate · scale · x[t, j] · dy[t]. */
export function mixHeadsWeightGradient(spec: MixHeadsSpec & { dy: Layout; dw: Sink }): Kernel {
  const { x, gate, dy, dw, scale } = spec;
  const { rows, cols } = dw.into;
  const over = spread(rows, cols);
  const sink = sinkParts("dw", dw, 1);
  const operands = { x: read(x), gate: read(gate), dy: read(dy), ...sink.operands };
  return makeKernel({
    name: "mix_heads_weight_gradient",
    shape: `${rows}x${cols}x${dy.cols}`,
    operands,
    uniforms: {
      ...over.uniforms,
      dim: dy.cols,
      scale: new Float(scale),
      ...layoutUniforms(operands),
    },
    workgroup: over.workgroup,
    grid: over.grid,
    iterations: dy.cols,
    body: `${over.prelude}
  var sum = 0.0;
  for (var i = 0u; i < u.dim; i++) {
    sum += ${at("x", "row", "col * u.dim + i")} * ${at("dy", "row", "i")};
  }
  ${sink.store("row", "col", `${GATE} * sum`)}`,
    flops: 2 * rows * cols * dy.cols,
  });
}

/** out[t] = scale · dy[t] · Σ_j w[t, j] · x[t, j]: a row's part of the gate's gradient. */
export function mixHeadsGateTerms(
  { x, w, scale, dy, out }: Omit<MixHeadsSpec, "gate"> & { dy: Layout; out: Layout },
): Kernel {
  const over = spread(out.rows, 1);
  const operands = { x: read(x), w: read(w), dy: read(dy), out: write(out) };
  return makeKernel({
    name: "mix_heads_gate_terms",
    shape: `${out.rows}x${w.cols}x${dy.cols}`,
    operands,
    uniforms: {
      ...over.uniforms,
      heads: w.cols,
      dim: dy.cols,
      scale: new Float(scale),
      ...layoutUniforms(operands),
    },
    workgroup: over.workgroup,
    grid: over.grid,
    iterations: w.cols * (1 + dy.cols),
    body: `${over.prelude}
  var sum = 0.0;
  for (var head = 0u; head < u.heads; head++) {
    var product = 0.0;
    for (var i = 0u; i < u.dim; i++) {
      product += ${at("x", "row", "head * u.dim + i")} * ${at("dy", "row", "i")};
    }
    sum += ${at("w", "row", "head")} * product;
  }
  ${at("out", "row", "col")} = u.scale * sum;`,
    flops: 2 * out.rows * w.cols * (dy.cols + 1),
  });
}
