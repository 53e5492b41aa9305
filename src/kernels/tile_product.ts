/**
 * The inner part of kernels for GPUs that are products of matrices: tiles of both operands in
 * workgroup memory, a block of sums in the registers of each invocation, the next tiles fetched
 * into registers meanwhile. Where the operands come from and what becomes of the sums is up to the
 * kernel.
 *
 * Every invocation reads its lines of a tile from one element of an array of arrays: naga then
 * checks one index outside the loop, and everything inside is at a constant distance from it.
 *
 * @module
 */
import type { Capabilities } from "../ops/op.ts";
import { placeOf } from "./lane_order.ts";

/** How a product is cut up. */
export interface Tile {
  /** Rows of c that a workgroup computes. */
  readonly rows: number;
  /** Columns of c that a workgroup computes. */
  readonly cols: number;
  /** Steps of k in workgroup memory at a time: a multiple of 4. */
  readonly depth: number;
  /** Rows of c that an invocation computes: 4 or a multiple. */
  readonly threadRows: number;
  /** Columns of c that an invocation computes: 4 or a multiple; 8 or more of them side by side. */
  readonly threadCols: number;
}

/** Invocations of a workgroup. */
export function tileThreads(t: Tile): number {
  return (t.rows / t.threadRows) * (t.cols / t.threadCols);
}

/** Whether a device has the workgroup memory and the invocations for a tile. */
export function fitsDevice(
  t: Tile,
  device: Pick<Capabilities, "workgroupBytes" | "maxInvocations">,
): boolean {
  const vec4s = (lines: number, own: number) =>
    lines / own * Math.max(chunkLength(t, own, true), chunkLength(t, own, false));
  const bytes = 16 * (vec4s(t.rows, t.threadRows) + vec4s(t.cols, t.threadCols));
  return bytes <= device.workgroupBytes && tileThreads(t) <= device.maxInvocations;
}

/**
 * The tile of 128 rows for results of some `vec4` columns that has few columns too many, or of 128
 * columns for wider ones.
 */
export function tallTile(columns: number): Tile {
  const threadCols = 4 * Math.min(4, Math.ceil(columns / 8));
  return { rows: 128, cols: 8 * threadCols, depth: 16, threadRows: 8, threadCols };
}

/**
 * Where an operand is read from. A "line" is a row of a or a column of b. The WGSL that it gives is
 * a `vec4f`: four steps of one line, or four lines of one step. `id` is a prefix for names.
 */
export interface Source {
  /** Whether its `vec4`s lie along k. */
  readonly alongK: boolean;
  /**
   * Lengths of parts that are read in different ways, so that no read has to tell them apart: of k,
   * each a multiple of the tile's depth, if `vec4`s lie along it (all of them again and again, if k is
   * longer), else of the lines, each such that {@linkcode dividesLines}. Default: one part.
   */
  readonly parts?: readonly number[];
  /**
   * Lines before the loop. `line` and `step` are WGSL of the first line and step, within the tile;
   * `part` is the part of the lines.
   */
  before(id: string, line: string, step: string, part: number): string[];
  /**
   * The `vec4f` at step `k` + `step`, in a part of k or of the lines. It should only read: what was
   * computed with it here would wait for it, while products of the tiles before are still to be done.
   */
  read(id: string, step: string, part: number): string;
  /** Further lines that read, into variables of `before`. */
  readMore?(id: string, step: string): string[];
  /** What is put into the tile of the value `id` that was read at `k` + `step`. Default: that value. */
  finish?(id: string, step: string): string;
}

/** Whether the invocations of a tile share out the reads of so many lines evenly. */
export function dividesLines(t: Tile, lines: number): boolean {
  return lines * t.depth / 4 % tileThreads(t) === 0;
}

/** Both operands of a product. */
export interface Sources {
  readonly a: Source;
  readonly b: Source;
}

/**
 * `threadRow` and `threadCol`, the place of an invocation in its tile: 32 neighbours compute a block
 * of 4 by 8 parts, for few, wide reads of the tiles.
 */
export function lanePlace(t: Tile): string {
  const across = t.cols / t.threadCols / 8;
  const { x, y } = placeOf(8, 4);
  return `let threadRow = ${y} % 4u + lane / ${32 * across}u * 4u;
let threadCol = ${x} + lane / 32u % ${across}u * 8u;`;
}

/** Declares the sums of an invocation, all 0. */
export function sumsOf(t: Tile, sum = "s"): string {
  const lines: string[] = [];
  for (let i = 0; i < t.threadRows; i++) {
    for (let q = 0; q < t.threadCols / 4; q++) lines.push(`var ${sum}${i}_${q} = vec4f();`);
  }
  return lines.join("\n");
}

