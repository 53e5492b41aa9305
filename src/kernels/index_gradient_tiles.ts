/**
 * Gradients of the lightning indexer on GPUs: a workgroup recomputes a tile of products of one
 * head, hands their gradients on through workgroup memory, and sums in registers.
 *
 * @module
 */
import { shareOut, type Shares } from "./attention_tile_plan.ts";
import { productStep, range, sumStep, unrolled } from "./attention_tile_steps.ts";
import type { GradientCode, IndexGradientSpec } from "./index_gradient.ts";
import { firstThatFits, odd, type WorkgroupRoom } from "./tile_choice.ts";
import { at } from "./units.ts";

/** A tile has `lanesY * rows` rows and `lanesX * cols` columns. */
export interface IndexTile {
  /** Invocations along the columns. */
  readonly lanesX: number;
  /** Invocations along the rows. */
  readonly lanesY: number;
  /** Rows per invocation. */
  readonly rows: number;
  /** Columns per invocation, which hands on four of them at a time. */
  readonly cols: 4 | 8;
  /** Most steps of an inner loop that are written out. */
  readonly unroll: number;
}

/** In order of preference; `tests/kernels/indexer_bench.ts` times them. */
export const INDEX_TILES: readonly IndexTile[] = [
  { lanesX: 8, lanesY: 16, rows: 4, cols: 8, unroll: 2 },
  { lanesX: 8, lanesY: 16, rows: 4, cols: 4, unroll: 8 },
  { lanesX: 8, lanesY: 8, rows: 4, cols: 4, unroll: 8 },
  { lanesX: 4, lanesY: 8, rows: 4, cols: 4, unroll: 4 },
  { lanesX: 4, lanesY: 8, rows: 2, cols: 4, unroll: 4 },
];

interface Sizes {
  readonly threads: number;
  readonly tileRows: number;
  readonly tileCols: number;
  /** `vec4`s from row to row in workgroup memory; odd, so that rows lie in different banks. */
  readonly pitch: number;
  readonly weightPitch: number;
}

function sizesOf(dim: number, { lanesX, lanesY, rows, cols }: IndexTile): Sizes {
  return {
    threads: lanesX * lanesY,
    tileRows: lanesY * rows,
    tileCols: cols * lanesX,
    pitch: odd(Math.ceil(dim / 4)),
    weightPitch: odd(lanesX),
  };
}

/** The first of some tiles for heads of this width that the device has room for, or null. */
export function chooseIndexTile(
  dim: number,
  room: WorkgroupRoom,
  tiles = INDEX_TILES,
): IndexTile | null {
  const needs = (tile: IndexTile) => {
    const { threads, tileRows, tileCols, pitch, weightPitch } = sizesOf(dim, tile);
    return { bytes: 16 * ((tileRows + tileCols) * pitch + tileRows * weightPitch), threads };
  };
  return firstThatFits(tiles, needs, room);
}

/** Code of a pass: `"q"` has queries as rows and keys as columns, `"k"` the other way round. */
export function gradientTiles(
  pass: "q" | "k",
  { dim, activation }: IndexGradientSpec,
  tile: IndexTile,
): GradientCode {
  const sizes = sizesOf(dim, tile);
  const { threads, tileRows, tileCols, pitch, weightPitch } = sizes;
  const columns = Math.ceil(dim / 4);
  const byQuery = pass === "q";
  const shares = shareOut(`grad_${pass}`, columns, tileRows, threads);
  const side = (name: string, rows: number, length: number) =>
    `var<workgroup> ${name}: array<array<vec4f, ${length}>, ${rows}>;`;
  const product = (c: string) => productStep("a", tile, "col_side", c, 0);
  const sums = range(tile.cols / 4).flatMap((group) => {
    const first = group * 4 * tile.lanesX;
    const weighted = { weights: "weights", from: 0, side: "col_side", first, lanesX: tile.lanesX };
    return [
      ...(group > 0 ? ["workgroupBarrier();"] : []),
      ...range(tile.rows).map((i) => `weights[row${i}][x] = da${i}_${group};`),
      "workgroupBarrier();",
      ...unrolled(tile.lanesX, tile.unroll, (g) => sumStep(shares, weighted, g)),
    ];
  });
  const body = [
    ...prologue(byQuery, tile, sizes, shares, columns),
    ...load("row_side", byQuery, "first", tileRows, columns, threads),
    ...(byQuery
      ? [
        `let end = min(u.keys, u.first_row + min(first + ${tileRows}u, u.queries));`,
        `for (var start = 0u; start < end; start += ${tileCols}u) {`,
      ]
      : [
        "let ahead = select(0u, first - u.first_row, first > u.first_row);",
        `for (var start = ahead / ${tileCols}u * ${tileCols}u; start < u.queries; start += ${tileCols}u) {`,
      ]),
    "workgroupBarrier();",
    ...load("col_side", !byQuery, "start", tileCols, columns, threads),
    "workgroupBarrier();",
    ...range(tile.rows).flatMap((i) => range(tile.cols).map((j) => `var a${i}_${j} = 0.0;`)),
    ...unrolled(columns, tile.unroll, product),
    ...productGradients(byQuery, activation, tile),
    ...sums,
    "}",
    ...results(pass, shares, columns),
    ...(byQuery ? weightGradients(tile) : []),
  ];
  return {
    declarations: [
      side("row_side", tileRows, pitch),
      side("col_side", tileCols, pitch),
      side("weights", tileRows, weightPitch),
    ].join("\n"),
    body: body.join("\n"),
    workgroup: threads,
    tileRows,
  };
}

