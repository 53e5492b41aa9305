/**
 * Attention for software adapters: an invocation keeps a few rows in registers and everything
 * else streams past from storage, with no workgroup memory. A load costs such an adapter about as
 * much as several multiplications per lane, even where all lanes read the same, so every loaded
 * column serves all rows of the invocation. Where rows have lists of columns, an invocation has
 * one row and follows its list: loads from as many places as there are lanes cost no more.
 *
 * @module
 */
import { headColumns } from "./attention_access.ts";
import { type AttentionSpec, type Pass, type PassCode, visible } from "./attention_pass.ts";
import { type Bits, EMPTY_LSE, ifAnySelected, listOf, maskBits } from "./attention_selection.ts";

/** Invocations per workgroup: one SIMD register of f32 on common CPUs. */
const LANES = 8;

/** Tuning of a pass: rows per invocation and columns per step. Both are powers of two. */
export interface RowShape {
  readonly rows: number;
  readonly cols: number;
}

/** Everything that the parts of a kernel depend on. */
interface Scope {
  readonly pass: Pass;
  readonly spec: AttentionSpec;
  readonly rows: readonly number[];
  readonly cols: readonly number[];
  /** WGSL of the head of the columns. */
  readonly colHead: string;
  /** Rows of a workgroup. */
  readonly span: number;
  /** Whether rows have lists of columns. */
  readonly lists: boolean;
  /** Bits of the mask for an invocation's rows and columns, if there is a mask. */
  readonly bits: Bits | null;
}

const range = (n: number) => Array.from({ length: n }, (_, i) => i);

/** Code of a pass for {@linkcode passKernel}. */
export function rowCode(pass: Pass, spec: AttentionSpec, shape: RowShape): PassCode {
  const lists = spec.selection?.form === "gathered";
  const rows = range(lists ? 1 : shape.rows);
  const cols = range(lists ? 1 : shape.cols);
  const span = LANES * rows.length;
  const scope: Scope = {
    pass,
    spec,
    rows,
    cols,
    colHead: pass.keyMajor ? "q_head" : "kv_head",
    span,
    lists,
    bits: spec.selection?.form === "masked" ? bitsOf(pass, rows, cols, span) : null,
  };
  const lines = [...prologue(scope), ...loopOverColumns(scope), ...results(scope)];
  return { declarations: "", body: lines.join("\n"), workgroup: LANES, tileRows: span };
}

/** The mask's bits for the rows and columns of an invocation. */
function bitsOf(pass: Pass, rows: readonly number[], cols: readonly number[], span: number): Bits {
  if (pass.keyMajor) {
    const keys = { origin: "first", length: span, lane: "lane", stride: LANES };
    return maskBits(cols.map((j) => `c${j}`), keys, rows.length);
  }
  const keys = { origin: "start", length: cols.length, lane: "0u", stride: 1 };
  return maskBits(rows.map((i) => `r${i}`), keys, cols.length);
}

