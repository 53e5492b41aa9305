/**
 * Index scores on GPUs: products of queries and keys of one head after the other along the loop of
 * `product/tile_loop.ts`. Each invocation keeps two blocks of sums: of the present head, and of the
 * weighted heads.
 *
 * @module
 */
import type { Indexer } from "./indexer.ts";
import { type IndexScoresSpec, scoresBase } from "./scores_spec.ts";
import { SIGN_TILE, SIGN_WORDS, tileSigns } from "./signs.ts";
import { foldGrid, isVec4, type Kernel, makeKernel, range } from "../wgsl/kernel.ts";
import {
  lanePlace,
  rowOf,
  type Source,
  sumsOf,
  type Tile,
  tileArrays,
  tileLoop,
  tileThreads,
} from "../product/tile_loop.ts";

/** An invocation has 4 neighbouring keys, and queries in two groups of 4: a word of signs. */
const TILE: Tile = { rows: SIGN_TILE, cols: SIGN_TILE, depth: 16, threadRows: 8, threadCols: 4 };

const ROWS = range(TILE.threadRows);

/** The kernel for any device with 128 invocations and 11 KiB of workgroup memory. */
export function tiledScores(spec: IndexScoresSpec): Kernel {
  const { q, k, scores, indexer, batch = 1 } = spec;
  const { heads, dim } = indexer;
  const steps = Math.ceil(dim / TILE.depth) * TILE.depth;
  const vec4s = { q: isVec4(q) && dim % 4 === 0, k: isVec4(k) };
  const sources = { a: source("q", dim, steps), b: source("k", dim, steps) };
  const vec = isVec4(scores);
  const across = Math.ceil(scores.cols / SIGN_TILE);
  const [x, y] = foldGrid(Math.ceil(scores.rows / batch / SIGN_TILE) * across);
  const addHead = `if (k % ${steps}u == 0u) {
let head = k / ${steps}u - 1u;
${spec.signs ? keepSigns() : ""}
${ROWS.map((i) => weigh(indexer, i)).join("\n")}
}`;
  return makeKernel({
    ...scoresBase(spec, vec4s.q),
    workgroup: tileThreads(TILE),
    grid: [x, y, batch],
    iterations: heads * steps / TILE.depth,
    declarations: `${reader("q", vec4s.q)}
${reader("k", vec4s.k)}
${tileArrays(TILE)}`,
    body: `
let across = (u.cols + ${SIGN_TILE - 1}u) / ${SIGN_TILE}u;
let tile = wid.x + wid.y * groups.x;
if (tile >= across * ((u.rows + ${SIGN_TILE - 1}u) / ${SIGN_TILE}u)) { return; }
let first_q = tile / across * ${SIGN_TILE}u;
let first_k = tile % across * ${SIGN_TILE}u;
let q_start = wid.z * u.rows + first_q;
let k_start = wid.z * u.cols + first_k;
${lanePlace(TILE)}
${sumsOf(TILE, "sum")}
${sumsOf(TILE, "dots")}
let visible = first_k <= u.first_row + min(first_q + ${SIGN_TILE}u, u.rows) - 1u;
let end = select(0u, ${heads * steps}u, visible);
${tileLoop(TILE, sources, "0u", "end", { sum: "dots", afterTile: addHead })}
${stores(vec)}`,
  });
}

/** `read_q` or `read_k`: four numbers from an element on. */
function reader(name: "q" | "k", vec: boolean): string {
  const four = vec
    ? `${name}[at / 4u]`
    : `vec4f(${[0, 1, 2, 3].map((e) => `${name}[at + ${e}u]`).join(", ")})`;
  return `fn read_${name}(at: u32) -> vec4f { return ${four}; }`;
}

/**
 * Queries or keys as an operand, a head in every `steps` steps of k. Lines past the last read other
 * memory, and are not stored in the end; so do channels past the last, which become zeros.
 */
function source(name: "q" | "k", dim: number, steps: number): Source {
  const whole = dim === steps;
  const channel = `k % ${steps}u`;
  const ofHead = name === "q" ? `k / ${steps}u * ${dim}u + ` : "";
  return {
    alongK: true,
    before: (id, line, step) => [
      `let ${id}At = u.${name}_offset + (${name}_start + ${line}) * u.${name}_stride + ${step};`,
    ],
    read: (id) => `read_${name}(${id}At + ${ofHead}${channel})`,
    finish(id, step) {
      if (whole) return id;
      const channels = `vec4u(${channel} + ${step}) + vec4u(0u, 1u, 2u, 3u)`;
      return `select(vec4f(), ${id}, ${channels} < vec4u(${dim}u))`;
    },
  };
}

/** Stores which products of the present head are above 0. */
function keepSigns(): string {
  const tile = { queryTile: "(tile / across)", keyTile: "tile % across", head: "head" };
  const first = tileSigns("wid.z", tile, { queries: "u.rows", keys: "u.cols", heads: "u.heads" });
  const bits = ROWS.map((i) =>
    `bits |= select(vec4u(), vec4u(${1 << 4 * i >>> 0}u), dots${i}_0 > vec4f());`
  );
  return `{
var bits = vec4u();
${bits.join("\n")}
signs[${first} + threadRow * ${SIGN_WORDS / 8}u + threadCol] =
  bits.x | (bits.y << 1u) | (bits.z << 2u) | (bits.w << 3u);
}`;
}

/** Adds the present head of query `i` to its sum. */
function weigh({ activation }: Indexer, i: number): string {
  const dots = `dots${i}_0`;
  const activated = activation === "relu" ? `max(${dots}, vec4f())` : dots;
  return `{
let weight = w[u.w_offset + (q_start + ${rowOf(TILE, i)}) * u.w_stride + head];
sum${i}_0 = fma(vec4f(weight), ${activated}, sum${i}_0);
${dots} = vec4f();
}`;
}

/** Writes the scores of the rows and columns that exist, -∞ above the diagonal. */
function stores(vec: boolean): string {
  const lines = ["let col = first_k + threadCol * 4u;"];
  for (const i of ROWS) {
    const value = (e: number) =>
      `select(u.hidden, sum${i}_0.${"xyzw"[e]} * u.scale, col + ${e}u <= u.first_row + row)`;
    const at = "u.scores_offset + (wid.z * u.rows + row) * u.scores_stride + col";
    const values = [0, 1, 2, 3].map(value);
    lines.push("{", `let row = first_q + ${rowOf(TILE, i)};`, "if (row < u.rows) {");
    if (vec) {
      lines.push(`if (col < u.cols) { scores[(${at}) / 4u] = vec4f(${values.join(", ")}); }`);
    } else {
      values.forEach((value, e) =>
        lines.push(`if (col + ${e}u < u.cols) { scores[${at} + ${e}u] = ${value}; }`)
      );
    }
    lines.push("}", "}");
  }
  return lines.join("\n");
}
