/**
 * Scores and weights of a tile of the attention kernels for GPUs, as lines of WGSL.
 *
 * @module
 */
import { headColumns, type HeadDims } from "./attention_access.ts";
import { type AttentionSpec, type Pass, visible } from "./attention_pass.ts";
import { type Bits, maskBits } from "./attention_selection.ts";
import type { Shares, Tile, TilePlan } from "./attention_tile_plan.ts";
import { loadSide, productStep, range, unrolled } from "./attention_tile_steps.ts";

/** Everything that the parts of a kernel depend on. */
export interface Scope {
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

/** The mask's bits for the rows and columns of an invocation. */
export function bitsOf(pass: Pass, tile: Tile, { tileRows, tileCols }: TilePlan): Bits {
  const row = (token: string) => `(batch_row + min(${token}, u.seq_len - 1u))`;
  const { lanesX, lanesY } = tile;
  if (pass.keyMajor) {
    const keys = { origin: "first", length: tileRows, lane: "y", stride: lanesY };
    return maskBits(range(4).map((j) => row(`start + col${j}`)), keys, tile.rows);
  }
  const keys = { origin: "start", length: tileCols, lane: "x", stride: lanesX };
  return maskBits(range(tile.rows).map((i) => row(`t${i}`)), keys, 4);
}

/** `s`, the tile of scores before scaling, and for gradients `dp`, the gradients of the weights. */
export function scores({ pass, dims, tile, plan, colHead }: Scope): string[] {
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
export function mask({ pass, spec, tile, plan: { tileRows, tileCols }, bits }: Scope): string[] {
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
export function onlineSoftmax({ tile, weights }: Scope): string[] {
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
export function weightsAndGradients({ pass, tile, weights }: Scope): string[] {
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

/** Base-2 logarithm of the sum of a row's exponentials. */
export function logOf(row: string, head: string): string {
  return `lse[u.lse_offset + ${row} * u.lse_stride + ${head}] * ${Math.LOG2E}`;
}

/** WGSL of a row's delta. */
export function deltaOf(row: string, head: string): string {
  return `delta[u.delta_offset + ${row} * u.delta_stride + ${head}]`;
}
