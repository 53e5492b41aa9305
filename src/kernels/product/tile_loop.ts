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
import type { Capabilities } from "../wgsl/device.ts";
import { range } from "../wgsl/kernel.ts";
import { placeOf } from "../wgsl/lane_order.ts";

/**
 * How a product is cut up: a multiple of 4 invocations along the rows and of 8 along the columns, among
 * which reads of both tiles can be shared out evenly ({@linkcode dividesLines}).
 */
export interface Tile {
  /** Rows of c that a workgroup computes. */
  readonly rows: number;
  /** Columns of c that a workgroup computes. */
  readonly cols: number;
  /** Steps of k in workgroup memory at a time: 8, 16 or 32. */
  readonly depth: number;
  /** Rows of c that an invocation computes: 4 or a multiple. */
  readonly threadRows: number;
  /** Columns of c that an invocation computes: 4 or a multiple. */
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
  const vec4s = (lines: number, own: number) => lines / own * chunkLength(t, own);
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
export function tileArrays(t: Tile): string {
  const tileArray = (name: Name, lines: number, own: number) =>
    `var<workgroup> ${name}Tile: array<array<vec4f, ${chunkLength(t, own)}>, ${lines / own}>;`;
  return `${tileArray("a", t.rows, t.threadRows)}
${tileArray("b", t.cols, t.threadCols)}`;
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
${multiply(t, sum)}
${afterTile}
}
}`;
}

type Name = "a" | "b";

/**
 * `vec4`s of the tile that belong to one invocation: for each step of k its lines in fours; two
 * more after every four steps keep writes apart, an odd total keeps reads of neighbours apart
 * (memory banks).
 */
function chunkLength(t: Tile, own: number): number {
  return t.depth * own / 4 + t.depth / 2 - 1;
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
  if (!dividesLines(t, lines)) {
    throw new RangeError(
      `${
        tileThreads(t)
      } invocations cannot share out the reads of ${lines} lines of ${t.depth} steps: ` +
        "take another tile",
    );
  }
  return source.alongK
    ? moveAlongK(name, source, t, lines, own)
    : moveLines(name, source, t, lines, own);
}

/** Reads four steps of a line at a time, and writes them apart. */
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
      `let ${id}Place = ${id}K / 4u * ${own + 2}u + ${id}Line / ${spread}u;`,
      `var ${id} = vec4f();`,
    );
    moves.put.push("{", `let value = ${finished(source, id)};`);
    for (const e of range(4)) {
      const place = `${id}Place + ${e * own / 4}u`;
      moves.put.push(`${name}Tile[${id}Chunk][${place}][${id}Line % 4u] = value.${"xyzw"[e]};`);
    }
    moves.put.push("}");
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

/** Reads four lines of a step at a time, and writes them as they are. */
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
      moves.put.push(`${name}Tile[${id}Chunk][${id}Place] = ${finished(source, id)};`);
    }
    first += length;
  });
  return moves;
}

function fetch(source: Source, id: string, part: number): string[] {
  const step = `${id}K`;
  return [`${id} = ${source.read(id, step, part)};`, ...source.readMore?.(id, step) ?? []];
}

/** WGSL of what is put into the tile. */
function finished(source: Source, id: string): string {
  return source.finish?.(id, `${id}K`) ?? id;
}

/** The products of one tile, unrolled: every sum is a chain of `fma` over rising k. */
function multiply(t: Tile, sum: string): string {
  const lines: string[] = [];
  const read = (name: Name, chunk: string, own: number, k: number) =>
    range(own / 4).map((q) => {
      const place = k * own / 4 + 2 * Math.floor(k / 4) + q;
      return `let ${name}_${q} = ${name}Tile[${chunk}][${place}];`;
    });
  for (const k of range(t.depth)) {
    lines.push("{");
    // Step by step: reads of several in a row take more registers than their order is worth.
    lines.push(...read("a", "threadRow", t.threadRows, k));
    lines.push(...read("b", "threadCol", t.threadCols, k));
    for (const i of range(t.threadRows)) {
      const value = `vec4f(a_${i >> 2}.${"xyzw"[i % 4]})`;
      for (const q of range(t.threadCols / 4)) {
        lines.push(`${sum}${i}_${q} = fma(${value}, b_${q}, ${sum}${i}_${q});`);
      }
    }
    lines.push("}");
  }
  return lines.join("\n");
}
