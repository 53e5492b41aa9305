/**
 * Attention for software adapters: an invocation keeps a few rows in registers and everything
 * else streams past from storage, with no workgroup memory. A load costs such an adapter about as
 * much as several multiplications per lane, even where all lanes read the same, so every loaded
 * column serves all rows of the invocation, and where a workgroup is one subgroup, each lane loads
 * a part of the column and `subgroupBroadcast` hands it round. Where rows have lists of columns, an
 * invocation has one row and follows its list: loads from as many places as there are lanes cost no
 * more.
 *
 * @module
 */
import { headColumns, spanLoaders } from "./heads.ts";
import {
  type AttentionSpec,
  listLength,
  type Pass,
  type PassCode,
  passIterations,
} from "./pass.ts";
import { type RowScope, step } from "./row_steps.ts";
import { type Bits, EMPTY_LSE, ifAnySelected, listOf, maskBits } from "./selection.ts";
import { range } from "../wgsl/kernel.ts";
import { rounds } from "../wgsl/loops.ts";

/** Tuning of a pass: rows per invocation and columns per step. Both are powers of two. */
export interface RowShape {
  readonly rows: number;
  readonly cols: number;
  /** Invocations per workgroup, a power of two. */
  readonly lanes: number;
  /** Whether a workgroup is one subgroup. */
  readonly subgroup: boolean;
}

/** Code of a pass for {@linkcode passKernel}. */
export function rowCode(
  pass: Pass,
  spec: AttentionSpec,
  shape: RowShape,
  aligned: boolean,
): PassCode {
  const lists = spec.selection?.form === "gathered";
  const rows = range(lists ? 1 : shape.rows);
  const cols = range(lists ? 1 : shape.cols);
  const { lanes, subgroup } = shape;
  const together = subgroup && aligned && !lists;
  const span = lanes * rows.length;
  const scope: RowScope = {
    pass,
    spec,
    rows,
    cols,
    lanes,
    together,
    colHead: pass.keyMajor ? "q_head" : "kv_head",
    span,
    lists,
    bits: spec.selection?.form === "masked" ? bitsOf(pass, rows, cols, lanes) : null,
  };
  const lines = [...prologue(scope), ...loopOverColumns(scope), ...results(scope)];
  return {
    declarations: together ? pass.cols.map((t) => spanLoaders(t, spec.dims)).join("\n") : "",
    body: lines.join("\n"),
    workgroup: lanes,
    tileRows: span,
    iterations: passIterations(
      pass,
      spec.dims,
      lists ? listLength(pass, spec) : rounds(spec.extent.seqLen, cols.length),
    ),
  };
}

/** The mask's bits for the rows and columns of an invocation. */
function bitsOf(pass: Pass, rows: readonly number[], cols: readonly number[], lanes: number): Bits {
  if (pass.keyMajor) {
    const keys = { origin: "first", length: lanes * rows.length, lane: "lane", stride: lanes };
    return maskBits(cols.map((j) => `c${j}`), keys, rows.length);
  }
  const keys = { origin: "start", length: cols.length, lane: "0u", stride: 1 };
  return maskBits(rows.map((i) => `r${i}`), keys, cols.length);
}

/** The rows of an invocation, and what it keeps over the columns. */
function prologue(scope: RowScope): string[] {
  const { pass, spec: { dims }, rows, lanes, span } = scope;
  const lines = [`let first = tile * ${span}u;`];
  for (const i of rows) {
    lines.push(`let t${i} = first + lane + ${lanes * i}u;`);
    // Rows past the end repeat the last one, and are not stored.
    lines.push(`let r${i} = batch_row + min(t${i}, u.seq_len - 1u);`);
  }
  for (const tensor of pass.rows) {
    for (const i of rows) {
      for (const c of range(headColumns(tensor, dims))) {
        lines.push(`let ${tensor}_${i}_${c} = load_${tensor}(r${i}, head, ${c}u);`);
      }
    }
  }
  if (pass.name === "attention") {
    for (const i of rows) lines.push(`var m${i} = -1e30;`, `var l${i} = 0.0;`);
  } else if (!pass.keyMajor) {
    for (const i of rows) {
      lines.push(
        `let lse${i} = lse[u.lse_offset + r${i} * u.lse_stride + head] * ${Math.LOG2E};`,
        `let delta${i} = delta[u.delta_offset + r${i} * u.delta_stride + head];`,
      );
    }
  }
  for (const { into } of pass.sums) {
    for (const i of rows) {
      for (const c of range(headColumns(into, dims))) {
        lines.push(`var ${into}_${i}_${c} = vec4f();`);
      }
    }
  }
  return lines;
}

