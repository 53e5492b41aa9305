/**
 * GELU in its tanh form: y = x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))) = x · sigmoid(2 √(2/π) (…)).
 *
 * @module
 */
import { bytesOf, type Kernel, type Layout, layoutUniforms, makeKernel } from "../wgsl/kernel.ts";
import { walk } from "../wgsl/elementwise.ts";
import { mapSink, type Sink, sinkBytes, sinkLayouts, sinkParts } from "../wgsl/sink.ts";
import { sigmoidFunction } from "./swiglu.ts";
import { allInUnits, at, inUnits, unitType } from "../wgsl/layout_units.ts";

/** 2 √(2/π) and the same times 0.044715. */
const LINEAR = 2 * Math.sqrt(2 / Math.PI);
const CUBIC = LINEAR * 0.044715;

/** x and y have the same shape. Buffers: x, y. */
export function geluKernel({ x, y }: { x: Layout; y: Layout }): Kernel {
  const { width, spread, view } = walk(x, y);
  const type = unitType(width);
  return makeKernel({
    name: "gelu",
    shape: `${x.rows}x${x.cols}`,
    buffers: { x: `read ${type}`, y: `read_write ${type}` },
    uniforms: {
      ...spread.uniforms,
      ...layoutUniforms(allInUnits({ x: view(x), y: view(y) }, width)),
    },
    workgroup: spread.workgroup,
    grid: spread.grid,
    declarations: sigmoidFunction(width),
    body: `${spread.prelude}
  let v = ${at("x", "row", "col")};
  ${at("y", "row", "col")} = v * sigmoid(v * (${LINEAR} + ${CUBIC} * v * v));`,
    flops: 9 * x.rows * x.cols,
    bytes: bytesOf(x, y),
  });
}

/** dx = dy · (s + x s (1 − s) t′) with s = sigmoid(t(x)). Buffers: x, dy, those of the sink `dx`. */
export function geluGradient(args: { x: Layout; dy: Layout; dx: Sink }): Kernel {
  const { x, dy } = args;
  const { width, spread, view } = walk(x, dy, ...sinkLayouts(args.dx));
  const type = unitType(width);
  const dx = sinkParts("dx", mapSink(args.dx, view), width);
  return makeKernel({
    name: "gelu_gradient",
    shape: `${x.rows}x${x.cols}`,
    buffers: { x: `read ${type}`, dy: `read ${type}`, ...dx.buffers },
    uniforms: {
      ...spread.uniforms,
      ...layoutUniforms({ x: inUnits(view(x), width), dy: inUnits(view(dy), width) }),
      ...dx.uniforms,
    },
    workgroup: spread.workgroup,
    grid: spread.grid,
    declarations: sigmoidFunction(width),
    body: `${spread.prelude}
  let v = ${at("x", "row", "col")};
  let s = sigmoid(v * (${LINEAR} + ${CUBIC} * v * v));
  let slope = s + v * s * (1.0 - s) * (${LINEAR} + ${3 * CUBIC} * v * v);
  ${dx.store("row", "col", `(${at("dy", "row", "col")} * slope)`)}`,
    flops: 18 * x.rows * x.cols,
    bytes: bytesOf(x, dy) + sinkBytes(args.dx),
  });
}
