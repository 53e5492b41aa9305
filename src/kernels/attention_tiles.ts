/**
 * Attention for GPUs: a workgroup computes a tile of scores in registers from rows and columns in
 * workgroup memory, hands its weights on through workgroup memory, and accumulates the results in
 * registers.
 *
 * Loops of WGSL are few and coarse, and indices into workgroup memory are constants wherever they
 * can be, since the compiler adds a 64-bit counter to every loop and a clamp to every index.
 *
 * @module
 */
import { headColumns, type HeadDims } from "./attention_access.ts";
import { type AttentionSpec, type Pass, type PassCode, visible } from "./attention_pass.ts";
import { type Bits, EMPTY_LSE, ifAnySelected, maskBits } from "./attention_selection.ts";
import {
  planTile,
  shareOut,
  type Shares,
  type Tile,
  type TilePlan,
} from "./attention_tile_plan.ts";
import { loadSide, productStep, range, sumStep, unrolled } from "./attention_tile_steps.ts";

/** Everything that the parts of a kernel depend on. */
interface Scope {
  readonly pass: Pass;
  readonly spec: AttentionSpec;
  readonly dims: HeadDims;
  readonly tile: Tile;
  readonly plan: TilePlan;
  readonly shares: readonly Shares[];
  readonly forward: boolean;
  /** Query heads per key head. */
  readonly group: number;
  /** WGSL of the head of the columns. */
  readonly colHead: string;
  /** Workgroup array that holds the weights. */
  readonly weights: string;
  /** Bits of the mask for the scores of an invocation, if there is a mask. */
  readonly bits: Bits | null;
}

/** Code of a pass for `passKernel`. */
export function tileCode(pass: Pass, spec: AttentionSpec, tile: Tile): PassCode {
  const { dims } = spec;
  const plan = planTile(pass, dims, tile);
  const { threads, tileRows } = plan;
  const scope: Scope = {
    pass,
    spec,
    dims,
    tile,
    plan,
    bits: spec.selection ? bitsOf(pass, tile, plan) : null,
    shares: pass.sums.map((s) => shareOut(s.into, headColumns(s.into, dims), tileRows, threads)),
    forward: pass.name === "attention",
    group: dims.heads / dims.kvHeads,
    colHead: pass.keyMajor ? "q_head" : "kv_head",
    weights: plan.resident ? "weights" : "row_side",
  };
  const body = [
    ...prologue(scope),
    ...loopOverColumns(scope, [
      ...scope.bits?.load ?? [],
      ...scores(scope),
      ...mask(scope),
      ...(scope.forward ? onlineSoftmax(scope) : weightsAndGradients(scope)),
      "workgroupBarrier();",
      ...sums(scope),
    ]),
    ...(scope.forward ? logSumExp(scope) : []),
    ...results(scope),
  ];
  return {
    declarations: declarations(scope).join("\n"),
    body: body.join("\n"),
    workgroup: threads,
    tileRows,
  };
}

/** The mask's bits for the rows and columns of an invocation. */
function bitsOf(pass: Pass, tile: Tile, { tileRows, tileCols }: TilePlan): Bits {
  const row = (token: string) => `(batch_row + min(${token}, u.seq_len - 1u))`;
  const { lanesX, lanesY } = tile;
  if (pass.keyMajor) {
    const keys = { origin: "first", length: tileRows, lane: "y", stride: lanesY };
    return maskBits(range(4).map((j) => row(`start + col${j}`)), keys, tile.rows);
  }
  const keys = { origin: "start", length: tileCols, lane: "x", stride: lanesX };
  return maskBits(range(tile.rows).map((i) => row(`t${i}`)), keys, 4);
}

function declarations({ pass, tile, plan, forward }: Scope): string[] {
  const matrix = (name: string, rows: number, pitch: number, type = "vec4f") =>
    `var<workgroup> ${name}: array<array<${type}, ${pitch}>, ${rows}>;`;
  const lines = [matrix("row_side", plan.tileRows, plan.pitch)];
  pass.cols.forEach((t, i) => lines.push(matrix(`${t}_side`, plan.tileCols, plan.colPitch[i])));
  if (plan.resident) lines.push(matrix("weights", plan.tileRows, plan.weightPitch));
  if (forward) {
    lines.push(
      matrix("partial", plan.tileRows, tile.lanesX, "f32"),
      `var<workgroup> factor: array<f32, ${plan.tileRows}>;`,
    );
  }
  return lines;
}

