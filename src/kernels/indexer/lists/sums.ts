/**
 * Code of the passes of `gradient.ts`. In scope: `index`, `row`, and `batch_row`, the
 * first row of the sequence.
 *
 * @module
 */
import {
  byOneLane,
  columnOf,
  type GatherTeam,
  guarded,
  loadHead,
  ownColumns,
  partialDot,
  sumOverLanes,
} from "./team.ts";
import { activated, passed } from "../indexer.ts";
import type { GatherGradientSpec } from "./gradient_spec.ts";
import { range } from "../../wgsl/kernel.ts";
import { at } from "../../wgsl/layout_units.ts";
import { rounds } from "../../wgsl/loops.ts";
import { SEGMENTS } from "../../select/lists.ts";

/** Iterations of {@linkcode sumsOfQuery}. */
export function queryIterations(
  { width, columns, side }: { width: number; columns: number; side: number },
  { lanes, slots, each }: GatherTeam,
): number {
  return rounds(width, slots * each) + side * rounds(columns, lanes * slots);
}

/** A workgroup has `side` heads of a query in registers, and its slots keys of its list. */
export function sumsOfQuery(
  { indexer }: GatherGradientSpec,
  team: GatherTeam,
  side: number,
): string[] {
  const { heads, dim } = indexer;
  const { slots } = team;
  const columns = Math.ceil(dim / 4);
  const own = range(side);
  const keys = range(team.each);
  const units = Math.ceil(heads / side);
  // Heads past the last repeat it, and are not stored.
  const headOf = (h: number) =>
    heads % side === 0 ? `first_head + ${h}u` : `min(first_head + ${h}u, ${heads - 1}u)`;
  const product = (h: number, n: number) => `s${h}_${n}`;
  const step = slots * team.each;
  const readNext = (n: number, place: string) => [
    `if (${place} < stop) {`,
    `next${n} = ${at("indices", "row", `(${place})`)};`,
    `next_g${n} = ${at("grad_scores", "row", `(${place})`)};`,
    "}",
  ];
  return [
    `let first_head = index % ${units}u * ${side}u;`,
    ...own.flatMap((h) => [
      `let head${h} = ${headOf(h)};`,
      ...loadHead(`q${h}`, { tensor: "q", row: "row", head: `head${h}`, columns }, team),
      ...ownColumns(columns, team).map((c) => `var sum${h}_${c} = vec4f();`),
      `let w${h} = ${at("w", "row", `head${h}`)};`,
      `var dw${h} = 0.0;`,
    ]),
    "let stop = min(u.width, row - batch_row + 1u);",
    ...keys.flatMap((n) => [
      `var next${n} = 0;`,
      `var next_g${n} = 0.0;`,
      ...readNext(n, `slot + ${n * slots}u`),
    ]),
    `for (var base = 0u; base < stop; base += ${step}u) {`,
    ...keys.flatMap((n) => [
      // Where the list is over early, the gradient is 0, and something is read.
      `let token${n} = u32(max(next${n}, 0));`,
      `let g${n} = next_g${n};`,
      // The next ones arrive while these wait for their keys.
      `next_g${n} = 0.0;`,
      ...readNext(n, `base + slot + ${n * slots + step}u`),
      ...loadHead(
        `k${n}`,
        { tensor: "k", row: `batch_row + token${n}`, head: "0u", columns },
        team,
      ),
    ]),
    ...keys.flatMap((n) =>
      own.map((h) => `var ${product(h, n)} = ${partialDot(`q${h}`, `k${n}`, columns, team)};`)
    ),
    ...sumOverLanes(keys.flatMap((n) => own.map((h) => product(h, n))), team),
    ...keys.flatMap((n) =>
      own.flatMap((h) => [
        `dw${h} += g${n} * ${activated(indexer, product(h, n))};`,
        `let d${h}_${n} = g${n} * ${passed(indexer, product(h, n), `w${h}`)};`,
        ...ownColumns(columns, team).map((c) => `sum${h}_${c} += d${h}_${n} * k${n}_${c};`),
      ])
    ),
    "}",
    ...own.flatMap((h) => [
      ...(h > 0 ? ["workgroupBarrier();"] : []),
      ...slots > 1 ? [byOneLane(team, `weights[slot] = dw${h};`)] : [],
      ...merge(`sum${h}`, columns, team),
      ...(h > 0 && heads % side !== 0 ? [`if (first_head + ${h}u < ${heads}u) {`] : ["{"]),
      ...storeMerged((c, total) => `store_grad_q(row, head${h}, ${c}, ${total});`, columns, team),
      `if (lane == 0u) {`,
      `let total = ${slots > 1 ? range(slots).map((k) => `weights[${k}]`).join(" + ") : `dw${h}`};`,
      `${at("grad_w", "row", `head${h}`)} = total * u.scale;`,
      "}",
      "}",
    ]),
  ];
}

