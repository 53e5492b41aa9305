/**
 * The causal selection of MoSA. Of a sequence that is read token by token a head keeps the tokens
 * that its router scored highest so far. So each token has one term: the head keeps it from its own
 * position until better tokens have pushed it out. One number a token and head says all of that.
 *
 * @module
 */
import { SORT_KEY } from "./selection.ts";
import { foldGrid, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { at } from "../wgsl/layout_units.ts";
import { type Layout, layoutUniforms, read, write } from "../wgsl/operand.ts";

/** Sizes of a causal selection. */
export interface MosaTermsExtent {
  readonly seqLen: number;
  /** Tokens that a head keeps, 1 … seqLen. */
  readonly picks: number;
}

/**
 * until[t, h], i32 [batch · seqLen, heads]: the first position at which head h no longer keeps
 * token t; seqLen if it does to the end, t itself if it never does. A token is pushed out by the
 * `picks`-th token that is better: of a larger score, or of the same and earlier. O(seqLen²)
 * comparisons a head.
 */
export function mosaTerms(
  { router, until }: { router: Layout; until: Layout },
  { seqLen, picks }: MosaTermsExtent,
): Kernel {
  const { rows, cols: heads } = until;
  const operands = { router: read(router, "u32"), until: write(until, "i32") };
  return makeKernel({
    name: "mosa_terms",
    shape: `${picks} of ${rows}x${heads}`,
    operands,
    uniforms: { count: rows * heads, heads, seq_len: seqLen, picks, ...layoutUniforms(operands) },
    workgroup: 64,
    grid: foldGrid(Math.ceil(rows * heads / 64)),
    iterations: seqLen,
    declarations: SORT_KEY,
    body: `
let i = (wid.x + wid.y * groups.x) * 64u + lane;
if (i >= u.count) { return; }
let row = i / u.heads;
let head = i % u.heads;
let own = row % u.seq_len;
let key = sort_key(row, head);
var left = u.picks;
var end = u.seq_len;
for (var t = 0u; t < u.seq_len; t++) {
  let other = sort_key(row - own + t, head);
  left -= u32(other > key || (other == key && t < own));
  if (left == 0u) {
    end = max(t, own);
    break;
  }
}
${at("until", "row", "head")} = i32(end);`,
  });
}

/**
 * What the tokens of one head attend to: indices[t], i32 [batch · seqLen, picks], are the tokens
 * that it keeps at t, ascending, then -1; all -1 where token t itself is not among them.
 *
 * @param until [batch · seqLen, 1], the head's column of {@linkcode mosaTerms}
 */
export function mosaLists(
  { until, indices }: { until: Layout; indices: Layout },
  { seqLen, picks }: MosaTermsExtent,
): Kernel {
  const operands = { until: read(until, "i32"), indices: write(indices, "i32") };
  return makeKernel({
    name: "mosa_lists",
    shape: `${indices.rows}x${picks}`,
    operands,
    uniforms: { rows: indices.rows, seq_len: seqLen, picks, ...layoutUniforms(operands) },
    workgroup: 64,
    grid: foldGrid(Math.ceil(indices.rows / 64)),
    iterations: seqLen + picks,
    body: `
let row = (wid.x + wid.y * groups.x) * 64u + lane;
if (row >= u.rows) { return; }
let own = row % u.seq_len;
var slot = 0u;
if (${at("until", "row", "0u")} > i32(own)) {
  for (var s = 0u; s <= own; s++) {
    if (${at("until", "(row - own + s)", "0u")} > i32(own)) {
      ${at("indices", "row", "slot")} = i32(s);
      slot++;
    }
  }
}
for (; slot < u.picks; slot++) { ${at("indices", "row", "slot")} = -1i; }`,
  });
}
