/**
 * GELU in its tanh form: y = x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))) = x · sigmoid(2 √(2/π) (…)).
 *
 * @module
 */
import { walk } from "../wgsl/elementwise.ts";
import { type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { at } from "../wgsl/layout_units.ts";
import { type Layout, layoutUniforms, read, write } from "../wgsl/operand.ts";
import { type Sink, sinkMatrices, sinkParts } from "../wgsl/sink.ts";
import { sigmoidFunction } from "./swiglu.ts";

/** 2 √(2/π) and the same times 0.044715. */
const LINEAR = 2 * Math.sqrt(2 / Math.PI);
const CUBIC = LINEAR * 0.044715;

/** x and y have the same shape. */
export function geluKernel({ x, y }: { x: Layout; y: Layout }): Kernel {
  const { width, spread, view } = walk(x, y);
  const operands = { x: read(x, width, view(x)), y: write(y, width, view(y)) };
  return makeKernel({
    name: "gelu",
    shape: `${x.rows}x${x.cols}`,
    operands,
    uniforms: { ...spread.uniforms, ...layoutUniforms(operands) },
    workgroup: spread.workgroup,
    grid: spread.grid,
    declarations: sigmoidFunction(width),
    body: `${spread.prelude}
  let v = ${at("x", "row", "col")};
  ${at("y", "row", "col")} = v * sigmoid(v * (${LINEAR} + ${CUBIC} * v * v));`,
    flops: 9 * x.rows * x.cols,
  });
}

/** dx = dy · (s + x s (1 − s) t′) with s = sigmoid(t(x)). */
export function geluGradient(args: { x: Layout; dy: Layout; dx: Sink }): Kernel {
  const { x, dy } = args;
  const { width, spread, view } = walk(x, dy, ...sinkMatrices(args.dx));
  const dx = sinkParts("dx", args.dx, width, view);
  const operands = {
    x: read(x, width, view(x)),
    dy: read(dy, width, view(dy)),
    ...dx.operands,
  };
  return makeKernel({
    name: "gelu_gradient",
    shape: `${x.rows}x${x.cols}`,
    operands,
    uniforms: { ...spread.uniforms, ...layoutUniforms(operands) },
    workgroup: spread.workgroup,
    grid: spread.grid,
    declarations: sigmoidFunction(width),
    body: `${spread.prelude}
  let v = ${at("x", "row", "col")};
  let s = sigmoid(v * (${LINEAR} + ${CUBIC} * v * v));
  let slope = s + v * s * (1.0 - s) * (${LINEAR} + ${3 * CUBIC} * v * v);
  ${dx.store("row", "col", `(${at("dy", "row", "col")} * slope)`)}`,
    flops: 18 * x.rows * x.cols,
  });
}
