/**
 * Products of matrices with one vector: what a linear layer is where there is a single token. They
 * read every weight once, so they are bound by memory and want many rows under way, not tiles.
 *
 * @module
 */
import { addend } from "./product.ts";
import type { Capabilities } from "../wgsl/device.ts";
import { bytesOf, foldGrid, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { at, sumOfUnit, widthOf } from "../wgsl/layout_units.ts";
import { rounds } from "../wgsl/loops.ts";
import {
  type Layout,
  layoutUniforms,
  read,
  unitType,
  update,
  type Width,
  write,
} from "../wgsl/operand.ts";
import { plus, rowGroups } from "../wgsl/rows.ts";
import type { Sink } from "../wgsl/sink.ts";
import { subgroupLanes } from "./subgroup.ts";

/** What {@linkcode vectorProduct} multiplies. */
export interface VectorProductSpec {
  /** [1, heads · k]. */
  readonly a: Layout;
  /** [heads · rows of a head, k]. */
  readonly b: Layout;
  /** [1, heads · n], and what is added. */
  readonly c: Sink;
  /** Heads, each with its part of a, its rows of b and its part of c; default 1. */
  readonly heads?: number;
  /** The first of the n rows of a head that are used, default 0. */
  readonly firstRow?: number;
  /** Decides how the sums are made. */
  readonly capabilities: Capabilities;
}

/**
 * c = a · bᵀ, head by head: c[h, i] = Σ_j b[h, firstRow + i, j] · a[h, j].
 */
export function vectorProduct(spec: VectorProductSpec): Kernel {
  const { a, b, heads = 1, firstRow = 0, capabilities: { software, subgroups } } = spec;
  const { into: c, add } = spec.c;
  const width = widthOf(a, b);
  const type = unitType(width);
  const d = addend(spec.c);
  const operands = {
    a: read(a, width),
    b: read(b, width),
    c: (add === c ? update : write)(c),
    ...d ? { d: read(d) } : {},
  };
  const target = at("c", "0u", "row");
  const added = d ? at("d", "0u", "row") : add ? target : "0.0";
  // Lanes can only share a part of `a` that is the same for all their rows.
  const lanes = software && heads === 1 ? subgroupLanes(subgroups) : null;
  const sum = lanes
    ? sharedSum(c.cols, b.cols / width, lanes, width)
    : ownSum(c.cols, b.cols / width, software);
  return makeKernel({
    name: "vector_product",
    shape: `${heads > 1 ? `${heads}x` : ""}${c.cols / heads}x${b.cols}`,
    operands,
    uniforms: {
      rows: c.cols,
      cols: b.cols / width,
      of_head: c.cols / heads,
      b_of_head: b.rows / heads,
      first_row: firstRow,
      ...layoutUniforms(operands),
    },
    workgroup: sum.workgroup,
    grid: sum.grid,
    iterations: sum.iterations,
    declarations: sum.declarations,
    body: `${sum.rows}
  let head = row / u.of_head;
  let b_row = head * u.b_of_head + u.first_row + row % u.of_head;
  var sum = ${type}(0.0);
  ${sum.loop}
  let product = total(lane, ${sumOfUnit(width, "sum")});
  if (stores) { ${target} = product + ${added}; }`,
    flops: 2 * c.cols * b.cols,
    bytes: bytesOf(a, c, ...(d ? [d] : [])) + 4 * c.cols * b.cols,
  });
}

/** How a kernel's invocations sum up the rows. */
interface Summation {
  readonly workgroup: number;
  readonly grid: [number, number, number];
  /** Iterations of an invocation. */
  readonly iterations: number;
  /** WGSL of `total`: the sum over what shares a row. */
  readonly declarations: string;
  /** WGSL that declares `row`, one that exists, and `stores`: whether its product is to be stored. */
  readonly rows: string;
  /** WGSL that adds up `sum`. */
  readonly loop: string;
}

/** Every lane of a row reads its part of it and of `a`. */
function ownSum(rows: number, units: number, software: boolean): Summation {
  const groups = rowGroups(rows, units, software, 1);
  return {
    workgroup: groups.workgroup,
    grid: groups.grid,
    iterations: groups.rounds,
    declarations: groups.reduce("total", "f32", plus),
    rows: `${groups.prelude}
  let stores = live && sub == 0u;`,
    loop: `for (var i = sub; i < n; i += ${groups.lanes}u) {
    sum += ${at("b", "b_row", "i")} * ${at("a", "0u", "head * u.cols + i")};
  }`,
  };
}

/**
 * On software adapters, where loads are dear: a lane for each row, and of `a` each lane of a subgroup
 * reads another part and hands it round.
 */
function sharedSum(rows: number, units: number, lanes: number, width: Width): Summation {
  const zero = `${unitType(width)}(0.0)`;
  const steps = Array.from({ length: lanes }, (_, e) => {
    const weight = at("b", "b_row", `min(i + ${e}u, u.cols - 1u)`);
    return `sum += ${weight} * subgroupBroadcast(part, ${e}u);`;
  });
  return {
    workgroup: lanes,
    grid: foldGrid(Math.ceil(rows / lanes)),
    iterations: rounds(units, lanes),
    declarations: "fn total(lane: u32, value: f32) -> f32 { return value; }",
    rows: `let place = (wid.x + wid.y * groups.x) * ${lanes}u + lane;
  let stores = place < u.rows;
  let row = min(place, u.rows - 1u);`,
    loop: `for (var i = 0u; i < u.cols; i += ${lanes}u) {
    let value = ${at("a", "0u", "min(i + lane, u.cols - 1u)")};
    let part = select(${zero}, value, i + lane < u.cols);
    ${steps.join("\n    ")}
  }`,
  };
}