/** WGSL of the row of sum `i` within the tile. */
export function rowOf(t: Tile, i: number): string {
  return `${(i >> 2) * (t.rows / (t.threadRows / 4)) + i % 4}u + threadRow * 4u`;
}

/** WGSL of the first of the four columns of the sums `q` within the tile. */
export function colOf(t: Tile, q: number): string {
  return `${q * (t.cols / (t.threadCols / 4))}u + threadCol * 4u`;
}

/** Declares the tiles `aTile` and `bTile` of workgroup memory. */
export function tileArrays(t: Tile, { a, b }: Sources): string {
  const tileArray = (name: Name, { alongK }: Source, lines: number, own: number) => {
    const chunk = `array<vec4f, ${chunkLength(t, own, alongK)}>`;
    return `var<workgroup> ${name}Tile: array<${chunk}, ${lines / own}>;`;
  };
  return `${tileArray("a", a, t.rows, t.threadRows)}
${tileArray("b", b, t.cols, t.threadCols)}`;
}

/**
 * WGSL of the loop over k, in a scope of its own: adds to the sums of {@linkcode sumsOf}. In scope must
 * be {@linkcode lanePlace}, and `begin` and `end`, WGSL of the range of k; `begin` is a multiple of the
 * depth. `afterTile` is WGSL after the products of each tile, of which `k` is then the end.
 */
export function tileLoop(
  t: Tile,
  sources: Sources,
  begin: string,
  end: string,
  { sum = "s", afterTile = "" }: { sum?: string; afterTile?: string } = {},
): string {
  const a = moves("a", sources.a, t, t.rows, t.threadRows);
  const b = moves("b", sources.b, t, t.cols, t.threadCols);
  const both = (step: keyof Moves) => [...a[step], ...b[step]].join("\n");
  return `{
${both("before")}
var k = ${begin};
${both("fetch")}
while (k < ${end}) {
workgroupBarrier();
${both("put")}
workgroupBarrier();
k += ${t.depth}u;
if (k < ${end}) {
${both("fetch")}
}
${multiply(t, sources, sum)}
${afterTile}
}
}`;
}

type Name = "a" | "b";

/**
 * `vec4`s of the tile that belong to one invocation: its lines one after the other, if `vec4`s lie
 * along k; else for each step of k its lines in fours, and two more after every four steps, which keep
 * writes apart (memory banks). An odd total keeps reads of neighbours apart.
 */
function chunkLength(t: Tile, own: number, alongK: boolean): number {
  return t.depth * own / 4 + (alongK ? 1 : t.depth / 2 - 1);
}

/** Lines of WGSL: before the loop, that read global memory, and that write workgroup memory. */
interface Moves {
  readonly before: string[];
  readonly fetch: string[];
  readonly put: string[];
}

/**
 * WGSL that moves one operand's tile. An invocation owns fours of lines, `lines / (own / 4)` apart.
 */
function moves(name: Name, source: Source, t: Tile, lines: number, own: number): Moves {
  return source.alongK
    ? moveAlongK(name, source, t, lines, own)
    : moveLines(name, source, t, lines, own);
}

/** Reads four steps of a line at a time. */
function moveAlongK(name: Name, source: Source, t: Tile, lines: number, own: number): Moves {
  const { parts = [] } = source;
  const spread = lines / (own / 4);
  const threads = tileThreads(t);
  const quads = t.depth / 4;
  const moves: Moves = { before: [], fetch: [], put: [] };
  const ids = Array.from({ length: lines * quads / threads }, (_, i) => `${name}${i}`);
  ids.forEach((id, i) => {
    const v = `(lane + ${i * threads}u)`;
    moves.before.push(
      `let ${id}Line = ${v} / ${quads}u;`,
      `let ${id}K = ${v} % ${quads}u * 4u;`,
      ...source.before(id, `${id}Line`, `${id}K`, 0),
      `let ${id}Chunk = ${id}Line % ${spread}u / 4u;`,
      `let ${id}Place = (${id}Line / ${spread}u * 4u + ${id}Line % 4u) * ${quads}u + ${id}K / 4u;`,
      `var ${id} = vec4f();`,
    );
    moves.put.push(put(name, source, id));
  });
  const reads = (part: number) => ids.flatMap((id) => fetch(source, id, part));
  const period = parts.reduce((sum, length) => sum + length, 0);
  let end = 0;
  parts.slice(0, -1).forEach((length, part) => {
    end += length;
    moves.fetch.push(`if (k % ${period}u < ${end}u) {`, ...reads(part), "} else {");
  });
  const last = Math.max(parts.length - 1, 0);
  moves.fetch.push(...reads(last), "}".repeat(last));
  return moves;
}

