/**
 * The indexer's teacher along lists, from scores that attention has kept.
 *
 * @module
 */
import { foldGrid, type Kernel, makeKernel } from "../../wgsl/kernel.ts";
import { at } from "../../wgsl/layout_units.ts";
import { type Layout, layoutUniforms, read, write } from "../../wgsl/operand.ts";

/** What {@linkcode targetOfScores} reads and writes. */
export interface TargetOfScoresSpec {
  /** [rows, heads · topk], to base 2: see `attentionForward`. */
  readonly scores: Layout;
  /** [rows, heads]. */
  readonly lse: Layout;
  /** i32 [rows, topk]: positions in the sequence, ascending, then -1. */
  readonly indices: Layout;
  /** [rows, width]: the result; width is at least the length of the longest list. */
  readonly target: Layout;
  /** Tokens of a sequence. */
  readonly seqLen: number;
}

/**
 * target[t, i] = (1 / heads) · Σ_h 2^scores[t, h, i] · exp(-lse_h[t]) for the i-th key of the list of
 * t, and 0 past its end.
 */
export function targetOfScores(
  { scores, lse, indices, target, seqLen }: TargetOfScoresSpec,
): Kernel {
  const { rows, cols } = target;
  const heads = lse.cols;
  const operands = {
    scores: read(scores),
    lse: read(lse),
    indices: read(indices, "i32"),
    goal: write(target),
  };
  return makeKernel({
    name: "index_target_of_scores",
    shape: `${rows}x${cols}x${heads}`,
    operands,
    uniforms: {
      rows,
      cols,
      heads,
      topk: indices.cols,
      seq_len: seqLen,
      ...layoutUniforms(operands),
    },
    workgroup: 64,
    grid: foldGrid(Math.ceil(rows * cols / 64)),
    iterations: heads,
    body: `
let index = (wid.x + wid.y * groups.x) * 64u + lane;
let row = index / u.cols;
let i = index % u.cols;
if (row >= u.rows) { return; }
var sum = 0.0;
if (i <= row % u.seq_len && ${at("indices", "row", "i")} >= 0) {
for (var head = 0u; head < u.heads; head++) {
let score = ${at("scores", "row", "head * u.topk + i")};
sum += exp2(fma(${at("lse", "row", "head")}, -${Math.LOG2E}, score));
}
}
${at("goal", "row", "i")} = sum / f32(u.heads);`,
    flops: 3 * rows * cols * heads,
  });
}