/** Which rows and columns an invocation has, and what it keeps over the columns. */
function prologue({ pass, dims, tile, plan, shares, forward }: Scope): string[] {
  const { tileRows, threads } = plan;
  const lines = [
    `let first = tile * ${tileRows}u;`,
    `let end = min(first + ${tileRows}u, u.seq_len);`,
    `let x = lane % ${tile.lanesX}u;`,
    `let y = lane / ${tile.lanesX}u;`,
    ...range(4).map((j) => `let col${j} = x + ${j * tile.lanesX}u;`),
  ];
  for (const i of range(tile.rows)) {
    lines.push(`let row${i} = y + ${i * tile.lanesY}u;`, `let t${i} = first + row${i};`);
    if (forward) lines.push(`var m${i} = -1e30;`, `var l${i} = 0.0;`);
    else if (!pass.keyMajor) {
      const row = `(batch_row + min(t${i}, u.seq_len - 1u))`;
      lines.push(
        `let lse${i} = ${logOf(row, "head")};`,
        `let delta${i} = ${deltaOf(row, "head")};`,
      );
    }
  }
  for (const s of shares) {
    lines.push(`let ${s.into}_x = lane % ${s.lanesX}u;`, `let ${s.into}_y = lane / ${s.lanesX}u;`);
    for (const i of range(s.rows)) {
      lines.push(`let ${s.into}_row${i} = ${s.into}_y + ${i * s.lanesY}u;`);
      for (const c of range(s.cols)) lines.push(`var ${s.into}_${i}_${c} = vec4f();`);
    }
    for (const c of range(s.cols)) {
      // Lanes without a column repeat the last one, and don't store it.
      const last = headColumns(s.into, dims) - 1;
      lines.push(`let ${s.into}_col${c} = min(${s.into}_x + ${c * s.lanesX}u, ${last}u);`);
    }
  }
  if (plan.resident) {
    const [tensor] = pass.rows;
    const columns = headColumns(tensor, dims);
    const part = { tensor, side: "row_side", rows: tileRows, from: 0, columns };
    lines.push(...loadSide({ ...part, start: "first", head: "head" }, threads));
  }
  return lines;
}

/** Base-2 logarithm of the sum of a row's exponentials. */
function logOf(row: string, head: string): string {
  return `lse[u.lse_offset + ${row} * u.lse_stride + ${head}] * ${Math.LOG2E}`;
}

function deltaOf(row: string, head: string): string {
  return `delta[u.delta_offset + ${row} * u.delta_stride + ${head}]`;
}

/** `body` for each tile of columns, from `start` on, that some row may see. */
function loopOverColumns(scope: Scope, body: string[]): string[] {
  const { pass, spec: { window }, plan: { tileRows, tileCols }, group } = scope;
  const rows = { origin: "first", length: tileRows };
  const cols = { origin: "start", length: tileCols };
  const step = scope.bits
    ? ifAnySelected(pass.keyMajor ? cols : rows, pass.keyMajor ? rows : cols, body)
    : body;
  const align = (token: string) => `(${token}) / ${tileCols}u * ${tileCols}u`;
  if (!pass.keyMajor) {
    const oldest = window === undefined
      ? "0u"
      : `select(0u, ${align("first + 1u - u.window")}, first >= u.window)`;
    return [
      `let kv_head = head / ${group}u;`,
      `for (var start = ${oldest}; start < end; start += ${tileCols}u) {`,
      ...step,
      "}",
    ];
  }
  const newest = window === undefined
    ? "u.seq_len"
    : `min(first + ${tileRows - 1}u + u.window, u.seq_len)`;
  return [
    `for (var q_head = head * ${group}u; q_head < (head + 1u) * ${group}u; q_head++) {`,
    `for (var start = ${align("first")}; start < ${newest}; start += ${tileCols}u) {`,
    ...step,
    "}",
    "}",
  ];
}

