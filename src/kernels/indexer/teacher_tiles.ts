/**
 * The indexer's teacher on GPUs: scores of one head after the other along the loop of
 * `product/tile_loop.ts`; what their weights sum to stays in registers.
 *
 * @module
 */
import { type HeadDims, spanLoaders } from "../attention/heads.ts";
import type { TargetCode } from "./teacher_code.ts";
import { headAlongK, headSteps } from "../attention/head_sources.ts";
import { range } from "../wgsl/kernel.ts";
import { at } from "../wgsl/layout_units.ts";
import {
  colOf,
  lanePlace,
  rowOf,
  sumsOf,
  type Tile,
  tileArrays,
  tileLoop,
  tileThreads,
} from "../product/tile_loop.ts";

/**
 * The tiles in order of preference; the first that fits the device is taken.
 * `tests/kernels/indexer_bench.ts` times them and others.
 */
export const TARGET_TILES: readonly Tile[] = [
  { rows: 64, cols: 64, depth: 32, threadRows: 8, threadCols: 4 },
  { rows: 64, cols: 64, depth: 16, threadRows: 8, threadCols: 4 },
];

/** Code of {@linkcode TargetCode}. */
export function targetTiles(dims: HeadDims, tile: Tile, aligned: boolean): TargetCode {
  const steps = headSteps("q", dims, tile);
  const head = `(k / ${steps}u)`;
  const sources = {
    a: headAlongK("q", dims, aligned, tile, {
      row: (line) => `q_row + min(first_query + ${line}, u.queries - 1u)`,
      head,
    }),
    b: headAlongK("k", dims, aligned, tile, {
      row: (line) => `k_row + min(first_key + ${line}, u.keys - 1u)`,
      head,
    }),
  };
  const rows = range(tile.threadRows);
  const fours = range(tile.threadCols / 4);
  const addHead = [
    `if (k % ${steps}u == 0u) {`,
    ...rows.flatMap((i) => [
      `let log${i} = ${at("lse", `lse_row${i}`, `k / ${steps}u - 1u`)} * ${Math.LOG2E};`,
      ...fours.flatMap((q) => [
        `p${i}_${q} += exp2(fma(s${i}_${q}, vec4f(u.scale_log2), vec4f(-log${i})));`,
        `s${i}_${q} = vec4f();`,
      ]),
    ]),
    "}",
  ];
  const body = [
    lanePlace(tile),
    ...rows.flatMap((i) => [
      `let row${i} = first_query + ${rowOf(tile, i)};`,
      `let lse_row${i} = q_row + min(row${i}, u.queries - 1u);`,
    ]),
    sumsOf(tile, "p"),
    "if (visible) {",
    sumsOf(tile, "s"),
    tileLoop(tile, sources, "0u", `u.heads * ${steps}u`, { afterTile: addHead.join("\n") }),
    "}",
    ...rows.flatMap((i) =>
      fours.map((q) => `store_four(row${i}, first_key + ${colOf(tile, q)}, p${i}_${q}, q_row);`)
    ),
  ];
  return {
    declarations: [
      ...(aligned ? [spanLoaders("q", dims), spanLoaders("k", dims)] : []),
      tileArrays(tile),
    ].join("\n"),
    body: body.join("\n"),
    workgroup: tileThreads(tile),
    tileRows: tile.rows,
    tileCols: tile.cols,
    iterations: dims.heads * steps / tile.depth,
  };
}
