/**
 * The matrix product on GPUs, tile by tile.
 *
 * @module
 */
import { foldGrid, isVec4, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { rounds } from "../wgsl/loops.ts";
import { type Layout } from "../wgsl/operand.ts";
import { isVec4Sink, type Product, productBase, store } from "./product.ts";
import {
  colOf,
  lanePlace,
  rowOf,
  type Source,
  sumsOf,
  type Tile,
  tileArrays,
  tileLoop,
  tileThreads,
} from "./tile_loop.ts";

/** The kernel of a product, cut up as `t` says. */
export function tiledProduct(p: Product, t: Tile): Kernel {
  const whole = p.k % t.depth === 0;
  const a = source("a", p.a, p.form !== "tn", "firstRow", whole);
  const b = source("b", p.b, p.form === "nt", "firstCol", whole);
  const vec = isVec4Sink(p);
  const [x, y] = foldGrid(Math.ceil(p.m / t.rows) * Math.ceil(p.n / t.cols));
  return makeKernel({
    ...productBase(p),
    workgroup: tileThreads(t),
    grid: [x, y, Math.ceil(p.k / p.chunk)],
    iterations: rounds(Math.min(p.k, p.chunk), t.depth),
    declarations: tileArrays(t),
    body: `
let tilesN = (u.n + ${t.cols - 1}u) / ${t.cols}u;
let tile = wid.x + wid.y * groups.x;
if (tile >= tilesN * ((u.m + ${t.rows - 1}u) / ${t.rows}u)) { return; }
let firstRow = tile / tilesN * ${t.rows}u;
let firstCol = tile % tilesN * ${t.cols}u;
${lanePlace(t)}
let end = min(u.k, (wid.z + 1u) * u.chunk);
${sumsOf(t)}
${tileLoop(t, { a, b }, "wid.z * u.chunk", "end")}
${stores(p, t, vec)}`,
  });
}

/**
 * A matrix as an operand. Lines past the last read other memory, and are not stored in the end. Steps
 * past `end`, where k is not `whole` tiles, are replaced: they add 0 * -0 to the sums, which changes no
 * bit, not even of a sum that is -0. Tiles of different depths add different numbers of them.
 */
function source(
  name: "a" | "b",
  m: Layout,
  alongK: boolean,
  first: string,
  whole: boolean,
): Source {
  const zero = name === "a" ? "0.0" : "-0.0";
  return {
    alongK,
    before(id, line, step) {
      const start = `u.${name}_offset + ${
        alongK ? `(${first} + ${line})` : step
      } * u.${name}_stride`;
      return [`let ${id}At = ${start} + ${alongK ? step : `${first} + ${line}`};`];
    },
    read(id) {
      const index = alongK ? `${id}At + k` : `${id}At + k * u.${name}_stride`;
      if (isVec4(m)) return `${name}[(${index}) / 4u]`;
      return `vec4f(${[0, 1, 2, 3].map((e) => `${name}[${index} + ${e}u]`).join(", ")})`;
    },
    finish(id, step) {
      if (whole) return id;
      const inside = alongK && !isVec4(m)
        ? `vec4u(k + ${step}) + vec4u(0u, 1u, 2u, 3u) < vec4u(end)`
        : `k + ${step} < end`;
      return `select(vec4f(${zero}), ${id}, ${inside})`;
    },
  };
}

/** Writes the sums of the rows and columns that exist. */
function stores(p: Product, t: Tile, vec: boolean): string {
  const lines: string[] = [];
  for (let q = 0; q < t.threadCols / 4; q++) {
    lines.push(`let col${q} = firstCol + ${colOf(t, q)};`);
    for (let i = 0; i < t.threadRows; i++) {
      const row = `firstRow + ${rowOf(t, i)}`;
      lines.push(`if (${row} < u.m) {`);
      for (let e = 0; e < (vec ? 1 : 4); e++) {
        const col = `col${q} + ${e}u`;
        const sum = vec ? `s${i}_${q}` : `s${i}_${q}.${"xyzw"[e]}`;
        lines.push(`if (${col} < u.n) { ${store(p, row, col, sum, vec)} }`);
      }
      lines.push("}");
    }
  }
  return lines.join("\n");
}
