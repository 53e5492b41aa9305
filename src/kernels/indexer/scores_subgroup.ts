/**
 * Index scores on software adapters, in the way of `product/subgroup.ts`: lanes load different
 * vectors, and hand them round.
 *
 * @module
 */
import { activated } from "./indexer.ts";
import { type IndexScoresSpec, scoresBase } from "./scores_spec.ts";
import { foldGrid, isVec4, type Kernel, makeKernel, range } from "../wgsl/kernel.ts";
import { rounds } from "../wgsl/loops.ts";

/** Queries of a tile. */
const ROWS = 32;
/** Keys of a lane. */
const COLS = 4;
/** Channels of one step. */
const DEPTH = 4;

/** The kernel for subgroups of exactly `lanes` invocations. */
export function subgroupScores(spec: IndexScoresSpec, lanes: 4 | 8): Kernel {
  const { q, k, scores, indexer, batch = 1 } = spec;
  const { heads, dim } = indexer;
  const vecQ = isVec4(q) && dim % 4 === 0;
  const vecOut = isVec4(scores);
  const own = ROWS / lanes;
  const cols = COLS * lanes;
  const tiles = Math.ceil(scores.rows / batch / ROWS) * Math.ceil(scores.cols / cols);
  const [x, y] = foldGrid(tiles);
  const steps: string[] = [];
  for (const i of range(ROWS)) {
    for (const e of range(DEPTH)) {
      steps.push(
        `let x${i}_${e} = subgroupBroadcast(q${i % own}.${"xyzw"[e]}, ${Math.floor(i / own)}u);`,
      );
    }
    for (const j of range(COLS)) {
      const sum = range(DEPTH).reduce(
        (s, e) => `fma(x${i}_${e}, k${j}.${"xyzw"[e]}, ${s})`,
        `s${i}_${j}`,
      );
      steps.push(`s${i}_${j} = ${sum};`);
    }
  }
  const weighed: string[] = [];
  for (const i of range(ROWS)) {
    weighed.push(`let h${i} = subgroupBroadcast(w${i % own}, ${Math.floor(i / own)}u);`);
    for (const j of range(COLS)) {
      weighed.push(`a${i}_${j} = fma(h${i}, ${activated(indexer, `s${i}_${j}`)}, a${i}_${j});`);
    }
  }
  return makeKernel({
    ...scoresBase(spec, vecQ),
    workgroup: lanes,
    grid: [x, y, batch],
    iterations: heads * (1 + rounds(dim, DEPTH)),
    body: `
let tilesN = (u.cols + ${cols - 1}u) / ${cols}u;
let tile = wid.x + wid.y * groups.x;
if (tile >= tilesN * ((u.rows + ${ROWS - 1}u) / ${ROWS}u)) { return; }
let first = tile / tilesN * ${ROWS}u;
let row = wid.z * u.rows + first + lane * ${own}u;
let col = tile % tilesN * ${cols}u + lane * ${COLS}u;
let key = wid.z * u.cols + col;
${range(ROWS).flatMap((i) => range(COLS).map((j) => `var a${i}_${j} = 0.0;`)).join("\n")}
if (tile % tilesN * ${cols}u <= u.first_row + first + ${ROWS - 1}u) {
for (var j = 0u; j < u.heads; j++) {
${range(ROWS).flatMap((i) => range(COLS).map((j) => `var s${i}_${j} = 0.0;`)).join("\n")}
for (var c = 0u; c < u.dim; c += ${DEPTH}u) {
${
      range(own).map((i) => `let q${i} = ${load("q", vecQ, `row + ${i}u`, "j * u.dim + c")};`).join(
        "\n",
      )
    }
${range(COLS).map((i) => `let k${i} = ${load("k", isVec4(k), `key + ${i}u`, "c")};`).join("\n")}
${steps.join("\n")}
}
${range(own).map((i) => `let w${i} = w[u.w_offset + (row + ${i}u) * u.w_stride + j];`).join("\n")}
${weighed.join("\n")}
}
}
${stores(vecOut)}`,
  });
}

/** WGSL of four channels of a line. Lines past the last give anything, channels past it 0. */
function load(name: "q" | "k", vec: boolean, line: string, channel: string): string {
  const index = `u.${name}_offset + (${line}) * u.${name}_stride + ${channel}`;
  if (vec) return `${name}[(${index}) / 4u]`;
  const parts = range(4).map((e) =>
    e === 0 ? `${name}[${index}]` : `select(0.0, ${name}[${index} + ${e}u], c + ${e}u < u.dim)`
  );
  return `vec4f(${parts.join(", ")})`;
}

/** Writes the scores of the rows and columns that exist, -∞ above the diagonal. */
function stores(vec: boolean): string {
  const lines: string[] = [];
  const value = (i: number, j: number) =>
    `select(u.hidden, a${i}_${j} * u.scale, col + ${j}u <= u.first_row + first + ${i}u)`;
  for (let j = 0; j < COLS; j += vec ? 4 : 1) {
    lines.push(`if (col + ${j}u < u.cols) {`);
    for (const i of range(ROWS)) {
      const at =
        `u.scores_offset + (wid.z * u.rows + first + ${i}u) * u.scores_stride + col + ${j}u`;
      const store = vec
        ? `scores[(${at}) / 4u] = vec4f(${range(4).map((e) => value(i, e)).join(", ")});`
        : `scores[${at}] = ${value(i, j)};`;
      lines.push(`if (first + ${i}u < u.rows) { ${store} }`);
    }
    lines.push("}");
  }
  return lines.join("\n");
}
