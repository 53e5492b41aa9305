/**
 * Gradients of the lightning indexer on GPUs, as products with the gradient of the scores, of which
 * ReLU lets through what the signs kept by `scores_tiled.ts` say: nothing is computed twice.
 *
 * @module
 */
import type { GradientCode, IndexGradientSpec } from "./gradient_code.ts";
import { SIGN_TILE, signBit, signWord, tileSigns } from "./signs.ts";
import { startsAtVec4 } from "../wgsl/kernel.ts";
import { at } from "../wgsl/layout_units.ts";
import { rounds } from "../wgsl/loops.ts";
import type { Layout } from "../wgsl/operand.ts";
import {
  colOf,
  fitsDevice,
  lanePlace,
  rowOf,
  type Source,
  sumsOf,
  tallTile,
  type Tile,
  tileArrays,
  tileLoop,
  tileThreads,
} from "../product/tile_loop.ts";

/** The tile for heads of this width, or null where the device lacks room or they are over 128 wide. */
export function productTile(
  { indexer: { dim }, capabilities }: Pick<IndexGradientSpec, "indexer" | "capabilities">,
): Tile | null {
  const tile = tallTile(Math.ceil(dim / 4));
  return !capabilities.software && dim <= tile.cols && fitsDevice(tile, capabilities) ? tile : null;
}

/** Code of a pass: `"q"` sums over keys, `"k"` over queries. */
export function gradientProducts(
  pass: "q" | "k",
  spec: IndexGradientSpec,
  tile: Tile,
): GradientCode {
  const { indexer: { dim }, gradScores } = spec;
  const byQuery = pass === "q";
  const columns = Math.ceil(dim / 4);
  // Columns past a head's width are not stored.
  const column = (id: string) => `min(${id}Col, ${columns - 1}u)`;
  const before = (id: string, line: string) => [`let ${id}Col = (${line}) / 4u;`];
  const keys: Source = {
    alongK: false,
    before,
    read: (id, step) => `load_k(k_row + min(k + ${step}, u.keys - 1u), 0u, ${column(id)})`,
  };
  const queryRow = (step: string) => `(q_row + min(k + ${step}, u.queries - 1u))`;
  const weightedQueries: Source = {
    alongK: false,
    before: (id, line) => [...before(id, line), `var ${id}Weight = 0.0;`],
    read: (id, step) => `load_q(${queryRow(step)}, head, ${column(id)})`,
    readMore: (id, step) => [`${id}Weight = ${at("w", queryRow(step), "head")};`],
    finish: (id) => `${id} * ${id}Weight`,
  };
  const sources = { a: gradientSource(spec, byQuery), b: byQuery ? keys : weightedQueries };
  const [begin, end] = byQuery
    ? ["0u", `min(u.keys, u.first_row + min(first + ${tile.rows}u, u.queries))`]
    : [
      `select(0u, first - u.first_row, first > u.first_row) / ${tile.depth}u * ${tile.depth}u`,
      "u.queries",
    ];
  return {
    declarations: `${gradientAt(gradScores)}\n${tileArrays(tile)}`,
    body: `
let first = tile * ${tile.rows}u;
${lanePlace(tile)}
${sumsOf(tile)}
let end = ${end};
${tileLoop(tile, sources, begin, "end")}
${byQuery ? queryStores(tile, columns) : keyStores(tile, columns)}`,
    workgroup: tileThreads(tile),
    tileRows: tile.rows,
    flopsPerPair: 2 * dim,
    iterations: (streamed) => rounds(streamed, tile.depth),
  };
}

/** WGSL `gradient_at(row, key) -> vec4f`: the gradient of the scores of four keys. */
function gradientAt(gradScores: Layout): string {
  const index = "u.grad_scores_offset + row * u.grad_scores_stride + key";
  const value = startsAtVec4(gradScores)
    ? `grad_scores[(${index}) / 4u]`
    : `vec4f(${[0, 1, 2, 3].map((e) => `grad_scores[${index} + ${e}u]`).join(", ")})`;
  return `fn gradient_at(row: u32, key: u32) -> vec4f { return ${value}; }`;
}

