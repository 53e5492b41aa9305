/**
 * The indexer's teacher in registers: for software adapters, and for devices without room for a
 * tile.
 *
 * @module
 */
import { headColumns, type HeadDims } from "./attention_access.ts";
import type { TargetCode } from "./attention_target.ts";
import { range, unrolled } from "./attention_tile_steps.ts";
import { at } from "./units.ts";

/** Queries, and keys per lane, of an invocation. */
const ROWS = 4;
const COLS = 4;

/** Code of {@linkcode TargetCode} for workgroups of `lanes` invocations. */
export function targetRows(dims: HeadDims, lanes: number): TargetCode {
  const rows = range(ROWS);
  const cols = range(COLS);
  const pairs = rows.flatMap((i) => cols.map((j) => `${i}_${j}`));
  const product = (c: string) => [
    ...rows.map((i) => `let a${i} = load_q(q_row + row${i}, head, ${c});`),
    ...cols.map((j) => `let b${j} = load_k(k_row + key${j}, head, ${c});`),
    ...rows.flatMap((i) => cols.map((j) => `s${i}_${j} += dot(a${i}, b${j});`)),
  ];
  const body = [
    // Rows and keys past the end repeat the last one, and are not stored.
    ...rows.map((i) => `let row${i} = min(first_query + ${i}u, u.queries - 1u);`),
    ...cols.flatMap((j) => [
      `let col${j} = first_key + lane + ${lanes * j}u;`,
      `let key${j} = min(col${j}, u.keys - 1u);`,
    ]),
    ...pairs.map((ij) => `var p${ij} = 0.0;`),
    "if (visible) {",
    "for (var head = 0u; head < u.heads; head++) {",
    ...pairs.map((ij) => `var s${ij} = 0.0;`),
    ...unrolled(headColumns("q", dims), 8, product),
    ...rows.flatMap((i) => [
      `let lse${i} = ${at("lse", `(q_row + row${i})`, "head")} * ${Math.LOG2E};`,
      ...cols.map((j) => `p${i}_${j} += exp2(fma(s${i}_${j}, u.scale_log2, -lse${i}));`),
    ]),
    "}",
    "}",
    ...rows.flatMap((i) =>
      cols.map((j) => `store(first_query + ${i}u, col${j}, p${i}_${j}, q_row);`)
    ),
  ];
  return {
    declarations: "",
    body: body.join("\n"),
    workgroup: lanes,
    tileRows: ROWS,
    tileCols: lanes * COLS,
  };
}
