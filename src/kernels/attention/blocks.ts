/**
 * Where the weights of attention are kept between the kernels of its backward pass: blocks of
 * {@linkcode BLOCK}² pairs on and below the diagonal, row by row of blocks, head by head. A matrix of
 * them has one row for each query of each block.
 *
 * @module
 */
import type { Extent, HeadDims } from "./heads.ts";

/** Queries and keys of a block. */
export const BLOCK = 128;

/** Blocks along a sequence. */
export function blocksAlong({ seqLen }: Pick<Extent, "seqLen">): number {
  return Math.ceil(seqLen / BLOCK);
}

/** Rows of {@linkcode BLOCK} numbers that one head of one sequence takes. */
export function blockRows(extent: Pick<Extent, "seqLen">): number {
  const n = blocksAlong(extent);
  return n * (n + 1) / 2 * BLOCK;
}

/** WGSL: the element at which a block of head `unit`, counted from the first one kept, begins. */
export function blockStart(unit: string, queries: string, keys: string): string {
  const before =
    `${unit} * (u.blocks * (u.blocks + 1u) / 2u) + ${queries} * (${queries} + 1u) / 2u`;
  return `(${before} + ${keys}) * ${BLOCK * BLOCK}u`;
}

/** Some of the heads of all sequences: those of `count` key heads from `first` on. */
export interface Units {
  /** Counts the key heads of the first sequence, then of the second, and so on. */
  readonly first: number;
  readonly count: number;
}

/**
 * Cuts the key heads of all sequences into equal parts whose blocks, for all query heads that share
 * them, take at most `bytes`; none if those of one head don't fit.
 */
export function partsOf({ heads, kvHeads }: HeadDims, extent: Extent, bytes: number): Units[] {
  const each = heads / kvHeads * blockRows(extent) * BLOCK * 4;
  const most = Math.floor(bytes / each);
  if (most === 0) return [];
  const total = extent.batch * kvHeads;
  const count = Math.ceil(total / Math.ceil(total / most));
  const parts: Units[] = [];
  for (let first = 0; first < total; first += count) {
    parts.push({ first, count: Math.min(count, total - first) });
  }
  return parts;
}
