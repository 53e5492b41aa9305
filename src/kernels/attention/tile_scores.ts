/**
 * Scores and weights of a tile of the attention kernels for GPUs, as lines of WGSL.
 *
 * @module
 */
import { headColumns, type HeadDims } from "./heads.ts";
import { type AttentionSpec, type Pass, visible } from "./pass.ts";
import { type Bits, maskBits } from "./selection.ts";
import type { AttentionTile, Shares, TilePlan } from "./plan.ts";
import { loadSide, productStep, unrolled } from "./tile_steps.ts";
import { range } from "../wgsl/kernel.ts";

/** Everything that the parts of a kernel depend on. */
export interface TileScope {
  readonly pass: Pass;
  readonly spec: AttentionSpec;
  readonly dims: HeadDims;
  /** Whether heads are read as whole `vec4`s. */
  readonly aligned: boolean;
  readonly tile: AttentionTile;
  readonly plan: TilePlan;
  readonly shares: readonly Shares[];
  readonly forward: boolean;
  /** Query heads per key head. */
  readonly sharers: number;
  /** WGSL of the head of the columns. */
  readonly colHead: string;
  /** Workgroup array that holds the weights. */
  readonly weights: string;
  /** Bits of the mask for the scores of an invocation, if there is a mask. */
  readonly bits: Bits | null;
}

/** The mask's bits for the rows and columns of an invocation. */
export function bitsOf(pass: Pass, tile: AttentionTile, { tileRows, tileCols }: TilePlan): Bits {
  const row = (token: string) => `(batch_row + min(${token}, u.seq_len - 1u))`;
  const { lanesX, lanesY } = tile;
  if (pass.keyMajor) {
    const keys = { origin: "first", length: tileRows, lane: "y", stride: lanesY };
    return maskBits(range(tile.cols).map((j) => row(`start + col${j}`)), keys, tile.rows);
  }
  const keys = { origin: "start", length: tileCols, lane: "x", stride: lanesX };
  return maskBits(range(tile.rows).map((i) => row(`t${i}`)), keys, tile.cols);
}

/** `s`, the tile of scores before scaling, and for gradients `dp`, the gradients of the weights. */
export function scores({ pass, dims, aligned, tile, plan, colHead }: TileScope): string[] {
  const { threads, tileRows, tileCols } = plan;
  const lines = ["workgroupBarrier();"];
  const side = { dims, aligned };
  for (const tensor of pass.cols) {
    const columns = headColumns(tensor, dims);
    const all = { tensor, side: `${tensor}_side`, rows: tileCols, from: 0, columns };
    lines.push(...loadSide({ ...side, ...all, start: "start", head: colHead }, threads));
  }
  pass.rows.forEach((tensor, n) => {
    const name = n === 0 ? "s" : "dp";
    for (const r of range(tile.rows)) {
      for (const j of range(tile.cols)) lines.push(`var ${name}${r}_${j} = 0.0;`);
    }
    const width = headColumns(tensor, dims);
    for (let from = 0; from < width; from += tile.chunk) {
      const columns = Math.min(tile.chunk, width - from);
      if (n > 0 || from > 0) lines.push("workgroupBarrier();");
      if (!plan.resident) {
        const chunk = { tensor, side: "row_side", rows: tileRows, from, columns };
        lines.push(...loadSide({ ...side, ...chunk, start: "first", head: "head" }, threads));
      }
      lines.push("workgroupBarrier();");
      const step = (c: string) => productStep(name, tile, `${pass.cols[n]}_side`, c, from);
      lines.push(...unrolled(columns, tile.unroll, step));
    }
  });
  return lines;
}

