/**
 * Copies and sums of matrices.
 *
 * @module
 */
import { walk } from "../wgsl/elementwise.ts";
import { type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { at } from "../wgsl/layout_units.ts";
import { type Layout, layoutUniforms, read } from "../wgsl/operand.ts";
import { type Sink, sinkMatrices, sinkParts } from "../wgsl/sink.ts";

/**
 * `into` = a, a + `into` or a + `add`: a copy or a sum of two matrices.
 */
export function addInto({ a, ...c }: { a: Layout } & Sink): Kernel {
  const { width, spread, view } = walk(a, ...sinkMatrices(c));
  const sink = sinkParts("c", c, width, view);
  const operands = { a: read(a, width, view(a)), ...sink.operands };
  return makeKernel({
    name: c.add === null ? "copy" : "add",
    shape: `${a.rows}x${a.cols}`,
    operands,
    uniforms: { ...spread.uniforms, ...layoutUniforms(operands) },
    workgroup: spread.workgroup,
    grid: spread.grid,
    body: `${spread.prelude}
  ${sink.store("row", "col", at("a", "row", "col"))}`,
    flops: c.add === null ? 0 : a.rows * a.cols,
  });
}
