/**
 * One step of the attention kernels for software adapters, as lines of WGSL: a few columns against
 * the rows of an invocation.
 *
 * @module
 */
import { headColumns, type HeadTensor, spanColumns } from "./heads.ts";
import { type AttentionSpec, type Pass, visible } from "./pass.ts";
import type { Bits } from "./selection.ts";
import { range } from "../wgsl/kernel.ts";

/** Everything that the parts of a kernel depend on. */
export interface RowScope {
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

/** One step: the columns from `start` on against all rows. */
export function step(scope: RowScope): string[] {
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

/** How an invocation gets the columns of a step: lines that load, and WGSL of `vec4` c of column j. */
function columnsOf(
  { spec: { dims }, cols, lanes, together, colHead }: RowScope,
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

/** WGSL predicate: do row i and column j of a step belong together? */
function seen({ pass, spec, lists, bits }: RowScope, i: number, j: number): string {
  if (lists) return "true";
  const at = `(start + ${j}u)`;
  if (!pass.keyMajor) return visible(spec, `t${i}`, at, bits?.selected(i, j));
  const predicate = visible(spec, at, `t${i}`, bits?.selected(j, i));
  // A query past the end would see every key; a key past the end is seen by no query.
  return j === 0 ? predicate : `(${predicate} && ${at} < u.seq_len)`;
}

/** Weights relative to the row's maximum so far, and the weighted sum of values. */
function onlineSoftmax(scope: RowScope): string[] {
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
function gradients(scope: RowScope): string[] {
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
