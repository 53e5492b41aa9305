/**
 * Index scores on GPUs: tiles of queries and keys in workgroup memory as in `tile_product.ts`, with
 * the heads one after the other along the loop. Each invocation keeps two blocks of sums: of the
 * present head, and of the weighted heads.
 *
 * @module
 */
import { activate, type IndexScoresSpec, scoresBase } from "./index_scores_spec.ts";
import { placeOf } from "./lane_order.ts";
import { SIGN_TILE, SIGN_WORDS, tileSigns } from "./index_signs.ts";
import { foldGrid, isVec4, type Kernel, makeKernel } from "./kernel.ts";

/** Queries and keys of a tile. */
const TILE = SIGN_TILE;
/** Channels in workgroup memory at a time. */
const DEPTH = 16;
/** Invocations. Each has 4 neighbouring keys, and queries in two groups of 4: a word of signs. */
const THREADS = SIGN_WORDS;
/** Invocations along the keys, and along the queries. */
const LANES = { k: TILE / 4, q: TILE / 8 };

const range = (n: number) => Array.from({ length: n }, (_, i) => i);

/** The kernel for any device with 128 invocations and 11 KiB of workgroup memory. */
export function tiledScores(spec: IndexScoresSpec): Kernel {
  const { q, k, scores, dim, batch = 1 } = spec;
  const qSide = side("q", isVec4(q) && dim % 4 === 0, 2, dim);
  const kSide = side("k", isVec4(k), 1, dim);
  const vec = isVec4(scores);
  const place = placeOf(LANES.k, LANES.q);
  const across = Math.ceil(scores.cols / TILE);
  const [x, y] = foldGrid(Math.ceil(scores.rows / batch / TILE) * across);
  const blocks = (name: string) => range(8).map((i) => `${name}${i} = vec4f();`);
  return makeKernel({
    ...scoresBase(spec),
    buffers: {
      q: qSide.vec ? "read vec4f" : "read",
      k: kSide.vec ? "read vec4f" : "read",
      w: "read",
      scores: vec ? "read_write vec4f" : "read_write",
      ...spec.signs ? { signs: "read_write u32" as const } : {},
    },
    workgroup: THREADS,
    grid: [x, y, batch],
    declarations: `${qSide.declaration}\n${kSide.declaration}`,
    body: `
let across = (u.cols + ${TILE - 1}u) / ${TILE}u;
let tile = wid.x + wid.y * groups.x;
if (tile >= across * ((u.rows + ${TILE - 1}u) / ${TILE}u)) { return; }
let first_q = tile / across * ${TILE}u;
let first_k = tile % across * ${TILE}u;
let k_lane = ${place.x};
let q_lane = ${place.y};
let q_start = wid.z * u.rows + first_q;
let k_start = wid.z * u.cols + first_k;
${qSide.before}
${kSide.before}
${blocks("var sum").join("\n")}
${blocks("var dots").join("\n")}
let visible = first_k <= u.first_row + min(first_q + ${TILE}u, u.rows) - 1u;
var head = select(u.heads, 0u, visible);
var channel = 0u;
if (visible) {
${qSide.fetch}
${kSide.fetch}
}
while (head < u.heads) {
workgroupBarrier();
${qSide.put}
${kSide.put}
workgroupBarrier();
let present = head;
channel += ${DEPTH}u;
let ends = channel >= u.dim;
if (ends) {
head++;
channel = 0u;
}
if (head < u.heads) {
${qSide.fetch}
${kSide.fetch}
}
${multiply()}
if (ends) {
${spec.signs ? keepSigns() : ""}
${range(8).map((i) => weigh(spec, i)).join("\n")}
}
}
${stores(vec)}`,
  });
}

/** Query `i` of an invocation within the tile. */
function queryOf(i: number): string {
  return `q_lane * 4u + ${(i >> 2) * TILE / 2 + i % 4}u`;
}

/** Stores which products of the present head are above 0. */
function keepSigns(): string {
  const tile = { queryTile: "(tile / across)", keyTile: "tile % across", head: "present" };
  const at = tileSigns("wid.z", tile, { queries: "u.rows", keys: "u.cols", heads: "u.heads" });
  return `{
var bits = vec4u();
${
    range(8).map((i) => `bits |= select(vec4u(), vec4u(${1 << 4 * i >>> 0}u), dots${i} > vec4f());`)
      .join("\n")
  }
signs[${at} + q_lane * ${LANES.k}u + k_lane] = bits.x | (bits.y << 1u) | (bits.z << 2u) | (bits.w << 3u);
}`;
}

