/**
 * The gradient of the scores as the pass over keys needs it: in the order of the keys' lists.
 *
 * @module
 */
import { bytesOf, foldGrid, type Kernel, makeKernel, range } from "../../wgsl/kernel.ts";
import { at } from "../../wgsl/layout_units.ts";
import { rounds } from "../../wgsl/loops.ts";
import { type Layout, layoutUniforms, read, write } from "../../wgsl/operand.ts";
import { SEGMENTS } from "../../select/lists.ts";

/** What {@linkcode listGradients} reads and writes. */
export interface ListGradientsSpec {
  /** i32 [rows, topk]: ascending, then -1. */
  readonly indices: Layout;
  /** [rows, width]: compact. */
  readonly gradScores: Layout;
  /** Of `listQueries`. */
  readonly starts: Layout;
  /** Of `listQueries`. */
  readonly queries: Layout;
  /** [rows, width], packed as `queries` is: the result. */
  readonly listed: Layout;
  readonly seqLen: number;
  readonly software: boolean;
}

/**
 * Gives each query in the list of a key the gradient of their score. Where the key is in the list
 * of the query is found by bisection: a few reads for a pair whose heads take many, and nothing to
 * be kept from when the lists were made. Done once for all heads, apart from their sums, which
 * then wait for no chain of reads.
 */
export function listGradients(spec: ListGradientsSpec): Kernel {
  const { indices, gradScores, starts, queries, listed, seqLen, software } = spec;
  const operands = {
    indices: read(indices, "u32"),
    grad_scores: read(gradScores),
    starts: read(starts, "u32"),
    queries: read(queries, "i32"),
    listed: write(listed),
  };
  // Some keys are in the lists of most queries.
  const lanes = software ? 8 : 128;
  const width = gradScores.cols;
  const steps = Math.ceil(Math.log2(width));
  // As unsigned numbers the -1 at the end are the largest.
  const bisect = range(steps).map((i) => 2 ** (steps - 1 - i)).map((half) =>
    `if (low + ${half}u < u.width) {
if (indices[list + low + ${half}u] <= key) { low += ${half}u; }
}`
  );
  return makeKernel({
    name: "index_gather_list",
    shape: `${indices.rows}x${width}`,
    operands,
    uniforms: { rows: indices.rows, width, seq_len: seqLen, ...layoutUniforms(operands) },
    workgroup: lanes,
    grid: foldGrid(indices.rows),
    iterations: rounds(seqLen, lanes),
    body: `
let row = wid.x + wid.y * groups.x;
if (row >= u.rows) { return; }
let key = row % u.seq_len;
let batch_row = row - key;
let starts_at = u.starts_offset + row / u.seq_len * u.starts_stride + key * ${SEGMENTS}u;
let stop = starts[starts_at + ${SEGMENTS}u];
for (var place = starts[starts_at] + lane; place < stop; place += ${lanes}u) {
let query = batch_row + u32(${at("queries", "batch_row", "place")});
let list = u.indices_offset + query * u.indices_stride;
var low = 0u;
${bisect.join("\n")}
${at("listed", "batch_row", "place")} = ${at("grad_scores", "query", "low")};
}`,
    flops: 0,
    bytes: bytesOf(gradScores, queries, listed),
  });
}
