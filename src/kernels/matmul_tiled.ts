/**
 * The matrix product on GPUs: tiles of both operands in workgroup memory, a block of sums in the
 * registers of each invocation, the next tiles fetched into registers meanwhile.
 *
 * Every invocation reads its lines of a tile from one element of an array of arrays: naga then
 * checks one index outside the loop, and everything inside is at a constant distance from it.
 *
 * @module
 */
import type { Capabilities } from "../ops/op.ts";
import { foldGrid, isVec4, type Kernel, type Layout, makeKernel } from "./kernel.ts";
import { addend, type Product, productCosts, productUniforms, store } from "./matmul_product.ts";

/** How a product is cut up. */
export interface Tile {
  /** Rows of c that a workgroup computes. */
  readonly rows: number;
  /** Columns of c that a workgroup computes. */
  readonly cols: number;
  /** Steps of k in workgroup memory at a time: 8, 16 or 32. */
  readonly depth: number;
  /** Rows of c that an invocation computes: 4 or a multiple. */
  readonly threadRows: number;
  /** Columns of c that an invocation computes: 4 or a multiple; 8 or more of them side by side. */
  readonly threadCols: number;
  /** 2: the next tiles are written while the present ones are read, at twice the memory. */
  readonly buffers: 1 | 2;
}

/** Invocations of a workgroup. */
export function tileThreads(t: Tile): number {
  return (t.rows / t.threadRows) * (t.cols / t.threadCols);
}

/** Whether a device has the workgroup memory and the invocations for a tile. */
export function fitsDevice(t: Tile, capabilities: Capabilities): boolean {
  const lines = (total: number, own: number) => (total / own) * chunkLength(t, own);
  const bytes = 16 * t.buffers * (lines(t.rows, t.threadRows) + lines(t.cols, t.threadCols));
  return bytes <= capabilities.workgroupBytes && tileThreads(t) <= capabilities.maxInvocations;
}

/** The kernel of a product, cut up as `t` says. */
export function tiledProduct(p: Product, t: Tile): Kernel {
  const threadsN = t.cols / t.threadCols;
  const a = operand("a", p.a, p.form !== "tn", t, t.rows, t.threadRows);
  const b = operand("b", p.b, p.form === "nt", t, t.cols, t.threadCols);
  const d = addend(p);
  const vec = isVec4(p.c) && (!d || isVec4(d));
  const sums: string[] = [];
  for (let i = 0; i < t.threadRows; i++) {
    for (let q = 0; q < t.threadCols / 4; q++) sums.push(`var s${i}_${q} = vec4f();`);
  }
  const [x, y] = foldGrid(Math.ceil(p.m / t.rows) * Math.ceil(p.n / t.cols));
  return makeKernel({
    ...productCosts(p),
    buffers: {
      a: isVec4(p.a) ? "read vec4f" : "read",
      b: isVec4(p.b) ? "read vec4f" : "read",
      c: vec ? "read_write vec4f" : "read_write",
      ...(d ? { d: vec ? "read vec4f" as const : "read" as const } : {}),
    },
    uniforms: productUniforms(p),
    workgroup: tileThreads(t),
    grid: [x, y, Math.ceil(p.k / p.chunk)],
    declarations: `${a.declaration}\n${b.declaration}`,
    // 32 neighbouring invocations compute a block of 4 by 8 parts: few, wide reads of the tiles.
    body: `
let tilesN = (u.n + ${t.cols - 1}u) / ${t.cols}u;
let tile = wid.x + wid.y * groups.x;
if (tile >= tilesN * ((u.m + ${t.rows - 1}u) / ${t.rows}u)) { return; }
let firstRow = tile / tilesN * ${t.rows}u;
let firstCol = tile % tilesN * ${t.cols}u;
let block = lane / 32u;
let threadRow = lane / 8u % 4u + block / ${threadsN / 8}u * 4u;
let threadCol = lane % 8u + block % ${threadsN / 8}u * 8u;
let end = min(u.k, (wid.z + 1u) * u.chunk);
${a.before.replaceAll("FIRST", "firstRow")}
${b.before.replaceAll("FIRST", "firstCol")}
${sums.join("\n")}
var k = wid.z * u.chunk;
${loop(t, `${a.fetch}\n${b.fetch}`, `${a.put}\n${b.put}`, multiply(t))}
${stores(p, t, vec)}`,
  });
}

/** The loop over k. `fetch` reads global memory, `put` writes workgroup memory. */
function loop(t: Tile, fetch: string, put: string, compute: string): string {
  const next = `k += ${t.depth}u;\nif (k < end) {\n${fetch}\n}`;
  if (t.buffers === 1) {
    return `let aChunk = threadRow;
let bChunk = threadCol;
let aPut = 0u;
let bPut = 0u;
${fetch}
while (k < end) {
workgroupBarrier();
${put}
workgroupBarrier();
${next}
${compute}
}`;
  }
  const threadsM = t.rows / t.threadRows;
  const threadsN = t.cols / t.threadCols;
  return `var aPut = 0u;
var bPut = 0u;
${fetch}
${put}
workgroupBarrier();
while (k < end) {
let aChunk = aPut + threadRow;
let bChunk = bPut + threadCol;
${next}
${compute}
aPut = ${threadsM}u - aPut;
bPut = ${threadsN}u - bPut;
${put}
workgroupBarrier();
}`;
}

