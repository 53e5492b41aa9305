/**
 * The indexer's teacher in registers: for software adapters, and for devices without room for a
 * tile. Where all invocations of a workgroup are one subgroup, each loads its part of the queries
 * and hands it round.
 *
 * @module
 */
import { headColumns, type HeadDims } from "../attention/heads.ts";
import type { TargetCode } from "./teacher_code.ts";
import { unrolled, unrolledRounds } from "../attention/tile_steps.ts";
import { range } from "../wgsl/kernel.ts";
import { at } from "../wgsl/layout_units.ts";

/** Queries, and keys per lane, of an invocation: alone, and within a subgroup. */
const ALONE = { rows: 4, cols: 4 };
const TOGETHER = { rows: 8, cols: 2 };
/** Columns of a head that are written out. */
const UNROLLED = 8;

/** Code of {@linkcode TargetCode}; `subgroup` is the size of subgroups to be used, if any. */
export function targetRows(dims: HeadDims, subgroup: 4 | 8 | null): TargetCode {
  const lanes = subgroup ?? 32;
  const shape = subgroup ? TOGETHER : ALONE;
  const rows = range(shape.rows);
  const cols = range(shape.cols);
  const pairs = rows.flatMap((i) => cols.map((j) => `${i}_${j}`));
  const product = (c: string) => [
    ...(subgroup
      ? shared(shape.rows, subgroup, c)
      : rows.map((i) => `let a${i} = load_q(q_row + row${i}, head, ${c});`)),
    ...cols.map((j) => `let b${j} = load_k(k_row + key${j}, head, ${c});`),
    ...rows.flatMap((i) => cols.map((j) => `s${i}_${j} += dot(a${i}, b${j});`)),
  ];
  const body = [
    // Rows and keys past the end repeat the last one, and are not stored.
    ...rows.map((i) => `let row${i} = min(first_query + ${i}u, u.queries - 1u);`),
    ...(subgroup ? ownRows(shape.rows, subgroup) : []),
    ...cols.flatMap((j) => [
      `let col${j} = first_key + lane + ${lanes * j}u;`,
      `let key${j} = min(col${j}, u.keys - 1u);`,
    ]),
    ...pairs.map((ij) => `var p${ij} = 0.0;`),
    "if (visible) {",
    "for (var head = 0u; head < u.heads; head++) {",
    ...pairs.map((ij) => `var s${ij} = 0.0;`),
    ...unrolled(headColumns("q", dims), UNROLLED, product),
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
    tileRows: shape.rows,
    tileCols: lanes * shape.cols,
    iterations: dims.heads * (1 + unrolledRounds(headColumns("q", dims), UNROLLED)),
  };
}

/** The queries that a lane loads for its subgroup. */
function ownRows(rows: number, lanes: number): string[] {
  const own = rows / lanes;
  return range(own).map((m) =>
    `let own${m} = q_row + min(first_query + lane * ${own}u + ${m}u, u.queries - 1u);`
  );
}

/** Column `c` of all queries, loaded once in the subgroup. */
function shared(rows: number, lanes: number, c: string): string[] {
  const own = rows / lanes;
  return [
    ...range(own).map((m) => `let o${m} = load_q(own${m}, head, ${c});`),
    ...range(rows).map((i) =>
      `let a${i} = subgroupBroadcast(o${i % own}, ${Math.floor(i / own)}u);`
    ),
  ];
}
