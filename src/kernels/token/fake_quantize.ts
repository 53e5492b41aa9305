/**
 * Rounding to what few bits can say, a scale for each group of a row.
 *
 * @module
 */
import { Float, foldGrid, type Kernel, makeKernel, workgroupReduce } from "../wgsl/kernel.ts";
import { at } from "../wgsl/layout_units.ts";
import { rounds } from "../wgsl/loops.ts";
import { type Layout, layoutUniforms, read, write } from "../wgsl/operand.ts";

/**
 * What a number may be: one of the whole numbers −largest … largest, or, with `mantissa`, a float
 * with so many bits after its first and no exponent below `lowest`; both times a group's scale.
 */
export interface Grid {
  /** The largest, to which the scale takes the largest of a group. */
  readonly largest: number;
  /** Of floats. */
  readonly float?: { readonly mantissa: number; readonly lowest: number };
}

/** Most columns of a group: they are in a workgroup's memory. */
export const MOST_OF_GROUP = 2048;

const LANES = 64;

/** What {@linkcode fakeQuantizeKernel} rounds. */
export interface FakeQuantizeSpec {
  /** [rows, groups · n]. */
  readonly x: Layout;
  /** Of the same shape. */
  readonly y: Layout;
  /** Groups of a row. */
  readonly groups: number;
  readonly grid: Grid;
  /** Columns of a block that is turned by a Hadamard matrix before, and back after: a power of two. */
  readonly block: number;
}

/** y = scale · round(x / scale), where scale = max |x| / largest over a group. */
export function fakeQuantizeKernel({ x, y, groups, grid, block }: FakeQuantizeSpec): Kernel {
  const cols = x.cols / groups;
  const operands = { x: read(x), y: write(y) };
  const butterflies = Math.log2(block);
  return makeKernel({
    name: `fake_quantize_${grid.float ? "float" : "int"}`,
    shape: `${x.rows}x${groups}x${cols}`,
    operands,
    uniforms: {
      rows: x.rows * groups,
      parts: groups,
      cols,
      block,
      largest: new Float(grid.largest),
      ...layoutUniforms(operands),
    },
    workgroup: LANES,
    grid: foldGrid(x.rows * groups),
    iterations: 4 * rounds(cols, LANES) + 2 * butterflies * (1 + rounds(cols / 2, LANES)),
    declarations: `
var<workgroup> values: array<f32, ${2 ** Math.ceil(Math.log2(cols))}>;
${workgroupReduce("largest", LANES, (a, b) => `max(${a}, ${b})`)}
// The Hadamard matrix of each block, but for its factor.
fn turn(lane: u32) {
  for (var half = 1u; half < u.block; half *= 2u) {
    workgroupBarrier();
    for (var pair = lane; pair < u.cols / 2u; pair += ${LANES}u) {
      let i = (pair / half) * 2u * half + pair % half;
      let a = values[i];
      let b = values[i + half];
      values[i] = a + b;
      values[i + half] = a - b;
    }
  }
  workgroupBarrier();
}`,
    body: `
  let part = wid.x + wid.y * groups.x;
  if (part >= u.rows) { return; }
  let row = part / u.parts;
  let first = (part % u.parts) * u.cols;
  for (var i = lane; i < u.cols; i += ${LANES}u) { values[i] = ${at("x", "row", "first + i")}; }
  turn(lane);
  var most = 0.0;
  for (var i = lane; i < u.cols; i += ${LANES}u) { most = max(most, abs(values[i])); }
  let high = largest_reduce(lane, most);
  for (var i = lane; i < u.cols; i += ${LANES}u) {
    // The least normal number keeps what is all zeros.
    let v = values[i] / max(high, 0x1p-126) * u.largest;
    ${rounding(grid)}
  }
  turn(lane);
  for (var i = lane; i < u.cols; i += ${LANES}u) {
    ${at("y", "row", "first + i")} = values[i] / f32(u.block);
  }`,
    flops: x.rows * x.cols * (6 + 2 * butterflies),
  });
}

/** WGSL that rounds `v`, exactly: powers of two are made of their bits. */
function rounding({ float }: Grid): string {
  const scaled = "* (high / u.largest);";
  if (!float) return `values[i] = round(v) ${scaled}`;
  return `let exponent = i32((bitcast<u32>(v) >> 23u) & 0xffu) - 127;
    let unit = bitcast<f32>(u32(max(exponent, ${float.lowest}) - ${float.mantissa} + 127) << 23u);
    values[i] = round(v / unit) * unit ${scaled}`;
}
