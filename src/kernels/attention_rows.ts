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
import { headColumns, type HeadTensor, spanColumns, spanLoaders } from "./attention_access.ts";
import { type AttentionSpec, type Pass, type PassCode, visible } from "./attention_pass.ts";
import { type Bits, EMPTY_LSE, ifAnySelected, listOf, maskBits } from "./attention_selection.ts";

/** Tuning of a pass: rows per invocation and columns per step. Both are powers of two. */
export interface RowShape {
  readonly rows: number;
  readonly cols: number;
  /** Invocations per workgroup, a power of two. */
  readonly lanes: number;
  /** Whether a workgroup is one subgroup. */
  readonly subgroup: boolean;
}

/** Everything that the parts of a kernel depend on. */
interface Scope {
  readonly pass: Pass;
  readonly spec: AttentionSpec;
  readonly rows: readonly number[];
  readonly cols: readonly number[];
  /** Invocations of a workgroup. */
  readonly lanes: number;
  /** Whether the lanes load columns together. */
  readonly together: boolean;
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
  const scope: Scope = {
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
function prologue(scope: Scope): string[] {
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

/** How an invocation gets the columns of a step: lines that load, and WGSL of `vec4` c of column j. */
function columnsOf(
  { spec: { dims }, cols, lanes, together, colHead }: Scope,
  tensor: HeadTensor,
): { load: string[]; value(j: number, c: number): string } {
  if (!together) {
    return { load: [], value: (j, c) => `load_${tensor}(c${j}, ${colHead}, ${c}u)` };
  }
  const load: string[] = [];
  const values: string[][] = cols.map(() => []);
  spanColumns(tensor, dims).forEach((width, s) => {
    // All columns of the step in a row, so many `vec4`s at a time as there are lanes.
    const count = width * cols.length;
    for (let first = 0; first < count; first += lanes) {
      const part = `${tensor}_part${s}_${first / lanes}`;
      const at = first + lanes <= count
        ? `(lane + ${first}u)`
        : `min(lane + ${first}u, ${count - 1}u)`;
      const column = cols.length === 1
        ? "c0"
        : `(batch_row + min(start + ${at} / ${width}u, u.seq_len - 1u))`;
      const c = cols.length === 1 ? at : `${at} % ${width}u`;
      load.push(`let ${part} = load_${tensor}_${s}(${column}, ${colHead}, ${c});`);
      for (let lane = 0; lane < Math.min(lanes, count - first); lane++) {
        values[Math.floor((first + lane) / width)].push(`subgroupBroadcast(${part}, ${lane}u)`);
      }
    }
  });
  return { load, value: (j, c) => values[j][c] };
}

/** One step: the columns from `start` on against all rows. */
function step(scope: Scope): string[] {
  const { pass, spec: { dims }, rows, cols } = scope;
  const lines: string[] = [];
  for (const j of cols) {
    for (const i of rows) lines.push(`var s${i}_${j} = 0.0;`, `var dp${i}_${j} = 0.0;`);
  }
  pass.rows.forEach((tensor, n) => {
    const other = pass.cols[n];
    const column = columnsOf(scope, other);
    lines.push(...column.load);
    for (const c of range(headColumns(tensor, dims))) {
      for (const j of cols) {
        lines.push(`let ${other}_c${j}_${c} = ${column.value(j, c)};`);
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
  const { spec: { dims }, rows, cols } = scope;
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
  const v = columnsOf(scope, "v");
  lines.push(...v.load);
  for (const c of range(headColumns("o", dims))) {
    for (const j of cols) lines.push(`let v_c${j}_${c} = ${v.value(j, c)};`);
    for (const i of rows) {
      const sum = cols.map((j) => ` + p${i}_${j} * v_c${j}_${c}`).join("");
      lines.push(`o_${i}_${c} = o_${i}_${c} * alpha${i}${sum};`);
    }
  }
  return lines;
}

/** Weights from the saved logarithms, and the sums of the gradients. */
function gradients(scope: Scope): string[] {
  const { pass, spec: { dims }, rows, cols, together } = scope;
  const lines: string[] = [];
  if (pass.keyMajor) {
    const stat = (name: string, token: string) =>
      `${name}[u.${name}_offset + ${token} * u.${name}_stride + q_head]`;
    if (together) {
      const own = "(batch_row + min(start + lane, u.seq_len - 1u))";
      lines.push(`let own_lse = ${stat("lse", own)};`, `let own_delta = ${stat("delta", own)};`);
    }
    for (const j of cols) {
      const of = (name: string) =>
        together ? `subgroupBroadcast(own_${name}, ${j}u)` : stat(name, `c${j}`);
      lines.push(`let lse${j} = ${of("lse")} * ${Math.LOG2E};`, `let delta${j} = ${of("delta")};`);
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
