/**
 * What the kernels of index scores have in common.
 *
 * @module
 */
import { type Indexer, pairsOfChunk } from "./indexer.ts";
import type { Capabilities } from "../wgsl/device.ts";
import { Float, isVec4, type KernelSpec } from "../wgsl/kernel.ts";
import { type Layout, layoutUniforms, read, write } from "../wgsl/operand.ts";

/** What `indexScores` computes. */
export interface IndexScoresSpec {
  /** [R, heads · dim]: the queries of positions `firstRow …` of a sequence. */
  readonly q: Layout;
  /** [keys, dim]: the keys of that sequence from its start. */
  readonly k: Layout;
  /** [R, heads]: signed weights of the heads. */
  readonly w: Layout;
  /** [R, keys]: the result. */
  readonly scores: Layout;
  /** On GPUs, if given: where the signs of the products go; see `signs.ts`. */
  readonly signs?: Layout;
  /** Position of the first query in its sequence. */
  readonly firstRow: number;
  readonly indexer: Indexer;
  /**
   * Sequences side by side, default 1: q, w and scores then have batch · R rows, k batch · keys.
   */
  readonly batch?: number;
  /** Decides which family of kernels to use. */
  readonly capabilities: Capabilities;
}

/**
 * Name, operands, uniforms and costs: the same in all families.
 *
 * @param vecQ whether the family reads q as whole `vec4`s
 */
export function scoresBase(
  spec: IndexScoresSpec,
  vecQ: boolean,
): Omit<KernelSpec, "workgroup" | "grid" | "body"> {
  const { q, k, w, scores, signs, firstRow, indexer, batch = 1 } = spec;
  const { heads, dim, activation, scale } = indexer;
  const rows = scores.rows / batch;
  const operands = {
    q: read(q, vecQ ? "vec4f" : "f32"),
    k: read(k, isVec4(k) ? "vec4f" : "f32"),
    w: read(w),
    scores: write(scores, isVec4(scores) ? "vec4f" : "f32"),
    ...signs ? { signs: write(signs, "u32") } : {},
  };
  return {
    name: `index_scores_${activation}`,
    shape: `${scores.rows}x${scores.cols}x${heads}x${dim}`,
    operands,
    uniforms: {
      rows,
      cols: scores.cols,
      first_row: firstRow,
      heads,
      dim,
      scale: new Float(scale),
      // WGSL has no infinite constants.
      hidden: new Float(-Infinity),
      ...layoutUniforms(operands),
    },
    flops: 2 * batch * pairsOfChunk(firstRow, rows) * heads * (dim + 1),
  };
}
