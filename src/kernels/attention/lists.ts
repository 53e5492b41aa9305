/**
 * Sparse attention for GPUs along lists: each row visits only its own columns, keys for a query
 * or queries for a key, so that the cost grows with seqLen * topk instead of seqLen².
 *
 * A row has a team of invocations. `lanes` of them read one column together, consecutive `vec4`s
 * each, and the team has several columns under way, `slots` side by side and `each` after another.
 * Nothing read is used twice but from registers: rows have no columns in common to speak of, and
 * memory, not arithmetic, is the limit. Every slot has sums (and a softmax) of its own; they are
 * combined in the end, in a fixed order.
 *
 * @module
 */
import { columnRuns, headColumns, type HeadDims, type HeadTensor, spanLoaders } from "./heads.ts";
import {
  type AttentionSpec,
  listLength,
  type Pass,
  type PassCode,
  passIterations,
} from "./pass.ts";
import { EMPTY_LSE, listOf } from "./selection.ts";
import { range } from "../wgsl/kernel.ts";
import { rounds } from "../wgsl/loops.ts";

/** Tuning of a pass. */
export interface GatherShape {
  /** Invocations that share a column: a power of two. */
  readonly lanes: number;
  /** Columns side by side. */
  readonly slots: number;
  /** Columns of an invocation in one step: 1, 2 or 4. */
  readonly each: number;
  /** Queries of a workgroup; keys have a workgroup each, as their lists differ in length. */
  readonly rows: number;
  /** Whether lanes add up scores by subgroup shuffles, or else through workgroup memory. */
  readonly shuffle: boolean;
}

/** Everything that the parts of a kernel depend on. */
interface Scope extends GatherShape {
  /** Whether heads are read as whole `vec4`s. */
  readonly aligned: boolean;
  /** Whether the forward pass also stores the scores. */
  readonly keepsScores: boolean;
  readonly pass: Pass;
  readonly spec: AttentionSpec;
  readonly threads: number;
  readonly forward: boolean;
}

/**
 * Code of a pass for `passKernel`. `keepsScores` of the forward pass: the scores to base 2, of the i-th
 * key of the list of t and head h, go to element (t, h * topk + i) of `scores`.
 */
export function gatherCode(
  pass: Pass,
  spec: AttentionSpec,
  shape: GatherShape,
  aligned: boolean,
  keepsScores = false,
): PassCode {
  const rows = pass.keyMajor ? 1 : shape.rows;
  const threads = shape.lanes * shape.slots * rows;
  const forward = pass.name === "attention";
  const scope = { ...shape, pass, spec, aligned, rows, threads, forward, keepsScores };
  const body = [...prologue(scope), ...loopOverList(scope), ...results(scope)];
  return {
    declarations: declarations(scope).join("\n"),
    body: body.join("\n"),
    workgroup: threads,
    tileRows: rows,
    iterations: passIterations(
      pass,
      spec.dims,
      rounds(listLength(pass, spec), shape.slots * shape.each),
    ),
    headByHead: true,
  };
}

/** `vec4` columns of a head that an invocation has: `sub`, `sub + lanes`, … */
function own(tensor: string, { spec, lanes }: Scope): number[] {
  return range(Math.ceil(headColumns(tensor, spec.dims) / lanes));
}

/** `statement` for the column `sub + c * lanes` if the head has it. */
function guarded(tensor: string, c: number, { spec, lanes }: Scope, statement: string): string {
  const columns = headColumns(tensor, spec.dims);
  if ((c + 1) * lanes <= columns) return statement;
  return `if (sub < ${columns - c * lanes}u) { ${statement} }`;
}

/** WGSL that reads the column `sub + c * lanes` of a head: without a branch, if a span has all of them. */
function load(tensor: HeadTensor, c: number, scope: Scope, row: string, head: string): string {
  const { spec: { dims }, lanes, aligned } = scope;
  const from = c * lanes;
  const count = Math.min(lanes, headColumns(tensor, dims) - from);
  const runs = columnRuns(tensor, dims, aligned, from, count);
  const { load, origin } = runs.length === 1 ? runs[0] : { load: `load_${tensor}`, origin: 0 };
  return `${load}(${row}, ${head}, sub + ${from - origin}u)`;
}

/** Workgroup memory of a pass. */
export function gatherBytes(pass: Pass, dims: HeadDims, shape: GatherShape): number {
  const { lanes, slots, each, shuffle } = shape;
  const rows = pass.keyMajor ? 1 : shape.rows;
  const widest = Math.max(...pass.sums.map((s) => headColumns(s.into, dims)));
  const partials = shuffle ? 0 : pass.rows.length * 2 * rows * lanes * slots * each;
  return 16 * rows * slots * widest + 4 * partials + 8 * rows * slots;
}

const vector = (n: number) => n === 1 ? "f32" : `vec${n}f`;