/** All columns that the rows may see. */
function loopOverColumns(scope: RowScope): string[] {
  const { pass, spec: { dims, window }, cols, span, lists, bits } = scope;
  const group = dims.heads / dims.kvHeads;
  const loop: string[] = [];
  if (lists) {
    const list = listOf(pass, "t0", "r0");
    loop.push(
      ...list.load,
      "for (var at = begin; at < stop; at++) {",
      `let token = ${list.buffer}[list + at];`,
      "if (token < 0) { break; }",
      "let c0 = batch_row + u32(token);",
      ...step(scope),
      "}",
    );
  } else {
    const aligned = (token: string) => `(${token}) / ${cols.length}u * ${cols.length}u`;
    const begin = pass.keyMajor
      ? "first"
      : window === undefined
      ? "0u"
      : `select(0u, ${aligned("first + 1u - u.window")}, first >= u.window)`;
    const newest = pass.keyMajor
      ? window === undefined ? "u.seq_len" : `first + ${span - 1}u + u.window`
      : `first + ${span}u`;
    const body = [
      ...cols.map((j) =>
        `let c${j} = batch_row + ${j === 0 ? "start" : `min(start + ${j}u, u.seq_len - 1u)`};`
      ),
      ...bits?.load ?? [],
      ...step(scope),
    ];
    const rowAxis = { origin: "first", length: span };
    const colAxis = { origin: "start", length: cols.length };
    loop.push(
      `for (var start = ${begin}; start < min(${newest}, u.seq_len); start += ${cols.length}u) {`,
      ...bits
        ? ifAnySelected(pass.keyMajor ? colAxis : rowAxis, pass.keyMajor ? rowAxis : colAxis, body)
        : body,
      "}",
    );
  }
  if (!pass.keyMajor) return [`let kv_head = head / ${group}u;`, ...loop];
  // Without groups the loop has one round, which costs nothing to speak of.
  return [
    `for (var q_head = head * ${group}u; q_head < (head + 1u) * ${group}u; q_head++) {`,
    ...loop,
    "}",
  ];
}

/** Stores the results. */
function results({ pass, spec: { dims, selection }, rows }: RowScope): string[] {
  const lines: string[] = [];
  // A query for which nothing is selected has the output 0.
  const orEmpty = (value: string, empty: string, i: number) =>
    selection ? `select(${value}, ${empty}, l${i} == 0.0)` : value;
  for (const i of rows) {
    lines.push(`if (t${i} < u.seq_len) {`);
    if (pass.name === "attention") {
      const log = orEmpty(`(m${i} + log2(l${i})) * ${Math.LN2}`, EMPTY_LSE, i);
      lines.push(
        `lse[u.lse_offset + r${i} * u.lse_stride + head] = ${log};`,
        `let inverse${i} = ${orEmpty(`1.0 / l${i}`, "0.0", i)};`,
      );
    }
    for (const { into } of pass.sums) {
      const factor = into === "o" ? ` * inverse${i}` : "";
      for (const c of range(headColumns(into, dims))) {
        lines.push(`store_${into}(r${i}, head, ${c}u, ${into}_${i}_${c}${factor});`);
      }
    }
    lines.push("}");
  }
  return lines;
}