/** Adds the present head of query `i` to its sum. */
function weigh(spec: IndexScoresSpec, i: number): string {
  const activated = spec.activation === "relu"
    ? `max(dots${i}, vec4f())`
    : activate(spec, `dots${i}`);
  return `{
let weight = w[u.w_offset + (q_start + ${queryOf(i)}) * u.w_stride + present];
sum${i} = fma(vec4f(weight), ${activated}, sum${i});
dots${i} = vec4f();
}`;
}

/**
 * How one side's tile gets into workgroup memory. It is an array for each lane along that side: for
 * every channel the lane's lines in fours; two more `vec4`s after four channels keep writes apart,
 * an odd length keeps reads of neighbours apart.
 */
function side(name: "q" | "k", vec: boolean, fours: number, dim: number) {
  const lanes = LANES[name];
  const length = DEPTH * fours + DEPTH / 2 - 1;
  const quads = DEPTH / 4;
  const before: string[] = [];
  const fetch: string[] = [];
  const put: string[] = [];
  for (const n of range(TILE * quads / THREADS)) {
    const id = `${name}${n}`;
    before.push(
      `let ${id}_line = (lane + ${n * THREADS}u) / ${quads}u;`,
      `let ${id}_channel = lane % ${quads}u * 4u;`,
      `let ${id}_at = u.${name}_offset + (${name}_start + ${id}_line) * u.${name}_stride + ${id}_channel;`,
      `let ${id}_lane = ${id}_line / 4u % ${lanes}u;`,
      `let ${id}_place = ${id}_channel / 4u * ${4 * fours + 2}u + ${id}_line / ${4 * lanes}u;`,
      `var ${id} = vec4f();`,
    );
    const index = name === "q" ? `${id}_at + head * u.dim + channel` : `${id}_at + channel`;
    // Lines past the last read other memory, and are not stored in the end; so do channels past the
    // last, which are put as zeros: nothing waits here for what is read.
    fetch.push(
      vec
        ? `${id} = ${name}[(${index}) / 4u];`
        : `${id} = vec4f(${range(4).map((e) => `${name}[${index} + ${e}u]`).join(", ")});`,
    );
    if (dim % DEPTH !== 0) {
      const channels = `vec4u(channel + ${id}_channel) + vec4u(0u, 1u, 2u, 3u)`;
      put.push(`${id} = select(vec4f(), ${id}, ${channels} < vec4u(u.dim));`);
    }
    for (const e of range(4)) {
      put.push(
        `${name}_tile[${id}_lane][${id}_place + ${e * fours}u][${id}_line % 4u] = ${id}.${
          "xyzw"[e]
        };`,
      );
    }
  }
  return {
    vec,
    declaration: `var<workgroup> ${name}_tile: array<array<vec4f, ${length}>, ${lanes}>;`,
    before: before.join("\n"),
    fetch: fetch.join("\n"),
    put: put.join("\n"),
  };
}

/** Adds the products of the channels in workgroup memory. */
function multiply(): string {
  const lines: string[] = [];
  for (const c of range(DEPTH)) {
    const skip = 2 * (c >> 2);
    lines.push(
      "{",
      `let a0 = q_tile[q_lane][${2 * c + skip}];`,
      `let a1 = q_tile[q_lane][${2 * c + 1 + skip}];`,
      `let b = k_tile[k_lane][${c + skip}];`,
      ...range(8).map((i) => `dots${i} = fma(vec4f(a${i >> 2}.${"xyzw"[i % 4]}), b, dots${i});`),
      "}",
    );
  }
  return lines.join("\n");
}

/** Writes the scores of the rows and columns that exist, -∞ above the diagonal. */
function stores(vec: boolean): string {
  const lines = ["let col = first_k + k_lane * 4u;"];
  for (const i of range(8)) {
    const value = (e: number) =>
      `select(u.hidden, sum${i}.${"xyzw"[e]} * u.scale, col + ${e}u <= u.first_row + row)`;
    const at = "u.scores_offset + (wid.z * u.rows + row) * u.scores_stride + col";
    lines.push("{", `let row = first_q + ${queryOf(i)};`, "if (row < u.rows) {");
    if (vec) {
      lines.push(
        `if (col < u.cols) { scores[(${at}) / 4u] = vec4f(${range(4).map(value).join(", ")}); }`,
      );
    } else {
      for (const e of range(4)) {
        lines.push(`if (col + ${e}u < u.cols) { scores[${at} + ${e}u] = ${value(e)}; }`);
      }
    }
    lines.push("}", "}");
  }
  return lines.join("\n");
}