/** Which rows and columns an invocation has, and what it keeps over the columns. */
function prologue(
  byQuery: boolean,
  tile: IndexTile,
  { tileRows }: Sizes,
  s: Shares,
  columns: number,
): string[] {
  const limit = byQuery ? "u.queries" : "u.keys";
  return [
    `let first = tile * ${tileRows}u;`,
    `let x = lane % ${tile.lanesX}u;`,
    `let y = lane / ${tile.lanesX}u;`,
    ...range(tile.cols).map((j) => `let col${j} = x + ${j * tile.lanesX}u;`),
    ...range(tile.rows).flatMap((i) => [
      `let row${i} = y + ${i * tile.lanesY}u;`,
      // Rows past the end repeat the last one, and are not stored.
      `let t${i} = min(first + row${i}, ${limit} - 1u);`,
      ...(byQuery
        ? [`let w${i} = ${at("w", `(q_row + t${i})`, "head")};`, `var dw${i} = 0.0;`]
        : []),
    ]),
    `let ${s.into}_x = lane % ${s.lanesX}u;`,
    `let ${s.into}_y = lane / ${s.lanesX}u;`,
    ...range(s.rows).flatMap((i) => [
      `let ${s.into}_row${i} = ${s.into}_y + ${i * s.lanesY}u;`,
      ...range(s.cols).map((c) => `var ${s.into}_${i}_${c} = vec4f();`),
    ]),
    // Lanes without a column repeat the last one, and don't store it.
    ...range(s.cols).map((c) =>
      `let ${s.into}_col${c} = min(${s.into}_x + ${c * s.lanesX}u, ${columns - 1}u);`
    ),
  ];
}

/** Reads `rows` queries of the head, or keys, into workgroup memory; past the end are zeros. */
function load(
  side: string,
  queries: boolean,
  start: string,
  rows: number,
  columns: number,
  threads: number,
): string[] {
  const count = rows * columns;
  const read = queries ? "load_q(q_row + token, head, c)" : "load_k(k_row + token, 0u, c)";
  const lines: string[] = [];
  for (let done = 0; done < count; done += threads) {
    const guard = done + threads > count ? `if (lane < ${count - done}u) ` : "";
    lines.push(`${guard}{
let i = lane + ${done}u;
let c = i % ${columns}u;
let token = ${start} + i / ${columns}u;
var value = vec4f();
if (token < ${queries ? "u.queries" : "u.keys"}) { value = ${read}; }
${side}[i / ${columns}u][c] = value;
}`);
  }
  return lines;
}

/** `da`, the gradients of the products. */
function productGradients(
  byQuery: boolean,
  activation: "relu" | "none",
  { rows, cols }: IndexTile,
): string[] {
  const lines: string[] = [];
  for (const j of range(cols)) {
    lines.push(`let c${j} = start + col${j};`);
    if (!byQuery) {
      lines.push(`let w${j} = ${at("w", `(q_row + min(c${j}, u.queries - 1u))`, "head")};`);
    }
  }
  for (const i of range(rows)) {
    for (const j of range(cols)) {
      const seen = byQuery
        ? `c${j} <= u.first_row + t${i}`
        : `c${j} < u.queries && t${i} <= u.first_row + c${j}`;
      const g = byQuery
        ? at("grad_scores", `(q_row + t${i})`, `c${j}`)
        : at("grad_scores", `(q_row + c${j})`, `t${i}`);
      lines.push(`var g${i}_${j} = 0.0;`, `if (${seen}) { g${i}_${j} = ${g}; }`);
    }
    for (const group of range(cols / 4)) {
      const four = (name: string) =>
        `vec4f(${range(4).map((e) => `${name}_${4 * group + e}`).join(", ")})`;
      const [va, vg] = [`va${i}_${group}`, `vg${i}_${group}`];
      const weightsOf = range(4).map((e) => `w${4 * group + e}`).join(", ");
      const w = byQuery ? `vec4f(w${i})` : `vec4f(${weightsOf})`;
      const passes = activation === "relu" ? `select(vec4f(), ${w}, ${va} > vec4f())` : w;
      lines.push(
        `let ${va} = ${four(`a${i}`)};`,
        `let ${vg} = ${four(`g${i}`)};`,
        `let da${i}_${group} = ${vg} * ${passes};`,
      );
      if (byQuery) {
        const act = activation === "relu" ? `max(${va}, vec4f())` : va;
        lines.push(`dw${i} += dot(${vg}, ${act});`);
      }
    }
  }
  return lines;
}

/** Stores the gradients of the rows. */
function results(pass: "q" | "k", { into, lanesX, rows, cols }: Shares, columns: number): string[] {
  const limit = pass === "q" ? "u.queries" : "u.keys";
  return range(rows).flatMap((i) => [
    `if (first + ${into}_row${i} < ${limit}) {`,
    ...range(cols).map((c) => {
      const column = `${into}_x + ${c * lanesX}u`;
      const store =
        `store_${into}(${pass}_row + first + ${into}_row${i}, head, ${column}, ${into}_${i}_${c} * u.scale);`;
      return (c + 1) * lanesX <= columns ? store : `if (${column} < ${columns}u) { ${store} }`;
    }),
    "}",
  ]);
}

/** Sums the shares of the lanes in the gradient of the head weights, and stores it. */
function weightGradients({ lanesX, rows }: IndexTile): string[] {
  return [
    "workgroupBarrier();",
    ...range(rows).map((i) => `weights[row${i}][x].x = dw${i};`),
    "workgroupBarrier();",
    "if (x == 0u) {",
    ...range(rows).map((i) => {
      const sum = range(lanesX).map((n) => `weights[row${i}][${n}].x`).join(" + ");
      const store = `${at("grad_w", `(q_row + t${i})`, "head")} = (${sum}) * u.scale;`;
      return `if (first + row${i} < u.queries) { ${store} }`;
    }),
    "}",
  ];
}
