/**
 * Sums over the rows of a matrix, in a fixed order: gradients of weights and biases that all rows
 * share.
 *
 * @module
 */
import { type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { at, widthOf } from "../wgsl/layout_units.ts";
import { MOST_ITERATIONS, rounds } from "../wgsl/loops.ts";
import { type Layout, layoutUniforms, readAll, unitType } from "../wgsl/operand.ts";
import { type Sink, sinkMatrices, sinkParts } from "../wgsl/sink.ts";

/** What {@linkcode columnSum} sums. */
export interface ColumnSumArgs {
  /** Name of the kernel. */
  name: string;
  /** Matrices [rows, cols], in binding order. */
  matrices: Record<string, Layout>;
  /** Matrices [rows, few] read as scalars, bound after `matrices`. */
  scalars?: Record<string, Layout>;
  /** WGSL of one term: a unit made of those at `row` and `col` (see `at` in units.ts). */
  term: string;
  /** [blocks, cols]: row b receives the sum over the b-th of equal runs of rows. */
  out: Sink;
  software: boolean;
}

/** Columns and rows of a block that are summed side by side. */
function sideBySide(software: boolean): [across: number, deep: number] {
  return software ? [32, 1] : [16, 16];
}

/** Good number of partial sums for a column sum over `rows` rows: no loop over them is too long. */
export function columnBlocks(rows: number, software: boolean): number {
  const [, deep] = sideBySide(software);
  const least = rounds(rows, MOST_ITERATIONS * deep);
  return Math.max(least, Math.min(Math.ceil(rows / 128), software ? 8 : 128));
}

/**
 * out[b, c] = Σ of `term` over the rows r of block b. With few rows one block is the whole sum;
 * else sum the blocks in a second call: {@linkcode sumOfBlocks}.
 */
export function columnSum(args: ColumnSumArgs): Kernel {
  const { matrices, scalars = {}, out, software } = args;
  const first = Object.values(matrices)[0];
  const width = widthOf(...Object.values(matrices), ...sinkMatrices(out));
  const type = unitType(width);
  const units = first.cols / width;
  const blocks = out.into.rows;
  const [across, deep] = sideBySide(software);
  const block = Math.ceil(first.rows / blocks);
  const sink = sinkParts("out", out, width);
  const operands = {
    ...readAll(matrices, width),
    ...readAll(scalars),
    ...sink.operands,
  };
  const others = Array.from(
    { length: deep - 1 },
    (_, i) => ` + parts[lid.x + ${(i + 1) * across}u]`,
  );
  const store = sink.store("wid.y", "col", deep === 1 ? "sum" : `(parts[lid.x]${others.join("")})`);
  return makeKernel({
    name: args.name,
    shape: `${first.rows}x${first.cols}`,
    operands,
    uniforms: { rows: first.rows, cols: units, block, ...layoutUniforms(operands) },
    workgroup: [across, deep],
    grid: [Math.ceil(units / across), blocks, 1],
    iterations: rounds(block, deep),
    declarations: deep === 1 ? "" : `var<workgroup> parts: array<${type}, ${across * deep}>;`,
    body: `
  let col = wid.x * ${across}u + lid.x;
  let begin = wid.y * u.block;
  let end = select(begin, min(begin + u.block, u.rows), col < u.cols);
  var sum = ${type}(0.0);
  for (var row = begin + lid.y; row < end; row += ${deep}u) { sum += ${args.term}; }
  ${deep === 1 ? "" : "parts[lane] = sum;\n  workgroupBarrier();"}
  if (lid.y == 0u && col < u.cols) { ${store} }`,
    flops: 2 * first.rows * first.cols,
  });
}

/** out[0, c] = Σ_b blocks[b, c]: the second stage of a column sum. */
export function sumOfBlocks(blocks: Layout, out: Sink, software: boolean): Kernel {
  const term = at("x", "row", "col");
  return columnSum({ name: "sum_of_blocks", matrices: { x: blocks }, term, out, software });
}
