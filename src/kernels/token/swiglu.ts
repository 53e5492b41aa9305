/**
 * SwiGLU: y = silu(gate) ∘ up, with gate and up side by side in one matrix.
 *
 * @module
 */
import { spread } from "../wgsl/elementwise.ts";
import { type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { at, widthOf } from "../wgsl/layout_units.ts";
import { type Layout, layoutUniforms, read, unitType, type Width, write } from "../wgsl/operand.ts";
import { type Sink, sinkMatrices, sinkParts } from "../wgsl/sink.ts";

/** Declares `sigmoid` for units; the exponent is bounded, so nothing overflows. */
export function sigmoidFunction(width: Width): string {
  const type = unitType(width);
  return `fn sigmoid(x: ${type}) -> ${type} {
  return 1.0 / (1.0 + exp(min(-x, ${type}(80.0))));
}`;
}

/** gateUp [rows, 2 cols], y [rows, cols]. */
export function swigluKernel({ gateUp, y }: { gateUp: Layout; y: Layout }): Kernel {
  const width = widthOf(gateUp, y);
  const operands = { x: read(gateUp, width), y: write(y, width) };
  const over = spread(y.rows, y.cols / width);
  return makeKernel({
    name: "swiglu",
    shape: `${y.rows}x${y.cols}`,
    operands,
    uniforms: { ...over.uniforms, ...layoutUniforms(operands) },
    workgroup: over.workgroup,
    grid: over.grid,
    declarations: sigmoidFunction(width),
    body: `${over.prelude}
  let gate = ${at("x", "row", "col")};
  ${at("y", "row", "col")} = gate * sigmoid(gate) * ${at("x", "row", "(col + u.cols)")};`,
    flops: 5 * y.rows * y.cols,
  });
}

/**
 * With s = sigmoid(gate): dGate = dy up s (1 + gate (1 − s)), dUp = dy gate s.
 */
export function swigluGradient(
  { gateUp, dy, dGateUp }: { gateUp: Layout; dy: Layout; dGateUp: Sink },
): Kernel {
  const width = widthOf(gateUp, dy, ...sinkMatrices(dGateUp));
  const over = spread(dy.rows, dy.cols / width);
  const dx = sinkParts("dx", dGateUp, width);
  const operands = { x: read(gateUp, width), dy: read(dy, width), ...dx.operands };
  return makeKernel({
    name: "swiglu_gradient",
    shape: `${dy.rows}x${dy.cols}`,
    operands,
    uniforms: { ...over.uniforms, ...layoutUniforms(operands) },
    workgroup: over.workgroup,
    grid: over.grid,
    declarations: sigmoidFunction(width),
    body: `${over.prelude}
  let gate = ${at("x", "row", "col")};
  let up = ${at("x", "row", "(col + u.cols)")};
  let g = ${at("dy", "row", "col")};
  let s = sigmoid(gate);
  ${dx.store("row", "col", "(g * up * s * (1.0 + gate * (1.0 - s)))")}
  ${dx.store("row", "(col + u.cols)", "(g * gate * s)")}`,
    flops: 12 * dy.rows * dy.cols,
  });
}