function declarations(scope: Scope): string[] {
  const { pass, spec: { dims }, aligned, rows, slots, each, threads, shuffle, forward } = scope;
  const widest = Math.max(...pass.sums.map((s) => headColumns(s.into, dims)));
  const lines = [`var<workgroup> merged: array<vec4f, ${rows * slots * widest}>;`];
  if (aligned) lines.push(...[...pass.rows, ...pass.cols].map((t) => spanLoaders(t, dims)));
  if (forward) {
    lines.push(
      `var<workgroup> peaks: array<f32, ${rows * slots}>;`,
      `var<workgroup> masses: array<f32, ${rows * slots}>;`,
    );
  }
  if (!shuffle) {
    // Two of each: while some lanes still read one, others already write the next.
    for (const n of pass.rows.keys()) {
      lines.push(`var<workgroup> partial${n}: array<${vector(each)}, ${2 * threads}>;`);
    }
  }
  return lines;
}

/** The row of an invocation, and what it keeps over the columns. */
function prologue(scope: Scope): string[] {
  const { pass, lanes, slots, rows, forward } = scope;
  const team = lanes * slots;
  const lines = [
    `let sub = lane % ${lanes}u;`,
    `let slot = lane / ${lanes}u % ${slots}u;`,
    `let member = ${rows === 1 ? "0u" : `lane / ${team}u`};`,
    `let t = ${rows === 1 ? "tile" : `tile * ${rows}u + member`};`,
    "let row = batch_row + min(t, u.seq_len - 1u);",
  ];
  for (const tensor of pass.rows) {
    for (const c of own(tensor, scope)) {
      const read = `${tensor}_${c} = ${load(tensor, c, scope, "row", "head")};`;
      lines.push(`var ${tensor}_${c} = vec4f();`, guarded(tensor, c, scope, read));
    }
  }
  if (forward) lines.push("var m = -1e30;", "var l = 0.0;");
  else if (!pass.keyMajor) lines.push(...statistics("row", "head", ""));
  for (const { into } of pass.sums) {
    for (const c of own(into, scope)) lines.push(`var ${into}_${c} = vec4f();`);
  }
  return lines;
}

/** Base-2 logarithm of the sum of a row's exponentials, and its delta. */
function statistics(row: string, head: string, suffix: string | number): string[] {
  return [
    `let lse${suffix} = lse[u.lse_offset + ${row} * u.lse_stride + ${head}] * ${Math.LOG2E};`,
    `let delta${suffix} = delta[u.delta_offset + ${row} * u.delta_stride + ${head}];`,
  ];
}

function loopOverList(scope: Scope): string[] {
  const { pass, spec: { dims }, slots, each, rows } = scope;
  const group = dims.heads / dims.kvHeads;
  const list = listOf(pass, "t", "row");
  const colHead = pass.keyMajor ? "q_head" : "kv_head";
  // All invocations of a workgroup go as far, as they meet at barriers.
  const last = rows === 1 ? "stop" : `min(u.topk, min((tile + 1u) * ${rows}u, u.seq_len))`;
  const step = slots * each;
  const tokenAt = (at: string, n: number) =>
    `if (${at} < stop) { next${n} = ${list.buffer}[list + ${at}]; }`;
  const loop = [
    ...list.load,
    "var turn = 0u;",
    ...range(each).flatMap((n) => [
      `var next${n} = -1;`,
      tokenAt(`begin + slot + ${n * slots}u`, n),
    ]),
    `for (var base = begin; base < ${last}; base += ${step}u) {`,
  ];
  for (const n of range(each)) {
    loop.push(
      `let at${n} = base + slot + ${n * slots}u;`,
      `let token${n} = next${n};`,
      // Where the list is over, something is read and hidden.
      `let c${n} = batch_row + u32(max(token${n}, 0));`,
      // The tokens of the next step arrive while this one waits for its columns.
      `next${n} = -1;`,
      tokenAt(`at${n} + ${step}u`, n),
    );
    for (const tensor of pass.cols) {
      for (const c of own(tensor, scope)) {
        const name = `${tensor}${n}_${c}`;
        const read = `${name} = ${load(tensor, c, scope, `c${n}`, colHead)};`;
        loop.push(`var ${name} = vec4f();`, guarded(tensor, c, scope, read));
      }
    }
    if (pass.keyMajor) loop.push(...statistics(`c${n}`, colHead, n));
  }
  loop.push(...scores(scope), ...scope.forward ? onlineSoftmax(scope) : gradients(scope), "}");
  if (!pass.keyMajor) return [`let kv_head = head / ${group}u;`, ...loop];
  return [
    `for (var q_head = head * ${group}u; q_head < (head + 1u) * ${group}u; q_head++) {`,
    ...loop,
    "}",
  ];
}

