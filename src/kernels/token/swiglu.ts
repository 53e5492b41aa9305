/**
 * SwiGLU: y = silu(gate) ∘ up, with gate and up side by side in one matrix.
 *
 * @module
 */
import { bytesOf, type Kernel, type Layout, layoutUniforms, makeKernel } from "../wgsl/kernel.ts";
import { spread } from "../wgsl/elementwise.ts";
import { type Sink, sinkBytes, sinkLayouts, sinkParts } from "../wgsl/sink.ts";
import { allInUnits, at, unitType, type Width, widthOf } from "../wgsl/layout_units.ts";

/** Declares `sigmoid` for units; the exponent is bounded, so nothing overflows. */
export function sigmoidFunction(width: Width): string {
  const type = unitType(width);
  return `fn sigmoid(x: ${type}) -> ${type} {
  return 1.0 / (1.0 + exp(min(-x, ${type}(80.0))));
}`;
}

/** gateUp [rows, 2 cols], y [rows, cols]. Buffers: gateUp, y. */
export function swigluKernel({ gateUp, y }: { gateUp: Layout; y: Layout }): Kernel {
  const width = widthOf(gateUp, y);
  const type = unitType(width);
  const over = spread(y.rows, y.cols / width);
  return makeKernel({
    name: "swiglu",
    shape: `${y.rows}x${y.cols}`,
    buffers: { x: `read ${type}`, y: `read_write ${type}` },
    uniforms: { ...over.uniforms, ...layoutUniforms(allInUnits({ x: gateUp, y }, width)) },
    workgroup: over.workgroup,
    grid: over.grid,
    declarations: sigmoidFunction(width),
    body: `${over.prelude}
  let gate = ${at("x", "row", "col")};
  ${at("y", "row", "col")} = gate * sigmoid(gate) * ${at("x", "row", "(col + u.cols)")};`,
    flops: 5 * y.rows * y.cols,
    bytes: bytesOf(gateUp, y),
  });
}

/**
 * With s = sigmoid(gate): dGate = dy up s (1 + gate (1 − s)), dUp = dy gate s. Buffers: gateUp,
 * dy, and those of the sink `dGateUp`.
 */
export function swigluGradient(
  { gateUp, dy, dGateUp }: { gateUp: Layout; dy: Layout; dGateUp: Sink },
): Kernel {
  const width = widthOf(gateUp, dy, ...sinkLayouts(dGateUp));
  const type = unitType(width);
  const over = spread(dy.rows, dy.cols / width);
  const dx = sinkParts("dx", dGateUp, width);
  return makeKernel({
    name: "swiglu_gradient",
    shape: `${dy.rows}x${dy.cols}`,
    buffers: { x: `read ${type}`, dy: `read ${type}`, ...dx.buffers },
    uniforms: {
      ...over.uniforms,
      ...layoutUniforms(allInUnits({ x: gateUp, dy }, width)),
      ...dx.uniforms,
    },
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
    bytes: bytesOf(gateUp, dy) + sinkBytes(dGateUp),
  });
}