/** Hides pairs of `s`. Without a mask only tiles on an edge of what is visible have any. */
export function mask(
  { pass, spec, tile, plan: { tileRows, tileCols }, bits }: TileScope,
): string[] {
  const lines: string[] = [];
  for (const i of range(tile.rows)) {
    for (const j of range(tile.cols)) {
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

/** The columns of an invocation in fours: the weights of a four are handed on together. */
function groupsOf({ tile }: TileScope): number[][] {
  return range(tile.cols / 4).map((q) => range(4).map((e) => 4 * q + e));
}

/** `(a + b) + (c + d)`, and so on: a sum or maximum of any number of terms. */
function pairwise(terms: readonly string[], join: (a: string, b: string) => string): string {
  if (terms.length === 1) return terms[0];
  const half = terms.length / 2;
  return join(pairwise(terms.slice(0, half), join), pairwise(terms.slice(half), join));
}

/** Weights relative to the row's maximum so far, and the factor of what was summed before. */
export function onlineSoftmax(scope: TileScope): string[] {
  const { tile } = scope;
  const lines: string[] = [];
  for (const i of range(tile.rows)) {
    const all = range(tile.cols).map((j) => `s${i}_${j}`);
    lines.push(`partial[row${i}][x] = ${pairwise(all, (a, b) => `max(${a}, ${b})`)};`);
  }
  lines.push("workgroupBarrier();");
  for (const i of range(tile.rows)) {
    const top = range(tile.lanesX).reduce((m, x) => `max(${m}, partial[row${i}][${x}])`, `m${i}`);
    lines.push(
      `let top${i} = ${top};`,
      `let shift${i} = top${i} * u.scale_log2;`,
      `let alpha${i} = exp2((m${i} - top${i}) * u.scale_log2);`,
      `m${i} = top${i};`,
    );
    const sums = groupsOf(scope).map((group, q) => {
      const p = group.map((j) => `exp2(fma(s${i}_${j}, u.scale_log2, -shift${i}))`);
      lines.push(`let p${i}_${q} = vec4f(${p.join(", ")});`);
      const add = (a: string, b: string) => `(${a} + ${b})`;
      return pairwise(["x", "y", "z", "w"].map((e) => `p${i}_${q}.${e}`), add);
    });
    lines.push(
      `l${i} = fma(l${i}, alpha${i}, ${sums.join(" + ")});`,
      `if (x == 0u) { factor[row${i}] = alpha${i}; }`,
    );
  }
  return lines;
}

/** Weights from the saved logarithms, and the gradients of the scores. */
export function weightsAndGradients(scope: TileScope): string[] {
  const { pass, tile } = scope;
  const lines: string[] = [];
  if (pass.keyMajor) {
    for (const j of range(tile.cols)) {
      const row = `(batch_row + min(start + col${j}, u.seq_len - 1u))`;
      lines.push(
        // Queries past the end see nothing.
        `let lse${j} = select(3e38, ${logOf(row, "q_head")}, start + col${j} < u.seq_len);`,
        `let delta${j} = ${deltaOf(row, "q_head")};`,
      );
    }
  }
  for (const i of range(tile.rows)) {
    const stat = (j: number) => pass.keyMajor ? j : i;
    groupsOf(scope).forEach((group, q) => {
      const p = group.map((j) => `exp2(fma(s${i}_${j}, u.scale_log2, -lse${stat(j)}))`);
      const dp = group.map((j) => `(dp${i}_${j} - delta${stat(j)}) * u.scale`);
      lines.push(`let p${i}_${q} = vec4f(${p.join(", ")});`);
      lines.push(`let ds${i}_${q} = p${i}_${q} * vec4f(${dp.join(", ")});`);
    });
  }
  return lines;
}

/** Hands the weights of the columns 4 * `four` and on to those who sum. */
export function handOn({ pass, tile, weights }: TileScope, four: number): string[] {
  return range(tile.rows).flatMap((i) =>
    pass.sums.map(({ weight }, n) => {
      const at = n === 0 ? "x" : `x + ${n * tile.lanesX}u`;
      return `${weights}[row${i}][${at}] = ${weight}${i}_${four};`;
    })
  );
}

/** Base-2 logarithm of the sum of a row's exponentials. */
export function logOf(row: string, head: string): string {
  return `lse[u.lse_offset + ${row} * u.lse_stride + ${head}] * ${Math.LOG2E}`;
}

/** WGSL of a row's delta. */
export function deltaOf(row: string, head: string): string {
  return `delta[u.delta_offset + ${row} * u.delta_stride + ${head}]`;
}
