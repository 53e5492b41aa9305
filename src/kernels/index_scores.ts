/**
 * Scores of the lightning indexer for a chunk of queries.
 *
 * @module
 */
import type { Capabilities } from "../ops/op.ts";
import {
  bytesOf,
  Float,
  foldGrid,
  type Kernel,
  type Layout,
  layoutUniforms,
  makeKernel,
} from "./kernel.ts";
import { at } from "./units.ts";

/** What {@linkcode indexScores} computes. */
export interface IndexScoresSpec {
  /** [R, heads · dim]: the queries of rows `firstRow …` of a sequence. */
  readonly q: Layout;
  /** [keys, dim]: the keys of the sequence from its start. */
  readonly k: Layout;
  /** [R, heads]. */
  readonly w: Layout;
  /** [R, keys]: the result. */
  readonly scores: Layout;
  /** Position of the first query in its sequence. */
  readonly firstRow: number;
  readonly heads: number;
  readonly dim: number;
  readonly activation: "relu" | "none";
  readonly scale: number;
  readonly capabilities: Capabilities;
}

/**
 * scores[t, s] = scale · Σ_j w[t, j] · act(q_j[t] · k[s]) where key s is visible (s ≤ t), -∞ where
 * it is not (DeepSeek-V3.2, eq. 1).
 */
export function indexScores(spec: IndexScoresSpec): Kernel {
  const { q, k, w, scores, firstRow, heads, dim, activation, scale } = spec;
  const act = activation === "relu" ? "max(dot, 0.0)" : "dot";
  return makeKernel({
    name: "index_scores",
    shape: `${scores.rows}x${scores.cols}x${heads}x${dim}`,
    buffers: { q: "read", k: "read", w: "read", scores: "read_write" },
    uniforms: {
      rows: scores.rows,
      cols: scores.cols,
      firstRow,
      heads,
      dim,
      scale: new Float(scale),
      hidden: new Float(-Infinity),
      ...layoutUniforms({ q, k, w, scores }),
    },
    workgroup: 64,
    grid: foldGrid3(Math.ceil(scores.rows * scores.cols / 64)),
    body: `
let i = (wid.x + wid.y * groups.x) * 64u + lane;
if (i >= u.rows * u.cols) { return; }
let row = i / u.cols;
let col = i % u.cols;
var sum = u.hidden;
if (col <= u.firstRow + row) {
  sum = 0.0;
  for (var j = 0u; j < u.heads; j++) {
    var dot = 0.0;
    for (var e = 0u; e < u.dim; e++) { dot += ${at("q", "row", "j * u.dim + e")} * ${
      at("k", "col", "e")
    }; }
    sum += ${at("w", "row", "j")} * ${act};
  }
  sum *= u.scale;
}
${at("scores", "row", "col")} = sum;`,
    flops: 2 * scores.rows * scores.cols * heads * dim,
    bytes: bytesOf(q, k, w, scores),
  });
}

function foldGrid3(count: number): [number, number, number] {
  return foldGrid(count);
}
