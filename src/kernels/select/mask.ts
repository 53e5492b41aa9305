/**
 * Selections as bits.
 *
 * @module
 */
import { spread } from "../wgsl/elementwise.ts";
import { foldGrid, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { at } from "../wgsl/layout_units.ts";
import { type Layout, layoutUniforms, read, write } from "../wgsl/operand.ts";

/** What {@linkcode selectionMaskKernel} translates. */
export interface SelectionMaskSpec {
  /** i32 [rows, k]: ascending, then -1. */
  readonly indices: Layout;
  /** i32 [rows, words]: the result. */
  readonly mask: Layout;
}

/**
 * Sets bit s % 32 of mask[t, s / 32] where s is one of indices[t], and clears the others. One
 * invocation per word, which finds its first index by bisection: as unsigned numbers the -1 at the
 * end are the largest.
 */
export function selectionMaskKernel({ indices, mask }: SelectionMaskSpec): Kernel {
  const operands = { indices: read(indices, "u32"), mask: write(mask, "u32") };
  return makeKernel({
    name: "selection_mask",
    shape: `${indices.rows}x${indices.cols} to ${mask.cols}`,
    operands,
    uniforms: {
      rows: mask.rows,
      words: mask.cols,
      k: indices.cols,
      ...layoutUniforms(operands),
    },
    workgroup: 64,
    grid: foldGrid(Math.ceil(mask.rows * mask.cols / 64)),
    // A bisection, the bits of a word, and the first index past them.
    iterations: Math.ceil(Math.log2(indices.cols + 1)) + 33,
    body: `
let index = (wid.x + wid.y * groups.x) * 64u + lane;
let row = index / u.words;
let word = index % u.words;
if (row >= u.rows) { return; }
var low = 0u;
var high = u.k;
while (low < high) {
let middle = (low + high) / 2u;
if (${at("indices", "row", "middle")} < word * 32u) { low = middle + 1u; } else { high = middle; }
}
var bits = 0u;
for (var i = low; i < u.k; i++) {
let s = ${at("indices", "row", "i")};
if (s / 32u != word) { break; }
bits |= 1u << (s % 32u);
}
${at("mask", "row", "word")} = bits;`,
  });
}

/** y = a | b, word by word. */
export function maskUnionKernel({ a, b, y }: { a: Layout; b: Layout; y: Layout }): Kernel {
  const over = spread(y.rows, y.cols);
  const operands = { a: read(a, "i32"), b: read(b, "i32"), y: write(y, "i32") };
  return makeKernel({
    name: "mask_union",
    shape: `${y.rows}x${y.cols}`,
    operands,
    uniforms: { ...over.uniforms, ...layoutUniforms(operands) },
    workgroup: over.workgroup,
    grid: over.grid,
    body: `${over.prelude}
  ${at("y", "row", "col")} = ${at("a", "row", "col")} | ${at("b", "row", "col")};`,
  });
}
