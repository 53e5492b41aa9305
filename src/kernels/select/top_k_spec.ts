/**
 * What the kernels that select the largest scores have in common.
 *
 * @module
 */
import type { Capabilities } from "../wgsl/device.ts";
import { bytesOf, isVec4, type KernelSpec } from "../wgsl/kernel.ts";
import { at } from "../wgsl/layout_units.ts";
import { type Layout, layoutUniforms, type Operand, read, write } from "../wgsl/operand.ts";

/** Which of keys with equal scores is selected first: the one at the lower position, or the higher. */
export type TieRule = "oldest" | "newest";

/** What `topK` selects from. */
export interface TopKSpec {
  /** [batch · R, keys]; row t of a sequence has the scores of keys 0 … t. The rest is not read. */
  readonly scores: Layout;
  /** i32 [batch · R, k]: the result. */
  readonly indices: Layout;
  /** Position of the first row in its sequence. */
  readonly firstRow: number;
  /** Sequences side by side, default 1. */
  readonly batch?: number;
  /** i32 [R, 1]: positions of the rows, which then need not be neighbours. */
  readonly positions?: Layout;
  /** Default: the oldest first. */
  readonly ties?: TieRule;
  /**
   * Keys to make the code for, default and at least the columns of `scores`: chunks of one sequence
   * share a pipeline if they name the same number.
   */
  readonly capacity?: number;
  /** Decides which family of kernels to use. */
  readonly capabilities: Capabilities;
}

/** Name, buffers, uniforms and costs: the same in all families. */
export function topKBase(
  spec: TopKSpec,
): Omit<KernelSpec, "workgroup" | "grid" | "body"> {
  const { scores, indices, firstRow, batch = 1, positions } = spec;
  const rows = scores.rows / batch;
  const from = read(scores, isVec4(scores) ? "vec4f" : "f32");
  const place: Record<string, Operand> = positions ? { positions: read(positions, "i32") } : {};
  const chosen = write(indices, "i32");
  return {
    name: "top_k",
    shape: `${indices.cols} of ${scores.rows}x${scores.cols}`,
    operands: { scores: from, ...place, indices: chosen },
    uniforms: {
      rows: scores.rows,
      sequence_rows: rows,
      first_row: firstRow,
      k: indices.cols,
      ...layoutUniforms({ scores: from, indices: chosen, ...place }),
    },
    bytes: 4 * scores.rows * (firstRow + (rows + 1) / 2) + bytesOf(indices),
  };
}

/** WGSL of the number of keys that `row` sees. */
export function visibleKeys({ positions }: TopKSpec): string {
  return positions
    ? `u32(${at("positions", "row", "0u")}) + 1u`
    : "u.first_row + row % u.sequence_rows + 1u";
}

/** WGSL of the scores of four keys from `key` on of the row `row`. */
export function fourScores({ scores }: TopKSpec, row: string, key: string): string {
  const index = `u.scores_offset + ${row} * u.scores_stride + ${key}`;
  if (isVec4(scores)) return `scores[(${index}) / 4u]`;
  return `vec4f(${[0, 1, 2, 3].map((e) => `scores[${index} + ${e}u]`).join(", ")})`;
}
