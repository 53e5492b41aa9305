/**
 * The matrix product on software adapters (lavapipe). One invocation is one SIMD lane there, and a
 * load costs a loop over the lanes, whether or not their addresses agree; workgroup memory costs
 * the same. So each lane loads its own part of a tile, as `vec4`s where it can,
 * `subgroupBroadcast` hands the values round, and the sums stay in registers. On two cores that is
 * twice as fast as loading straight into the register tile of each lane.
 *
 * @module
 */
import { foldGrid, isVec4, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { rounds } from "../wgsl/loops.ts";
import type { Layout } from "../wgsl/operand.ts";
import { isVec4Sink, type Product, productBase, store } from "./product.ts";

/** Rows of a tile. */
const ROWS = 32;
/** Columns of a tile that one lane sums; consecutive, so that a `vec4` holds them. */
const COLS_PER_LANE = 4;
/** Steps of k in one round of the loop: the size of a `vec4`. */
export const DEPTH = 4;

/** The subgroup size that {@linkcode subgroupProduct} can use, or null if it cannot run. */
export function subgroupLanes(subgroups: { min: number; max: number } | null): 4 | 8 | null {
  if (!subgroups || subgroups.min !== subgroups.max) return null;
  return subgroups.min === 4 || subgroups.min === 8 ? subgroups.min : null;
}

/** Rows and columns of c that one workgroup of {@linkcode subgroupProduct} computes. */
export function subgroupTile(lanes: 4 | 8): { rows: number; cols: number } {
  return { rows: ROWS, cols: COLS_PER_LANE * lanes };
}

/** The kernel of a product for subgroups of exactly `lanes` invocations. */
export function subgroupProduct(p: Product, lanes: 4 | 8): Kernel {
  const rowsPerLane = ROWS / lanes;
  const cols = COLS_PER_LANE * lanes;
  const a = loads("a", p.a, p.form !== "tn", "row", rowsPerLane);
  const b = loads("b", p.b, p.form === "nt", "col", COLS_PER_LANE);
  const sums: string[] = [];
  const steps: string[] = [];
  for (let e = 0; e < DEPTH; e++) {
    const columns = [0, 1, 2, 3].map((j) => b.value(j, e));
    steps.push(`let y${e} = vec4f(${columns.join(", ")});`);
  }
  for (let i = 0; i < ROWS; i++) {
    const owner = Math.floor(i / rowsPerLane);
    let sum = `s${i}`;
    sums.push(`var ${sum} = vec4f();`);
    for (let e = 0; e < DEPTH; e++) {
      const x = `subgroupBroadcast(${a.value(i % rowsPerLane, e)}, ${owner}u)`;
      sum = `fma(vec4f(${x}), y${e}, ${sum})`;
    }
    steps.push(`s${i} = ${sum};`);
  }
  const vec = isVec4Sink(p);
  const [x, y] = foldGrid(Math.ceil(p.m / ROWS) * Math.ceil(p.n / cols));
  return makeKernel({
    ...productBase(p),
    workgroup: lanes,
    grid: [x, y, Math.ceil(p.k / p.chunk)],
    iterations: rounds(Math.min(p.k, p.chunk), DEPTH),
    body: `
let tilesN = (u.n + ${cols - 1}u) / ${cols}u;
let tile = wid.x + wid.y * groups.x;
if (tile >= tilesN * ((u.m + ${ROWS - 1}u) / ${ROWS}u)) { return; }
let firstRow = tile / tilesN * ${ROWS}u;
let row = firstRow + lane * ${rowsPerLane}u;
let col = tile % tilesN * ${cols}u + lane * ${COLS_PER_LANE}u;
let end = min(u.k, (wid.z + 1u) * u.chunk);
${a.before}
${b.before}
${sums.join("\n")}
for (var k = wid.z * u.chunk; k < end; k += ${DEPTH}u) {
${a.inLoop}
${b.inLoop}
${steps.join("\n")}
}
${stores(p, vec)}`,
  });
}

/**
 * How a lane gets its `count` consecutive lines (rows of a, columns of b), from `first` on, for the
 * next steps of k. Lines past the last read other memory, and are not stored in the end; steps
 * past the last give 0.
 */
function loads(name: "a" | "b", m: Layout, alongK: boolean, first: "row" | "col", count: number) {
  const vec = isVec4(m);
  const width = vec ? 4 : 1;
  const index = (at: string) => `${name}[${vec ? `(${at}) / 4u` : at}]`;
  const zero = vec ? "vec4f()" : "0.0";
  const before: string[] = [];
  const inLoop: string[] = [];
  const step = (e: number) => e === 0 ? "k" : `(k + ${e}u)`;
  for (let i = 0; i < count; i += alongK ? 1 : width) {
    const line = `(${first} + ${i}u)`;
    const start = alongK ? `${line} * u.${name}_stride` : line;
    before.push(`let ${name}i${i} = u.${name}_offset + ${start};`);
    for (let e = 0; e < DEPTH; e += alongK ? width : 1) {
      const k = alongK ? step(e) : `${step(e)} * u.${name}_stride`;
      const load = index(`${name}i${i} + ${k}`);
      const value = e === 0 ? load : `select(${zero}, ${load}, ${step(e)} < end)`;
      inLoop.push(`let ${name}${i}_${e} = ${value};`);
    }
  }
  const value = (i: number, e: number) => {
    if (!vec) return `${name}${i}_${e}`;
    return alongK ? `${name}${i}_0.${"xyzw"[e]}` : `${name}${i - i % 4}_${e}.${"xyzw"[i % 4]}`;
  };
  return { before: before.join("\n"), inLoop: inLoop.join("\n"), value };
}

/** Writes the sums of the rows and columns that exist. */
function stores(p: Product, vec: boolean): string {
  const lines: string[] = [];
  for (let j = 0; j < COLS_PER_LANE; j += vec ? 4 : 1) {
    lines.push(`if (col + ${j}u < u.n) {`);
    for (let i = 0; i < ROWS; i++) {
      const row = `firstRow + ${i}u`;
      const sum = vec ? `s${i}` : `s${i}.${"xyzw"[j]}`;
      lines.push(`if (${row} < u.m) { ${store(p, row, `col + ${j}u`, sum, vec)} }`);
    }
    lines.push("}");
  }
  return lines.join("\n");
}
