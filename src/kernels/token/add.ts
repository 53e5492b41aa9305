/**
 * Copies and sums of matrices.
 *
 * @module
 */
import { bytesOf, type Kernel, type Layout, layoutUniforms, makeKernel } from "../wgsl/kernel.ts";
import { walk } from "../wgsl/elementwise.ts";
import { mapSink, type Sink, sinkBytes, sinkLayouts, sinkParts } from "../wgsl/sink.ts";
import { at, inUnits, unitType } from "../wgsl/layout_units.ts";

/**
 * `into` = a, a + `into` or a + `add`: a copy or a sum of two matrices. Buffers: a, into, and the
 * matrix to add if there is one.
 */
export function addInto({ a, ...c }: { a: Layout } & Sink): Kernel {
  const { width, spread, view } = walk(a, ...sinkLayouts(c));
  const sink = sinkParts("c", mapSink(c, view), width);
  return makeKernel({
    name: c.add === "none" ? "copy" : "add",
    shape: `${a.rows}x${a.cols}`,
    buffers: { a: `read ${unitType(width)}`, ...sink.buffers },
    uniforms: {
      ...spread.uniforms,
      ...layoutUniforms({ a: inUnits(view(a), width) }),
      ...sink.uniforms,
    },
    workgroup: spread.workgroup,
    grid: spread.grid,
    body: `${spread.prelude}
  ${sink.store("row", "col", at("a", "row", "col"))}`,
    flops: c.add === "none" ? 0 : a.rows * a.cols,
    bytes: bytesOf(a) + sinkBytes(c),
  });
}
