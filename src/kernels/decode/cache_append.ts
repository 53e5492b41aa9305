/**
 * Caches of earlier tokens: a row for each position.
 *
 * @module
 */
import { spread } from "../wgsl/elementwise.ts";
import { bytesOf, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { at } from "../wgsl/layout_units.ts";
import { type Layout, layoutUniforms, read, write } from "../wgsl/operand.ts";

/** Puts the one row of x at a position of y. */
export function cacheAppendKernel(
  { x, position, y }: Record<"x" | "position" | "y", Layout>,
): Kernel {
  const over = spread(1, x.cols);
  const operands = { x: read(x), position: read(position, "i32"), y: write(y) };
  return makeKernel({
    name: "cache_append",
    shape: `1x${x.cols}`,
    operands,
    uniforms: { ...over.uniforms, ...layoutUniforms(operands) },
    workgroup: over.workgroup,
    grid: over.grid,
    body: `${over.prelude}
  ${at("y", "u32(position[u.position_offset])", "col")} = ${at("x", "row", "col")};`,
    bytes: 2 * bytesOf(x),
  });
}