/**
 * `vec4`s of the tile that belong to one invocation: for each step of k its lines in fours; two
 * more after every four steps keep writes apart, an odd total keeps reads of neighbours apart
 * (memory banks).
 */
function chunkLength(t: Tile, own: number): number {
  return t.depth * own / 4 + t.depth / 2 - 1;
}

/**
 * WGSL that moves one operand's tile. A "line" is a row of a or a column of b; an invocation owns
 * fours of lines, `lines / (own / 4)` apart.
 */
function operand(
  name: "a" | "b",
  m: Layout,
  alongK: boolean,
  t: Tile,
  lines: number,
  own: number,
) {
  const vec = isVec4(m);
  const zero = name === "a" ? "0.0" : "-0.0";
  const fours = own / 4;
  const spread = lines / fours;
  const threads = tileThreads(t);
  const before: string[] = [];
  const fetch: string[] = [];
  const put: string[] = [];
  for (let i = 0; i < lines * t.depth / 4 / threads; i++) {
    const v = `(lane + ${i * threads}u)`;
    const id = `${name}${i}`;
    // Lines past the last read other memory, and are not stored in the end. Steps past `end` add
    // 0 * -0 to the sums, which changes no bit, not even of a sum that is -0: tiles of different
    // depths add different numbers of them.
    const load = (index: string, inside: (e: number) => string) => {
      if (vec) return `select(vec4f(${zero}), ${name}[(${index}) / 4u], ${inside(0)})`;
      const parts = [0, 1, 2, 3].map((e) =>
        `select(${zero}, ${name}[${index} + ${e}u], ${inside(alongK ? e : 0)})`
      );
      return `vec4f(${parts.join(", ")})`;
    };
    if (alongK) {
      const quads = t.depth / 4;
      before.push(
        `let ${id}Line = ${v} / ${quads}u;`,
        `let ${id}K = ${v} % ${quads}u * 4u;`,
        `let ${id}At = u.${name}_offset + (FIRST + ${id}Line) * u.${name}_stride + ${id}K;`,
        `let ${id}Chunk = ${id}Line % ${spread}u / 4u;`,
        `let ${id}Place = ${id}K / 4u * ${4 * fours + 2}u + ${id}Line / ${spread}u;`,
      );
      fetch.push(`${id} = ${load(`${id}At + k`, (e) => `k + ${id}K + ${e}u < end`)};`);
      for (let e = 0; e < 4; e++) {
        const place = `${id}Place + ${e * fours}u`;
        put.push(
          `${name}Tile[${name}Put + ${id}Chunk][${place}][${id}Line % 4u] = ${id}.${"xyzw"[e]};`,
        );
      }
    } else {
      const quads = lines / 4;
      before.push(
        `let ${id}Quad = ${v} % ${quads}u;`,
        `let ${id}K = ${v} / ${quads}u;`,
        `let ${id}At = u.${name}_offset + FIRST + ${id}Quad * 4u + ${id}K * u.${name}_stride;`,
        `let ${id}Chunk = ${id}Quad % ${spread / 4}u;`,
        `let ${id}Place = ${id}K * ${fours}u + ${id}K / 4u * 2u + ${id}Quad / ${spread / 4}u;`,
      );
      fetch.push(`${id} = ${load(`${id}At + k * u.${name}_stride`, () => `k + ${id}K < end`)};`);
      put.push(`${name}Tile[${name}Put + ${id}Chunk][${id}Place] = ${id};`);
    }
    before.push(`var ${id} = vec4f();`);
  }
  const chunks = t.buffers * lines / own;
  return {
    declaration: `var<workgroup> ${name}Tile: array<array<vec4f, ${
      chunkLength(t, own)
    }>, ${chunks}>;`,
    before: before.join("\n"),
    fetch: fetch.join("\n"),
    put: put.join("\n"),
  };
}

/** The products of one tile, unrolled. */
function multiply(t: Tile): string {
  const lines: string[] = [];
  const read = (name: "a" | "b", own: number, k: number) => {
    for (let q = 0; q < own / 4; q++) {
      const place = k * own / 4 + q + 2 * Math.floor(k / 4);
      lines.push(`let ${name}_${q} = ${name}Tile[${name}Chunk][${place}];`);
    }
  };
  for (let k = 0; k < t.depth; k++) {
    lines.push("{");
    read("a", t.threadRows, k);
    read("b", t.threadCols, k);
    for (let i = 0; i < t.threadRows; i++) {
      const value = `vec4f(a_${i >> 2}.${"xyzw"[i % 4]})`;
      for (let q = 0; q < t.threadCols / 4; q++) {
        lines.push(`s${i}_${q} = fma(${value}, b_${q}, s${i}_${q});`);
      }
    }
    lines.push("}");
  }
  return lines.join("\n");
}

/** Writes the sums of the rows and columns that exist. */
function stores(p: Product, t: Tile, vec: boolean): string {
  const lines: string[] = [];
  const rowSpread = t.rows / (t.threadRows / 4);
  const colSpread = t.cols / (t.threadCols / 4);
  for (let q = 0; q < t.threadCols / 4; q++) {
    lines.push(`let col${q} = firstCol + ${q * colSpread}u + threadCol * 4u;`);
    for (let i = 0; i < t.threadRows; i++) {
      const row = `firstRow + ${(i >> 2) * rowSpread + i % 4}u + threadRow * 4u`;
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
