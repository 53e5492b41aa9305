/**
 * The global norm of a flat range, in two stages of fixed order.
 *
 * @module
 */
import { type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { at, sumOfUnit, widthOf } from "../wgsl/layout_units.ts";
import { rounds } from "../wgsl/loops.ts";
import { type Layout, layoutUniforms, read, unitType, write } from "../wgsl/operand.ts";
import { plus, rowGroups } from "../wgsl/rows.ts";

/** Good number of partial sums for `count` elements. Does not depend on the adapter. */
export function sumOfSquaresBlocks(count: number): number {
  return Math.max(1, Math.min(1024, Math.ceil(count / 4096)));
}

/**
 * partials[b] = Σ x² over the b-th of equal runs of x. x [1, n] with n up to 2^30, partials [1, b]
 * (see {@linkcode sumOfSquaresBlocks}; several ranges may fill parts of one row of partials).
 */
export function sumOfSquares({ x, partials }: { x: Layout; partials: Layout }): Kernel {
  const width = widthOf(x);
  const group = rowGroups(1, 1024, false, 1);
  const blocks = partials.cols;
  const units = x.cols / width;
  const block = Math.ceil(units / blocks);
  const operands = {
    x: read(x, width, { ...x, stride: x.cols }),
    partials: write(partials),
  };
  return makeKernel({
    name: "sum_of_squares",
    shape: `${x.cols}`,
    operands,
    uniforms: {
      units,
      block,
      ...layoutUniforms(operands),
    },
    workgroup: group.workgroup,
    grid: [blocks, 1, 1],
    iterations: rounds(block, group.workgroup),
    declarations: group.reduce("total", "f32", plus),
    body: `
  let begin = wid.x * u.block;
  let end = min(begin + u.block, u.units);
  var sum = ${unitType(width)}(0.0);
  for (var i = begin + lane; i < end; i += ${group.workgroup}u) {
    let v = x[u.x_offset + i];
    sum += v * v;
  }
  let all = total(lane, ${sumOfUnit(width, "sum")});
  if (lane == 0u) { ${at("partials", "0u", "wid.x")} = all; }`,
    flops: 2 * x.cols,
  });
}

/** norm = sqrt(Σ partials). partials [1, b], norm [1, 1]. */
export function normOfPartials({ partials, norm }: { partials: Layout; norm: Layout }): Kernel {
  const group = rowGroups(1, 1024, false, 1);
  const operands = { partials: read(partials), norm: write(norm) };
  return makeKernel({
    name: "norm_of_partials",
    shape: `${partials.cols}`,
    operands,
    uniforms: { rows: 1, cols: partials.cols, ...layoutUniforms(operands) },
    workgroup: group.workgroup,
    grid: group.grid,
    iterations: rounds(partials.cols, group.lanes),
    declarations: group.reduce("total", "f32", plus),
    body: `${group.prelude}
  var sum = 0.0;
  for (var i = sub; i < n; i += ${group.lanes}u) { sum += ${at("partials", "0u", "i")}; }
  sum = total(lane, sum);
  if (lane == 0u) { norm[u.norm_offset] = sqrt(sum); }`,
    flops: partials.cols,
  });
}