/** Iterations of {@linkcode sumsOfKey}; all queries may have selected a key. */
export function keyIterations(
  { seqLen, heads, columns }: { seqLen: number; heads: number; columns: number },
  { lanes, slots, each }: GatherTeam,
): number {
  const ofQuery = 1 + (heads === each ? 0 : rounds(heads, each));
  return rounds(seqLen, slots) * ofQuery + rounds(columns, lanes * slots);
}

/** A workgroup has a key in registers, and its slots queries that selected it. */
export function sumsOfKey(
  { indexer }: GatherGradientSpec,
  team: GatherTeam,
): string[] {
  const { heads, dim } = indexer;
  const { slots, each } = team;
  const columns = Math.ceil(dim / 4);
  const some = range(each);
  const readNext = (place: string) => [
    `if (${place} < stop) {`,
    `next = ${at("queries", "batch_row", `(${place})`)};`,
    `next_g = ${at("listed", "batch_row", `(${place})`)};`,
    "}",
  ];
  const isWhole = heads % each === 0;
  const headOf = (n: number) => heads === each ? `${n}u` : `head + ${n}u`;
  const loads = some.flatMap((n) => [
    // Heads past the last repeat it, with the weight 0.
    `let head${n} = ${isWhole ? headOf(n) : `min(${headOf(n)}, ${heads - 1}u)`};`,
    ...loadHead(`q${n}`, { tensor: "q", row: "token_row", head: `head${n}`, columns }, team),
    `let w${n} = ${
      isWhole
        ? at("w", "token_row", `head${n}`)
        : `select(0.0, ${at("w", "token_row", `head${n}`)}, ${headOf(n)} < ${heads}u)`
    };`,
  ]);
  const sums = [
    ...some.map((n) => `var s${n} = ${partialDot("k", `q${n}`, columns, team)};`),
    ...sumOverLanes(some.map((n) => `s${n}`), team),
    ...some.map((n) => `let d${n} = g * ${passed(indexer, `s${n}`, `w${n}`)};`),
    ...ownColumns(columns, team).map((c) =>
      `sum_${c} += ${some.map((n) => `d${n} * q${n}_${c}`).join(" + ")};`
    ),
  ];
  return [
    ...loadHead("k", { tensor: "k", row: "row", head: "0u", columns }, team),
    ...ownColumns(columns, team).map((c) => `var sum_${c} = vec4f();`),
    "let starts_at = u.starts_offset + row / u.seq_len * u.starts_stride + " +
    `row % u.seq_len * ${SEGMENTS}u;`,
    "let begin = starts[starts_at];",
    `let stop = starts[starts_at + ${SEGMENTS}u];`,
    "var next = 0;",
    "var next_g = 0.0;",
    ...readNext("begin + slot"),
    `for (var base = begin; base < stop; base += ${slots}u) {`,
    "let token_row = batch_row + u32(next);",
    "let g = next_g;",
    // The next one arrives while this one waits for its heads.
    "next_g = 0.0;",
    ...readNext(`base + slot + ${slots}u`),
    ...heads === each
      ? [...loads, ...sums]
      : [`for (var head = 0u; head < ${heads}u; head += ${each}u) {`, ...loads, ...sums, "}"],
    "}",
    ...merge("sum", columns, team),
    ...storeMerged((c, total) => `store_grad_k(row, 0u, ${c}, ${total});`, columns, team),
  ];
}

/** Puts the sums of all slots into workgroup memory. */
function merge(name: string, columns: number, team: GatherTeam): string[] {
  return [
    ...ownColumns(columns, team).map((c) =>
      guarded(
        columns,
        c,
        team,
        `merged[slot * ${columns}u + ${columnOf(c, team)}] = ${name}_${c};`,
      )
    ),
    "workgroupBarrier();",
  ];
}

/** Adds them up in the order of the slots. */
function storeMerged(
  store: (column: string, total: string) => string,
  columns: number,
  { lanes, slots }: GatherTeam,
): string[] {
  const total = range(slots).map((k) => `merged[c + ${k * columns}u]`).join(" + ");
  return [
    `for (var c = lane; c < ${columns}u; c += ${lanes * slots}u) {`,
    store("c", `(${total}) * u.scale`),
    "}",
  ];
}
