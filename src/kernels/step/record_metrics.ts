/**
 * Keeps a step's metrics on the device until they are read.
 *
 * @module
 */
import { bytesOf, type Kernel, type Layout, layoutUniforms, makeKernel } from "../wgsl/kernel.ts";
import { spread } from "../wgsl/elementwise.ts";
import { at } from "../wgsl/layout_units.ts";

/**
 * ring[slot] = row, or += row with `add` (further micro-batches of one step). row [1, width], ring
 * [slots, width], slot [1, 1] i32 in 0 … slots − 1. Buffers: row, ring, slot.
 */
export function recordMetrics(
  { row, slot, ring, add }: { row: Layout; slot: Layout; ring: Layout; add: boolean },
): Kernel {
  const over = spread(1, row.cols);
  const target = at("ring", "s", "col");
  return makeKernel({
    name: add ? "add_metrics" : "record_metrics",
    shape: `${row.cols}`,
    buffers: { source: "read", ring: "read_write", slot: "read i32" },
    uniforms: { ...over.uniforms, ...layoutUniforms({ source: row, slot, ring }) },
    workgroup: over.workgroup,
    grid: over.grid,
    body: `${over.prelude}
  let s = u32(slot[u.slot_offset]);
  ${target} = ${add ? `${target} + ` : ""}${at("source", "row", "col")};`,
    bytes: 2 * bytesOf(row),
  });
}
