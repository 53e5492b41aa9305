/**
 * Sets memory to a value.
 *
 * @module
 */
import {
  bytesOf,
  Float,
  type Kernel,
  type Layout,
  layoutUniforms,
  makeKernel,
} from "../wgsl/kernel.ts";
import { walk } from "../wgsl/elementwise.ts";
import { at, inUnits, unitType } from "../wgsl/layout_units.ts";

/** Sets every element of `x` to `value`. Buffers: x. */
export function fill({ x, value }: { x: Layout; value: number }): Kernel {
  const { width, spread, view } = walk(x);
  return makeKernel({
    name: "fill",
    shape: `${x.rows}x${x.cols}`,
    buffers: { x: `read_write ${unitType(width)}` },
    uniforms: {
      ...spread.uniforms,
      ...layoutUniforms({ x: inUnits(view(x), width) }),
      value: new Float(value),
    },
    workgroup: spread.workgroup,
    grid: spread.grid,
    body: `${spread.prelude}
  ${at("x", "row", "col")} = ${unitType(width)}(u.value);`,
    bytes: bytesOf(x),
  });
}