/** Gradients of the products but for the heads' weights: of a query's keys, or of a key's queries. */
function gradientSource({ indexer }: IndexGradientSpec, byQuery: boolean): Source {
  const queryOf = (id: string, step: string) =>
    byQuery ? `${id}Query` : `min(k + ${step}, u.queries - 1u)`;
  const keyOf = (id: string, step: string) => byQuery ? `(k + ${step})` : `${id}Key`;
  const inTile = (token: string) => `(${token} % ${SIGN_TILE}u)`;
  const hasSigns = indexer.activation === "relu";
  return {
    alongK: byQuery,
    // Queries past the end repeat the last one; a query's sums there are not stored.
    before: (id, line) => [
      byQuery
        ? `let ${id}Query = min(first + ${line}, u.queries - 1u);`
        : `let ${id}Key = first + ${line};`,
      ...hasSigns ? [`var ${id}Signs = 0u;`] : [],
    ],
    read: (id, step) => `gradient_at(q_row + ${queryOf(id, step)}, ${keyOf(id, step)})`,
    readMore(id, step) {
      if (!hasSigns) return [];
      const [query, key] = [queryOf(id, step), keyOf(id, step)];
      const tile = {
        queryTile: `(${query} / ${SIGN_TILE}u)`,
        keyTile: `${key} / ${SIGN_TILE}u`,
        head: "head",
      };
      const sizes = { queries: "u.queries", keys: "u.keys", heads: "u.heads" };
      const word = `${tileSigns("sequence", tile, sizes)} + ${
        signWord(inTile(query), inTile(key))
      }`;
      return [`${id}Signs = signs[${word}];`];
    },
    finish(id, step) {
      const [query, key] = [queryOf(id, step), keyOf(id, step)];
      const passes = [`((vec4u(${key}) + vec4u(0u, 1u, 2u, 3u)) <= vec4u(u.first_row + ${query}))`];
      if (hasSigns) {
        const bits = `${id}Signs >> (${signBit(inTile(query))})`;
        passes.push(`((vec4u(${bits}) & vec4u(1u, 2u, 4u, 8u)) != vec4u())`);
      }
      if (!byQuery) passes.push(`vec4<bool>(k + ${step} < u.queries)`);
      return `select(vec4f(), ${id}, ${passes.join(" & ")})`;
    },
  };
}

/**
 * Stores the gradients of the queries, and of the heads' weights: a query times its sums. Their parts
 * meet in the memory of the tile of a, which has a chunk for every 8 rows.
 */
function queryStores(t: Tile, columns: number): string {
  const part = (row: string, col: string) =>
    `aTile[${row} / 8u][${row} % 8u * 2u + ${col} / 4u][${col} % 4u]`;
  const lines = ["workgroupBarrier();"];
  for (let i = 0; i < t.threadRows; i++) {
    lines.push(
      "{",
      `let row = ${rowOf(t, i)};`,
      "let t = q_row + min(first + row, u.queries - 1u);",
      `let factor = u.scale * ${at("w", "t", "head")};`,
      "var sum = 0.0;",
    );
    for (let q = 0; q < t.threadCols / 4; q++) {
      const column = `(${colOf(t, q)}) / 4u`;
      lines.push(
        `if (${column} < ${columns}u) {`,
        `sum += dot(load_q(t, head, ${column}), s${i}_${q});`,
        `if (first + row < u.queries) { store_grad_q(t, head, ${column}, factor * s${i}_${q}); }`,
        "}",
      );
    }
    lines.push(`${part("row", "threadCol")} = sum;`, "}");
  }
  lines.push(
    "workgroupBarrier();",
    `if (lane < ${t.rows}u && first + lane < u.queries) {`,
    `let sum = ${[0, 1, 2, 3, 4, 5, 6, 7].map((x) => part("lane", `${x}u`)).join(" + ")};`,
    `${at("grad_w", "(q_row + first + lane)", "head")} = u.scale * sum;`,
    "}",
  );
  return lines.join("\n");
}

function keyStores(t: Tile, columns: number): string {
  const lines: string[] = [];
  for (let i = 0; i < t.threadRows; i++) {
    lines.push("{", `let s = first + ${rowOf(t, i)};`, "if (s < u.keys) {");
    for (let q = 0; q < t.threadCols / 4; q++) {
      const column = `(${colOf(t, q)}) / 4u`;
      lines.push(
        `if (${column} < ${columns}u) { store_grad_k(k_row + s, head, ${column}, u.scale * s${i}_${q}); }`,
      );
    }
    lines.push("}", "}");
  }
  return lines.join("\n");
}
