/**
 * Attention for software adapters: an invocation keeps a few rows in registers and everything
 * else streams past from storage, with no workgroup memory. A load costs such an adapter about as
 * much as several multiplications per lane, even where all lanes read the same, so every loaded
 * column serves all rows of the invocation.
 *
 * @module
 */
import { headColumns, type HeadDims } from "./attention_access.ts";
import { type AttentionSpec, type Pass, type PassCode, visible } from "./attention_pass.ts";

/** Invocations per workgroup: one SIMD register of f32 on common CPUs. */
const LANES = 8;

/** Tuning of a pass: rows per invocation and columns per step. */
export interface RowShape {
  readonly rows: number;
  readonly cols: number;
}

const range = (n: number) => Array.from({ length: n }, (_, i) => i);

/** Code of a pass for {@linkcode passKernel}. */
export function rowCode(pass: Pass, { dims }: AttentionSpec, shape: RowShape): PassCode {
  const rows = range(shape.rows);
  const cols = range(shape.cols);
  const span = LANES * shape.rows;
  const lines: string[] = [];
  lines.push(`let first = tile * ${span}u;`, `let stop = min(first + ${span}u, u.seq_len);`);
  for (const i of rows) {
    lines.push(`let t${i} = first + lane + ${LANES * i}u;`);
    // Rows past the end repeat the last one, and are not stored.
    lines.push(`let r${i} = batch_row + min(t${i}, u.seq_len - 1u);`);
  }
  const group = dims.heads / dims.kvHeads;
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
  const begin = pass.keyMajor ? "first" : "0u";
  const end = pass.keyMajor ? "u.seq_len" : "stop";
  const loop = `for (var start = ${begin}; start < ${end}; start += ${shape.cols}u) {
${stepCode(pass, dims, rows, cols)}
}`;
  if (pass.keyMajor) {
    // Without groups the loop has one round, which costs nothing to speak of.
    lines.push(
      `for (var q_head = head * ${group}u; q_head < (head + 1u) * ${group}u; q_head++) {`,
      loop,
      "}",
    );
  } else {
    lines.push(`let kv_head = head / ${group}u;`, loop);
  }
  for (const i of rows) {
    lines.push(`if (t${i} < u.seq_len) {`);
    if (pass.name === "attention") {
      lines.push(
        `lse[u.lse_offset + r${i} * u.lse_stride + head] = (m${i} + log2(l${i})) * ${Math.LN2};`,
      );
      lines.push(`let inverse${i} = 1.0 / l${i};`);
    }
    for (const { into } of pass.sums) {
      const factor = into === "o" ? ` * inverse${i}` : "";
      for (const c of range(headColumns(into, dims))) {
        lines.push(`store_${into}(r${i}, head, ${c}u, ${into}_${i}_${c}${factor});`);
      }
    }
    lines.push("}");
  }
  return { declarations: "", body: lines.join("\n"), workgroup: LANES, tileRows: span };
}

/** One step: the columns from `start` on against all rows. */
function stepCode(
  pass: Pass,
  dims: HeadDims,
  rows: number[],
  cols: number[],
): string {
  const lines: string[] = [];
  const colHead = pass.keyMajor ? "q_head" : "kv_head";
  const seen = (i: number, j: number) => {
    const at = `(start + ${j}u)`;
    if (!pass.keyMajor) return visible(`t${i}`, at);
    // A query past the end would see every key; a key past the end is seen by no query.
    return j === 0 ? visible(at, `t${i}`) : `(${visible(at, `t${i}`)} && ${at} < u.seq_len)`;
  };
  for (const j of cols) {
    const t = j === 0 ? "start" : `min(start + ${j}u, u.seq_len - 1u)`;
    lines.push(`let c${j} = batch_row + ${t};`);
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
  if (pass.keyMajor) {
    for (const j of cols) {
      lines.push(
        `let lse${j} = lse[u.lse_offset + c${j} * u.lse_stride + q_head] * ${Math.LOG2E};`,
        `let delta${j} = delta[u.delta_offset + c${j} * u.delta_stride + q_head];`,
      );
    }
  }
  if (pass.name === "attention") {
    for (const i of rows) {
      for (const j of cols) {
        const s = `s${i}_${j} * u.scale_log2`;
        lines.push(`let x${i}_${j} = select(-3e38, ${s}, ${seen(i, j)});`);
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
    return lines.join("\n");
  }
  for (const i of rows) {
    for (const j of cols) {
      const stat = pass.keyMajor ? j : i;
      const p = `exp2(s${i}_${j} * u.scale_log2 - lse${stat})`;
      lines.push(
        `let p${i}_${j} = select(0.0, ${p}, ${seen(i, j)});`,
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
  return lines.join("\n");
}