/** `s`, the tile of scores before scaling, and for gradients `dp`, the gradients of the weights. */
function scores({ pass, dims, tile, plan, colHead }: Scope): string[] {
  const { threads, tileRows, tileCols } = plan;
  const lines = ["workgroupBarrier();"];
  for (const tensor of pass.cols) {
    const columns = headColumns(tensor, dims);
    const part = { tensor, side: `${tensor}_side`, rows: tileCols, from: 0, columns };
    lines.push(...loadSide({ ...part, start: "start", head: colHead }, threads));
  }
  pass.rows.forEach((tensor, n) => {
    const name = n === 0 ? "s" : "dp";
    for (const i of range(tile.rows)) {
      for (const j of range(4)) lines.push(`var ${name}${i}_${j} = 0.0;`);
    }
    const width = headColumns(tensor, dims);
    for (let from = 0; from < width; from += tile.chunk) {
      const columns = Math.min(tile.chunk, width - from);
      if (n > 0 || from > 0) lines.push("workgroupBarrier();");
      if (!plan.resident) {
        const part = { tensor, side: "row_side", rows: tileRows, from, columns };
        lines.push(...loadSide({ ...part, start: "first", head: "head" }, threads));
      }
      const side = `${pass.cols[n]}_side`;
      const step = (c: string) => productStep(name, tile.rows, side, c, from);
      lines.push("workgroupBarrier();", ...unrolled(columns, tile.unroll, step));
    }
  });
  return lines;
}

/** Hides pairs of `s`. Without a mask only tiles on an edge of what is visible have any. */
function mask({ pass, spec, tile, plan: { tileRows, tileCols }, bits }: Scope): string[] {
  const lines: string[] = [];
  for (const i of range(tile.rows)) {
    for (const j of range(4)) {
      const column = `(start + col${j})`;
      const [query, key] = pass.keyMajor ? [column, `t${i}`] : [`t${i}`, column];
      const seen = visible(
        spec,
        query,
        key,
        pass.keyMajor ? bits?.selected(j, i) : bits?.selected(i, j),
      );
      lines.push(`s${i}_${j} = select(-3e38, s${i}_${j}, ${seen});`);
    }
  }
  if (bits) return lines;
  const [queries, keys] = pass.keyMajor ? ["start", "first"] : ["first", "start"];
  const [lastQuery, lastKey] = pass.keyMajor
    ? [tileCols - 1, tileRows - 1]
    : [tileRows - 1, tileCols - 1];
  const edges = [`${keys} + ${lastKey}u > ${queries}`];
  if (spec.window !== undefined) edges.push(`${queries} + ${lastQuery}u >= ${keys} + u.window`);
  return [`if (${edges.join(" || ")}) {`, ...lines, "}"];
}

/** Weights relative to the row's maximum so far, and the factor of what was summed before. */
function onlineSoftmax({ tile, weights }: Scope): string[] {
  const lines: string[] = [];
  for (const i of range(tile.rows)) {
    lines.push(`partial[row${i}][x] = max(max(s${i}_0, s${i}_1), max(s${i}_2, s${i}_3));`);
  }
  lines.push("workgroupBarrier();");
  for (const i of range(tile.rows)) {
    const top = range(tile.lanesX).reduce((m, x) => `max(${m}, partial[row${i}][${x}])`, `m${i}`);
    const p = range(4).map((j) => `exp2(fma(s${i}_${j}, u.scale_log2, -shift${i}))`);
    lines.push(
      `let top${i} = ${top};`,
      `let shift${i} = top${i} * u.scale_log2;`,
      `let alpha${i} = exp2((m${i} - top${i}) * u.scale_log2);`,
      `m${i} = top${i};`,
      `let p${i} = vec4f(${p.join(", ")});`,
      `l${i} = fma(l${i}, alpha${i}, (p${i}.x + p${i}.y) + (p${i}.z + p${i}.w));`,
      `${weights}[row${i}][x] = p${i};`,
      `if (x == 0u) { factor[row${i}] = alpha${i}; }`,
    );
  }
  return lines;
}

