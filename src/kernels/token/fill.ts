/**
 * Sets memory to a value.
 *
 * @module
 */
import { walk } from "../wgsl/elementwise.ts";
import { Float, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { at } from "../wgsl/layout_units.ts";
import { type Layout, layoutUniforms, unitType, write } from "../wgsl/operand.ts";

/** Sets every element of `x` to `value`. */
export function fill({ x, value }: { x: Layout; value: number }): Kernel {
  const { width, spread, view } = walk(x);
  const operands = { x: write(x, width, view(x)) };
  return makeKernel({
    name: "fill",
    shape: `${x.rows}x${x.cols}`,
    operands,
    uniforms: { ...spread.uniforms, ...layoutUniforms(operands), value: new Float(value) },
    workgroup: spread.workgroup,
    grid: spread.grid,
    body: `${spread.prelude}
  ${at("x", "row", "col")} = ${unitType(width)}(u.value);`,
  });
}