/** Reads four lines of a step at a time. */
function moveLines(name: Name, source: Source, t: Tile, lines: number, own: number): Moves {
  const { parts = [lines] } = source;
  const fours = own / 4;
  const spread = lines / fours;
  const threads = tileThreads(t);
  const moves: Moves = { before: [], fetch: [], put: [] };
  let first = 0;
  parts.forEach((length, part) => {
    const quads = length / 4;
    for (let i = 0; i < quads * t.depth / threads; i++) {
      const id = `${name}${part}_${i}`;
      const v = `(lane + ${i * threads}u)`;
      moves.before.push(
        `let ${id}Quad = ${v} % ${quads}u + ${first / 4}u;`,
        `let ${id}K = ${v} / ${quads}u;`,
        ...source.before(id, `${id}Quad * 4u`, `${id}K`, part),
        `let ${id}Chunk = ${id}Quad % ${spread / 4}u;`,
        `let ${id}Place = ${id}K * ${fours}u + ${id}K / 4u * 2u + ${id}Quad / ${spread / 4}u;`,
        `var ${id} = vec4f();`,
      );
      moves.fetch.push(...fetch(source, id, part));
      moves.put.push(put(name, source, id));
    }
    first += length;
  });
  return moves;
}

function fetch(source: Source, id: string, part: number): string[] {
  const step = `${id}K`;
  return [`${id} = ${source.read(id, step, part)};`, ...source.readMore?.(id, step) ?? []];
}

function put(name: Name, source: Source, id: string): string {
  return `${name}Tile[${id}Chunk][${id}Place] = ${source.finish?.(id, `${id}K`) ?? id};`;
}

/** The products of one tile, unrolled: every sum is a chain of `fma` over rising k. */
function multiply(t: Tile, { a, b }: Sources, sum: string): string {
  const rows = range(t.threadRows);
  const lines: string[] = [];
  for (const quad of range(t.depth / 4)) {
    const multiplyRow = (i: number, e: number) =>
      range(t.threadCols / 4).map((q) => {
        const s = `${sum}${i}_${q}`;
        return `${s} = fma(vec4f(${oneOf("a", a, i, e)}), ${fourOf("b", b, q, e)}, ${s});`;
      });
    lines.push("{", ...readOwn("b", b, t, t.threadCols, quad));
    if (a.alongK) {
      for (const i of rows) {
        lines.push(readLine("a", t, i, quad), ...range(4).flatMap((e) => multiplyRow(i, e)));
      }
    } else {
      lines.push(...readOwn("a", a, t, t.threadRows, quad));
      for (const e of range(4)) lines.push(...rows.flatMap((i) => multiplyRow(i, e)));
    }
    lines.push("}");
  }
  return lines.join("\n");
}

const range = (n: number) => Array.from({ length: n }, (_, i) => i);

/** Which element of its array of tiles is an invocation's. */
const CHUNK = { a: "threadRow", b: "threadCol" };

/** Reads the own lines of an operand at four steps. */
function readOwn(name: Name, { alongK }: Source, t: Tile, own: number, quad: number): string[] {
  if (alongK) return range(own).map((line) => readLine(name, t, line, quad));
  return range(4).flatMap((e) =>
    range(own / 4).map((q) => {
      const place = (4 * quad + e) * own / 4 + 2 * quad + q;
      return `let ${name}Step${e}_${q} = ${name}Tile[${CHUNK[name]}][${place}];`;
    })
  );
}

/** Reads four steps of an own line. */
function readLine(name: Name, t: Tile, line: number, quad: number): string {
  return `let ${name}Line${line} = ${name}Tile[${CHUNK[name]}][${line * t.depth / 4 + quad}];`;
}

/** WGSL of what was read of line `i` at step `e` of four. */
function oneOf(name: Name, { alongK }: Source, i: number, e: number): string {
  return alongK ? `${name}Line${i}.${"xyzw"[e]}` : `${name}Step${e}_${i >> 2}.${"xyzw"[i % 4]}`;
}

/** WGSL of what was read of the lines 4 `q` … 4 `q` + 3 at step `e` of four. */
function fourOf(name: Name, source: Source, q: number, e: number): string {
  if (!source.alongK) return `${name}Step${e}_${q}`;
  return `vec4f(${range(4).map((i) => oneOf(name, source, 4 * q + i, e)).join(", ")})`;
}
