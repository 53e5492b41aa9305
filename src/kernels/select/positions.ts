/**
 * Selections that need no indexer: scores from a hash, and indices from positions alone.
 *
 * @module
 */
import { foldGrid, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { at } from "../wgsl/layout_units.ts";
import { type Layout, layoutUniforms, write } from "../wgsl/operand.ts";

/** What {@linkcode randomScores} fills. */
export interface RandomScoresSpec {
  /** [batch · R, keys]. */
  readonly scores: Layout;
  /** Position of the first row in its sequence. */
  readonly firstRow: number;
  /** Sequences side by side, default 1. */
  readonly batch?: number;
  /** From 0 to 2³² − 1. */
  readonly seed: number;
}

/**
 * A random whole number from 0 to 2²⁴ − 1, exact in f32, as the score of key s for query t: the
 * upper bits of a hash, which mixes its arguments in turn with Chris Wellons's `lowbias32`.
 */
export function randomScore(seed: number, t: number, s: number): number {
  return lowBias(s ^ lowBias(t ^ lowBias(seed))) >>> 8;
}

function lowBias(x: number): number {
  x = Math.imul(x ^ x >>> 16, 0x7feb352d);
  x = Math.imul(x ^ x >>> 15, 0x846ca68b);
  return x ^ x >>> 16;
}

/** Fills scores with {@linkcode randomScore}, also those of keys that are not visible. */
export function randomScores({ scores, firstRow, batch = 1, seed }: RandomScoresSpec): Kernel {
  const operands = { scores: write(scores) };
  return makeKernel({
    name: "random_scores",
    shape: `${scores.rows}x${scores.cols}`,
    operands,
    uniforms: {
      rows: scores.rows,
      cols: scores.cols,
      sequence_rows: scores.rows / batch,
      first_row: firstRow,
      seed,
      ...layoutUniforms(operands),
    },
    workgroup: 64,
    grid: foldGrid(Math.ceil(scores.rows * scores.cols / 64)),
    declarations: `
fn low_bias(start: u32) -> u32 {
  var x = start;
  x = (x ^ (x >> 16u)) * 0x7feb352du;
  x = (x ^ (x >> 15u)) * 0x846ca68bu;
  return x ^ (x >> 16u);
}`,
    body: `
let i = (wid.x + wid.y * groups.x) * 64u + lane;
let row = i / u.cols;
let s = i % u.cols;
if (row >= u.rows) { return; }
let t = u.first_row + row % u.sequence_rows;
let hash = low_bias(s ^ low_bias(t ^ low_bias(u.seed)));
${at("scores", "row", "s")} = f32(hash >> 8u);`,
  });
}

/** What {@linkcode recentIndices} fills. */
export interface RecentIndicesSpec {
  /** i32 [rows, k]: consecutive rows of the sequences. */
  readonly indices: Layout;
  /** Number of the first row: index of its sequence · seqLen + position. */
  readonly firstRow: number;
  /** Positions of a sequence. */
  readonly seqLen: number;
  /** Keys that are taken from the start of the sequence, at most k. */
  readonly sinks: number;
}

/**
 * indices[t] = the first `sinks` keys and the k − sinks keys up to t, ascending; all keys, then -1,
 * where row t sees fewer than k.
 */
export function recentIndices({ indices, firstRow, seqLen, sinks }: RecentIndicesSpec): Kernel {
  const operands = { indices: write(indices, "i32") };
  return makeKernel({
    name: "recent_indices",
    shape: `${indices.rows}x${indices.cols}`,
    operands,
    uniforms: {
      rows: indices.rows,
      k: indices.cols,
      first_row: firstRow,
      seq_len: seqLen,
      sinks,
      ...layoutUniforms(operands),
    },
    workgroup: 64,
    grid: foldGrid(Math.ceil(indices.rows * indices.cols / 64)),
    body: `
let index = (wid.x + wid.y * groups.x) * 64u + lane;
let row = index / u.k;
let i = index % u.k;
if (row >= u.rows) { return; }
let n = (u.first_row + row) % u.seq_len + 1u;
let skipped = select(n - min(n, u.k), 0u, i < u.sinks);
${at("indices", "row", "i")} = select(-1, i32(i + skipped), i < n);`,
  });
}
