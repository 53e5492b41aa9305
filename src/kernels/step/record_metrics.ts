/**
 * Keeps a step's metrics on the device until they are read.
 *
 * @module
 */
import { spread } from "../wgsl/elementwise.ts";
import { bytesOf, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { at } from "../wgsl/layout_units.ts";
import { type Layout, layoutUniforms, read, update, write } from "../wgsl/operand.ts";

/**
 * ring[slot] = row, or += row with `add` (further micro-batches of one step). row [1, width], ring
 * [slots, width], slot [1, 1] i32 in 0 … slots − 1.
 */
export function recordMetrics(
  { row, slot, ring, add }: { row: Layout; slot: Layout; ring: Layout; add: boolean },
): Kernel {
  const over = spread(1, row.cols);
  const [source, place] = [read(row), read(slot, "i32")];
  const rows = add ? update(ring) : write(ring);
  const target = at("ring", "s", "col");
  return makeKernel({
    name: add ? "add_metrics" : "record_metrics",
    shape: `${row.cols}`,
    operands: { source, ring: rows, slot: place },
    uniforms: { ...over.uniforms, ...layoutUniforms({ source, slot: place, ring: rows }) },
    workgroup: over.workgroup,
    grid: over.grid,
    body: `${over.prelude}
  let s = u32(slot[u.slot_offset]);
  ${target} = ${add ? `${target} + ` : ""}${at("source", "row", "col")};`,
    bytes: 2 * bytesOf(row),
  });
}