/** Weights from the saved logarithms, and the gradients of the scores. */
function weightsAndGradients({ pass, tile, weights }: Scope): string[] {
  const lines: string[] = [];
  if (pass.keyMajor) {
    for (const j of range(4)) {
      const row = `(batch_row + min(start + col${j}, u.seq_len - 1u))`;
      lines.push(
        // Queries past the end see nothing.
        `let lse${j} = select(3e38, ${logOf(row, "q_head")}, start + col${j} < u.seq_len);`,
        `let delta${j} = ${deltaOf(row, "q_head")};`,
      );
    }
  }
  lines.push("workgroupBarrier();");
  for (const i of range(tile.rows)) {
    const stat = (j: number) => pass.keyMajor ? j : i;
    const p = range(4).map((j) => `exp2(fma(s${i}_${j}, u.scale_log2, -lse${stat(j)}))`);
    const dp = range(4).map((j) => `(dp${i}_${j} - delta${stat(j)}) * u.scale`);
    lines.push(`let p${i} = vec4f(${p.join(", ")});`);
    lines.push(`let ds${i} = p${i} * vec4f(${dp.join(", ")});`);
    pass.sums.forEach(({ weight }, n) => {
      const at = n === 0 ? "x" : `x + ${n * tile.lanesX}u`;
      lines.push(`${weights}[row${i}][${at}] = ${weight}${i};`);
    });
  }
  return lines;
}

/** Adds the weighted columns to the results. */
function sums({ pass, tile, shares, forward, weights }: Scope): string[] {
  return pass.sums.flatMap(({ of }, n) => {
    const s = shares[n];
    const lines: string[] = [];
    if (forward) {
      for (const i of range(s.rows)) {
        lines.push(`let beta${i} = factor[${s.into}_row${i}];`);
        for (const c of range(s.cols)) lines.push(`${s.into}_${i}_${c} *= beta${i};`);
      }
    }
    const step = (g: string) =>
      sumStep(s, weights, n * tile.lanesX, `${pass.cols[of]}_side`, tile.lanesX, g);
    return [...lines, ...unrolled(tile.lanesX, tile.unroll, step)];
  });
}

/** Stores `lse`, and leaves in `factor` what the sums are still to be multiplied with. */
function logSumExp({ tile, bits }: Scope): string[] {
  const lines = range(tile.rows).map((i) => `partial[row${i}][x] = l${i};`);
  // A query for which nothing is selected has the output 0.
  const orEmpty = (value: string, empty: string, i: number) =>
    bits ? `select(${value}, ${empty}, sum${i} == 0.0)` : value;
  lines.push("workgroupBarrier();", "if (x == 0u) {");
  for (const i of range(tile.rows)) {
    const sum = range(tile.lanesX).map((x) => `partial[row${i}][${x}]`).join(" + ");
    const log = `(m${i} * u.scale_log2 + log2(sum${i})) * ${Math.LN2}`;
    lines.push(
      `let sum${i} = ${sum};`,
      `factor[row${i}] = ${orEmpty(`1.0 / sum${i}`, "0.0", i)};`,
      `if (t${i} < u.seq_len) {`,
      `lse[u.lse_offset + (batch_row + t${i}) * u.lse_stride + head] = ${
        orEmpty(log, EMPTY_LSE, i)
      };`,
      "}",
    );
  }
  return [...lines, "}", "workgroupBarrier();"];
}

/** Stores the results. */
function results({ dims, shares, forward }: Scope): string[] {
  const lines: string[] = [];
  for (const { into, lanesX, rows, cols } of shares) {
    const columns = headColumns(into, dims);
    for (const i of range(rows)) {
      const factor = forward ? ` * factor[${into}_row${i}]` : "";
      lines.push(`if (first + ${into}_row${i} < u.seq_len) {`);
      for (const c of range(cols)) {
        const column = `${into}_x + ${c * lanesX}u`;
        const row = `batch_row + first + ${into}_row${i}`;
        const store = `store_${into}(${row}, head, ${column}, ${into}_${i}_${c}${factor});`;
        const all = (c + 1) * lanesX <= columns;
        lines.push(all ? store : `if (${column} < ${columns}u) { ${store} }`);
      }
      lines.push("}");
    }
  }
  return lines;
}
