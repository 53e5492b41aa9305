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
import { headColumns, spanLoaders } from "./heads.ts";
import { type AttentionSpec, type Pass, type PassCode, passIterations } from "./pass.ts";
import { EMPTY_LSE, ifAnySelected } from "./selection.ts";
import { range } from "../wgsl/kernel.ts";
import { placeOf } from "../wgsl/lane_order.ts";
import { rounds } from "../wgsl/loops.ts";
import { type AttentionTile, planTile, shareOut } from "./plan.ts";
import {
  bitsOf,
  deltaOf,
  handOn,
  logOf,
  mask,
  onlineSoftmax,
  scores,
  type TileScope,
  weightsAndGradients,
} from "./tile_scores.ts";
import { loadSide, sumStep, unrolled, unrolledRounds } from "./tile_steps.ts";

/** Code of a pass for `passKernel`. */
export function tileCode(
  pass: Pass,
  spec: AttentionSpec,
  tile: AttentionTile,
  aligned: boolean,
): PassCode {
  const { dims } = spec;
  const plan = planTile(pass, dims, tile);
  const { threads, tileRows } = plan;
  const scope: TileScope = {
    pass,
    spec,
    dims,
    aligned,
    tile,
    plan,
    bits: spec.selection ? bitsOf(pass, tile, plan) : null,
    shares: pass.sums.map((s) => shareOut(s.into, headColumns(s.into, dims), tileRows, threads)),
    forward: pass.name === "attention",
    sharers: dims.heads / dims.kvHeads,
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
    iterations: iterations(scope),
  };
}

/** Rounds of all loops: for each tile of columns those along the heads, and those of the sums. */
function iterations({ pass, spec, dims, tile, plan }: TileScope): number {
  const scores = pass.rows.map((tensor) => {
    const width = headColumns(tensor, dims);
    const chunk = Math.min(tile.chunk, width);
    return rounds(width, chunk) * unrolledRounds(chunk, tile.unroll);
  }).reduce((a, b) => a + b);
  const sums = pass.sums.length * tile.cols / 4 * unrolledRounds(tile.lanesX, tile.unroll);
  const tiles = rounds(spec.extent.seqLen, plan.tileCols);
  return passIterations(pass, dims, tiles * (1 + scores + sums));
}

function declarations({ pass, dims, aligned, tile, plan, forward }: TileScope): string[] {
  const matrix = (name: string, rows: number, pitch: number, type = "vec4f") =>
    `var<workgroup> ${name}: array<array<${type}, ${pitch}>, ${rows}>;`;
  const lines = [matrix("row_side", plan.tileRows, plan.pitch)];
  for (const { name, rows, pitch } of plan.colSides) lines.push(matrix(name, rows, pitch));
  if (plan.resident) lines.push(matrix("weights", plan.tileRows, plan.weightPitch));
  if (aligned) lines.push(...[...pass.rows, ...pass.cols].map((t) => spanLoaders(t, dims)));
  if (forward) {
    lines.push(
      matrix("partial", plan.tileRows, tile.lanesX, "f32"),
      `var<workgroup> factor: array<f32, ${plan.tileRows}>;`,
    );
  }
  return lines;
}

/** Which rows and columns an invocation has, and what it keeps over the columns. */
function prologue({ pass, dims, aligned, tile, plan, shares, forward }: TileScope): string[] {
  const { tileRows, threads } = plan;
  const place = placeOf(tile.lanesX, tile.lanesY);
  const lines = [
    `let first = tile * ${tileRows}u;`,
    `let end = min(first + ${tileRows}u, u.seq_len);`,
    `let x = ${place.x};`,
    `let y = ${place.y};`,
    ...range(tile.cols).map((j) => `let col${j} = x + ${j * tile.lanesX}u;`),
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
    const { x, y } = placeOf(s.lanesX, s.lanesY);
    lines.push(`let ${s.into}_x = ${x};`, `let ${s.into}_y = ${y};`);
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
    const part = { tensor, side: "row_side", rows: tileRows, from: 0, columns, dims, aligned };
    lines.push(...loadSide({ ...part, start: "first", head: "head" }, threads));
  }
  return lines;
}

/** `body` for each tile of columns, from `start` on, that some row may see. */
function loopOverColumns(scope: TileScope, body: string[]): string[] {
  const { pass, spec: { window }, plan: { tileRows, tileCols }, sharers } = scope;
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
      `let kv_head = head / ${sharers}u;`,
      `for (var start = ${oldest}; start < end; start += ${tileCols}u) {`,
      ...step,
      "}",
    ];
  }
  const newest = window === undefined
    ? "u.seq_len"
    : `min(first + ${tileRows - 1}u + u.window, u.seq_len)`;
  return [
    `for (var q_head = head * ${sharers}u; q_head < (head + 1u) * ${sharers}u; q_head++) {`,
    `for (var start = ${align("first")}; start < ${newest}; start += ${tileCols}u) {`,
    ...step,
    "}",
    "}",
  ];
}

/** Adds the weighted columns to the results, group by group. */
function sums(scope: TileScope): string[] {
  const { pass, tile, plan, shares, forward, weights } = scope;
  const lines: string[] = [];
  for (const q of range(tile.cols / 4)) {
    // Weights may lie where the scores were read from, or the group before is.
    if (q > 0 || !forward) lines.push("workgroupBarrier();");
    lines.push(...handOn(scope, q));
    lines.push("workgroupBarrier();");
    pass.sums.forEach(({ of }, n) => {
      const s = shares[n];
      if (forward && q === 0) {
        for (const i of range(s.rows)) {
          lines.push(`let beta${i} = factor[${s.into}_row${i}];`);
          for (const c of range(s.cols)) lines.push(`${s.into}_${i}_${c} *= beta${i};`);
        }
      }
      const weighted = {
        ...{ weights, from: n * tile.lanesX, lanesX: tile.lanesX },
        ...{ side: `${pass.cols[of]}_side`, first: q * plan.group },
      };
      const step = (g: string) => sumStep(s, weighted, g);
      lines.push(...unrolled(tile.lanesX, tile.unroll, step));
    });
  }
  return lines;
}

/** Stores `lse`, and leaves in `factor` what the sums are still to be multiplied with. */
function logSumExp({ tile, bits }: TileScope): string[] {
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
function results({ dims, shares, forward }: TileScope): string[] {
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
