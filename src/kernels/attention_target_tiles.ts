/**
 * The indexer's teacher on GPUs: a tile of scores of one head at a time, from queries and keys in
 * workgroup memory; what the heads sum to stays in registers.
 *
 * @module
 */
import { columnRuns, headColumns, type HeadDims, spanLoaders } from "./attention_access.ts";
import type { TargetCode } from "./attention_target.ts";
import { productStep, range, unrolled } from "./attention_tile_steps.ts";
import { placeOf } from "./lane_order.ts";
import { firstThatFits, odd, type WorkgroupRoom } from "./tile_choice.ts";

/** A tile has `lanesY * rows` queries and `4 * lanesX` keys. */
export interface TargetTile {
  /** Invocations along the keys; each has four of them. */
  readonly lanesX: number;
  /** Invocations along the queries. */
  readonly lanesY: number;
  /** Queries per invocation. */
  readonly rows: number;
  /** `vec4` columns of a head in workgroup memory at a time; odd rows of them avoid conflicts. */
  readonly chunk: number;
}

/** In order of preference; `tests/kernels/indexer_bench.ts` times them. */
export const TARGET_TILES: readonly TargetTile[] = [
  { lanesX: 16, lanesY: 16, rows: 4, chunk: 8 },
  { lanesX: 8, lanesY: 8, rows: 4, chunk: 8 },
];

/** The first of some tiles that the device has room for, or null. */
export function chooseTargetTile(room: WorkgroupRoom, tiles = TARGET_TILES): TargetTile | null {
  const needs = ({ lanesX, lanesY, rows, chunk }: TargetTile) => ({
    bytes: 16 * (lanesY * rows + 4 * lanesX) * odd(chunk),
    threads: lanesX * lanesY,
  });
  return firstThatFits(tiles, needs, room);
}

/** Code of {@linkcode TargetCode}. */
export function targetTiles(dims: HeadDims, tile: TargetTile, aligned: boolean): TargetCode {
  const { lanesX, lanesY } = tile;
  const threads = lanesX * lanesY;
  const tileRows = lanesY * tile.rows;
  const tileCols = 4 * lanesX;
  const rows = range(tile.rows);
  const pairs = rows.flatMap((i) => range(4).map((j) => `${i}_${j}`));
  const width = headColumns("q", dims);
  const products: string[] = [];
  for (let from = 0; from < width; from += tile.chunk) {
    const columns = Math.min(tile.chunk, width - from);
    const common = { columns, from, threads, dims, aligned };
    products.push(
      "workgroupBarrier();",
      ...loadTokens({ ...common, side: "row_side", tensor: "q", rows: tileRows }),
      ...loadTokens({ ...common, side: "col_side", tensor: "k", rows: tileCols }),
      "workgroupBarrier();",
      ...unrolled(
        columns,
        8,
        (c) => productStep("s", { rows: tile.rows, cols: 4 }, "col_side", c, 0),
      ),
    );
  }
  const { x, y } = placeOf(lanesX, lanesY);
  const body = [
    `let x = ${x};`,
    `let y = ${y};`,
    ...range(4).map((j) => `let col${j} = x + ${j * lanesX}u;`),
    ...rows.flatMap((i) => [
      `let row${i} = y + ${i * lanesY}u;`,
      `let lse_at${i} = u.lse_offset + (q_row + min(first_query + row${i}, u.queries - 1u)) * u.lse_stride;`,
    ]),
    ...pairs.map((ij) => `var p${ij} = 0.0;`),
    "if (visible) {",
    "for (var head = 0u; head < u.heads; head++) {",
    ...pairs.map((ij) => `var s${ij} = 0.0;`),
    ...products,
    ...rows.flatMap((i) => [
      `let lse${i} = lse[lse_at${i} + head] * ${Math.LOG2E};`,
      ...range(4).map((j) => `p${i}_${j} += exp2(fma(s${i}_${j}, u.scale_log2, -lse${i}));`),
    ]),
    "}",
    "}",
    ...rows.flatMap((i) =>
      range(4).map((j) => `store(first_query + row${i}, first_key + col${j}, p${i}_${j}, q_row);`)
    ),
  ];
  const side = (name: string, count: number) =>
    `var<workgroup> ${name}: array<array<vec4f, ${odd(tile.chunk)}>, ${count}>;`;
  return {
    declarations: [
      ...(aligned ? [spanLoaders("q", dims), spanLoaders("k", dims)] : []),
      side("row_side", tileRows),
      side("col_side", tileCols),
    ].join("\n"),
    body: body.join("\n"),
    workgroup: threads,
    tileRows,
    tileCols,
  };
}

/** Reads columns `from …` of queries or keys of a head; past the end are zeros. */
function loadTokens(
  { side, tensor, rows, columns, from, threads, dims, aligned }: {
    side: string;
    tensor: "q" | "k";
    rows: number;
    columns: number;
    from: number;
    threads: number;
    dims: HeadDims;
    aligned: boolean;
  },
): string[] {
  const [first, limit] = tensor === "q" ? ["first_query", "u.queries"] : ["first_key", "u.keys"];
  const lines: string[] = [];
  for (const run of columnRuns(tensor, dims, aligned, from, columns)) {
    const count = rows * run.columns;
    for (let done = 0; done < count; done += threads) {
      const guard = done + threads > count ? `if (lane < ${count - done}u) ` : "";
      lines.push(`${guard}{
let i = lane + ${done}u;
let c = i % ${run.columns}u;
let token = ${first} + i / ${run.columns}u;
var value = vec4f();
if (token < ${limit}) {
value = ${run.load}(${tensor}_row + token, head, c + ${run.from - run.origin}u);
}
${side}[i / ${run.columns}u][c + ${run.from - from}u] = value;
}`);
    }
  }
  return lines;
}