/** `s…` and `dp…`, the products of the row with each column. */
function scores(scope: Scope): string[] {
  const { pass, lanes, each, threads, shuffle } = scope;
  const lines: string[] = [];
  pass.rows.forEach((tensor, i) => {
    const name = i === 0 ? "s" : "dp";
    for (const n of range(each)) {
      const products = own(tensor, scope).map((c) =>
        `dot(${tensor}_${c}, ${pass.cols[i]}${n}_${c})`
      );
      lines.push(`var ${name}${n} = ${products.join(" + ")};`);
      for (let by = 1; shuffle && by < lanes; by *= 2) {
        lines.push(`${name}${n} += subgroupShuffleXor(${name}${n}, ${by}u);`);
      }
    }
    if (shuffle) return;
    const parts = range(each).map((n) => `${name}${n}`).join(", ");
    lines.push(`partial${i}[turn + lane] = ${vector(each)}(${parts});`);
  });
  if (shuffle) return lines;
  lines.push("workgroupBarrier();");
  pass.rows.forEach((_, i) => {
    const name = i === 0 ? "s" : "dp";
    const parts = range(lanes).map((k) => `partial${i}[turn + lane - sub + ${k}u]`);
    lines.push(`let ${name} = ${parts.join(" + ")};`);
    for (const n of range(each)) lines.push(`${name}${n} = ${name}${each > 1 ? `[${n}]` : ""};`);
  });
  return [...lines, `turn = ${threads}u - turn;`];
}

function onlineSoftmax(scope: Scope): string[] {
  const all = range(scope.each);
  const kept = "scores[u.scores_offset + row * u.scores_stride + head * u.topk";
  return [
    ...all.map((n) => `let x${n} = select(-3e38, s${n} * u.scale_log2, token${n} >= 0);`),
    ...scope.keepsScores
      ? all.map((n) =>
        `if (sub == 0u && token${n} >= 0 && t < u.seq_len) { ${kept} + at${n}] = x${n}; }`
      )
      : [],
    `let top = ${all.reduce((m, n) => `max(${m}, x${n})`, "m")};`,
    "let alpha = exp2(m - top);",
    "m = top;",
    ...all.map((n) => `let p${n} = exp2(x${n} - top);`),
    `l = l * alpha + ${all.map((n) => `p${n}`).join(" + ")};`,
    ...own("o", scope).map((c) =>
      `o_${c} = o_${c} * alpha + ${all.map((n) => `p${n} * v${n}_${c}`).join(" + ")};`
    ),
  ];
}

function gradients(scope: Scope): string[] {
  const { pass } = scope;
  const all = range(scope.each);
  const lines = all.flatMap((n) => {
    const stat = pass.keyMajor ? n : "";
    return [
      `let p${n} = select(0.0, exp2(s${n} * u.scale_log2 - lse${stat}), token${n} >= 0);`,
      `let ds${n} = p${n} * (dp${n} - delta${stat}) * u.scale;`,
    ];
  });
  for (const { weight, of, into } of pass.sums) {
    for (const c of own(into, scope)) {
      const sum = all.map((n) => `${weight}${n} * ${pass.cols[of]}${n}_${c}`).join(" + ");
      lines.push(`${into}_${c} += ${sum};`);
    }
  }
  return lines;
}

/** Combines the slots and stores the results. */
function results(scope: Scope): string[] {
  const { pass, spec: { dims }, lanes, slots, forward } = scope;
  const team = lanes * slots;
  const lines: string[] = [];
  const slotAt = (k: number) => `member * ${slots}u + ${k}u`;
  if (forward) {
    const each = (text: (k: number) => string) => range(slots).map(text);
    lines.push(
      `if (sub == 0u) { peaks[lane / ${lanes}u] = m; masses[lane / ${lanes}u] = l; }`,
      "workgroupBarrier();",
      `let top = ${each((k) => `peaks[${slotAt(k)}]`).reduce((a, b) => `max(${a}, ${b})`)};`,
      ...each((k) => `let factor${k} = exp2(peaks[${slotAt(k)}] - top);`),
      `let sum = ${each((k) => `masses[${slotAt(k)}] * factor${k}`).join(" + ")};`,
      // A query for which nothing is selected has the output 0.
      "let inverse = select(1.0 / sum, 0.0, sum == 0.0);",
      `if (lane % ${team}u == 0u && t < u.seq_len) {`,
      `let log_sum = (top + log2(sum)) * ${Math.LN2};`,
      `lse[u.lse_offset + row * u.lse_stride + head] = select(log_sum, ${EMPTY_LSE}, sum == 0.0);`,
      "}",
    );
  }
  pass.sums.forEach(({ into }, i) => {
    const columns = headColumns(into, dims);
    if (i > 0) lines.push("workgroupBarrier();");
    for (const c of own(into, scope)) {
      const place = `lane / ${lanes}u * ${columns}u + sub + ${c * lanes}u`;
      lines.push(guarded(into, c, scope, `merged[${place}] = ${into}_${c};`));
    }
    lines.push("workgroupBarrier();");
    for (let from = 0; from < columns; from += team) {
      const column = `(lane % ${team}u + ${from}u)`;
      const parts = range(slots).map((k) =>
        `merged[(${slotAt(k)}) * ${columns}u + ${column}]${forward ? ` * factor${k}` : ""}`
      );
      const total = `(${parts.join(" + ")})${forward ? " * inverse" : ""}`;
      lines.push(
        `if (${column} < ${columns}u && t < u.seq_len) {`,
        `store_${into}(row, head, ${column}, ${total});`,
        "}",
      );
    }
  });
  return lines;
}
