/**
 * Scores of blocks of keys.
 *
 * @module
 */
import { foldGrid, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { at } from "../wgsl/layout_units.ts";
import { type Layout, layoutUniforms, update } from "../wgsl/operand.ts";

/** How the scores of a block become one. */
export type Pool = "max" | "mean";

/** What {@linkcode blockPool} changes. */
export interface BlockPoolSpec {
  /** [batch · R, keys]; row t of a sequence has the scores of keys 0 … t. */
  readonly scores: Layout;
  /** Position of the first row in its sequence. */
  readonly firstRow: number;
  /** Sequences side by side, default 1. */
  readonly batch?: number;
  /** Keys of a block; the first block starts at key 0. */
  readonly size: number;
  /** How the scores of a block become one. */
  readonly pool: Pool;
}

/**
 * Replaces each visible score by the largest, or the mean, of the visible scores in its block of
 * `size` keys.
 */
export function blockPool({ scores, firstRow, batch = 1, size, pool }: BlockPoolSpec): Kernel {
  const operands = { scores: update(scores) };
  const blocks = Math.ceil(scores.cols / size);
  const score = at("scores", "row", "i");
  return makeKernel({
    name: `block_pool_${pool}`,
    shape: `${scores.rows}x${scores.cols} by ${size}`,
    operands,
    uniforms: {
      rows: scores.rows,
      sequence_rows: scores.rows / batch,
      first_row: firstRow,
      blocks,
      size,
      ...layoutUniforms(operands),
    },
    workgroup: 64,
    grid: foldGrid(Math.ceil(scores.rows * blocks / 64)),
    iterations: 2 * Math.min(size, scores.cols),
    body: `
let index = (wid.x + wid.y * groups.x) * 64u + lane;
let row = index / u.blocks;
let start = index % u.blocks * u.size;
let end = min(start + u.size, u.first_row + row % u.sequence_rows + 1u);
if (row >= u.rows || start >= end) { return; }
var pooled = ${at("scores", "row", "start")};
for (var i = start + 1u; i < end; i++) { pooled = ${
      pool === "max" ? `max(pooled, ${score})` : `pooled + ${score}`
    }; }
${pool === "mean" ? "pooled /= f32(end - start);" : ""}
for (var i = start; i < end; i++) { ${score} = pooled; }`,
  });
}