/** The rows of an invocation, and what it keeps over the columns. */
function prologue({ pass, spec: { dims }, rows, span }: Scope): string[] {
  const lines = [`let first = tile * ${span}u;`];
  for (const i of rows) {
    lines.push(`let t${i} = first + lane + ${LANES * i}u;`);
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
function loopOverColumns(scope: Scope): string[] {
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

/** WGSL predicate: do row i and column j of a step belong together? */
function seen({ pass, spec, lists, bits }: Scope, i: number, j: number): string {
  if (lists) return "true";
  const at = `(start + ${j}u)`;
  if (!pass.keyMajor) return visible(spec, `t${i}`, at, bits?.selected(i, j));
  const predicate = visible(spec, at, `t${i}`, bits?.selected(j, i));
  // A query past the end would see every key; a key past the end is seen by no query.
  return j === 0 ? predicate : `(${predicate} && ${at} < u.seq_len)`;
}

/** One step: the columns from `start` on against all rows. */
function step(scope: Scope): string[] {
  const { pass, spec: { dims }, rows, cols, colHead } = scope;
  const lines: string[] = [];
  for (const j of cols) {
    for (const i of rows) lines.push(`var s${i}_${j} = 0.0;`, `var dp${i}_${j} = 0.0;`);
  }
  pass.rows.forEach((tensor, n) => {
    const other = pass.cols[n];
    for (const c of range(headColumns(tensor, dims))) {
      for (const j of cols) {
        lines.push(`let ${other}_c${j}_${c} = load_${other}(c${j}, ${colHead}, ${c}u);`);
        for (const i of rows) {
          lines.push(
            `${n === 0 ? "s" : "dp"}${i}_${j} += dot(${tensor}_${i}_${c}, ${other}_c${j}_${c});`,
          );
        }
      }
    }
  });
  return [...lines, ...pass.name === "attention" ? onlineSoftmax(scope) : gradients(scope)];
}

/** Weights relative to the row's maximum so far, and the weighted sum of values. */
function onlineSoftmax(scope: Scope): string[] {
  const { spec: { dims }, rows, cols, colHead } = scope;
  const lines: string[] = [];
  for (const i of rows) {
    for (const j of cols) {
      const s = `s${i}_${j} * u.scale_log2`;
      lines.push(`let x${i}_${j} = select(-3e38, ${s}, ${seen(scope, i, j)});`);
    }
    lines.push(
      `let top${i} = ${cols.reduce((m, j) => `max(${m}, x${i}_${j})`, `m${i}`)};`,
      `let alpha${i} = exp2(m${i} - top${i});`,
      `m${i} = top${i};`,
    );
    for (const j of cols) lines.push(`let p${i}_${j} = exp2(x${i}_${j} - top${i});`);
    lines.push(`l${i} = l${i} * alpha${i}${cols.map((j) => ` + p${i}_${j}`).join("")};`);
  }
  for (const c of range(headColumns("o", dims))) {
    for (const j of cols) lines.push(`let v_c${j}_${c} = load_v(c${j}, ${colHead}, ${c}u);`);
    for (const i of rows) {
      const sum = cols.map((j) => ` + p${i}_${j} * v_c${j}_${c}`).join("");
      lines.push(`o_${i}_${c} = o_${i}_${c} * alpha${i}${sum};`);
    }
  }
  return lines;
}

/** Weights from the saved logarithms, and the sums of the gradients. */
function gradients(scope: Scope): string[] {
  const { pass, spec: { dims }, rows, cols } = scope;
  const lines: string[] = [];
  if (pass.keyMajor) {
    for (const j of cols) {
      lines.push(
        `let lse${j} = lse[u.lse_offset + c${j} * u.lse_stride + q_head] * ${Math.LOG2E};`,
        `let delta${j} = delta[u.delta_offset + c${j} * u.delta_stride + q_head];`,
      );
    }
  }
  for (const i of rows) {
    for (const j of cols) {
      const stat = pass.keyMajor ? j : i;
      const p = `exp2(s${i}_${j} * u.scale_log2 - lse${stat})`;
      lines.push(
        `let p${i}_${j} = select(0.0, ${p}, ${seen(scope, i, j)});`,
        `let ds${i}_${j} = p${i}_${j} * (dp${i}_${j} - delta${stat}) * u.scale;`,
      );
    }
  }
  for (const { weight, of, into } of pass.sums) {
    for (const c of range(headColumns(into, dims))) {
      for (const i of rows) {
        const sum = cols.map((j) => `${weight}${i}_${j} * ${pass.cols[of]}_c${j}_${c}`).join(" + ");
        lines.push(`${into}_${i}_${c} += ${sum};`);
      }
    }
  }
  return lines;
}

/** Stores the results. */
function results({ pass, spec: { dims, selection }, rows }: Scope): string[] {
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
