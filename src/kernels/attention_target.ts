/**
 * The teacher of the indexer: attention averaged over the heads, for a chunk of queries.
 *
 * @module
 */
import type { Capabilities } from "../ops/op.ts";
import { headColumns, type HeadDims, isAligned, loader } from "./attention_access.ts";
import { range, unrolled } from "./attention_tile_steps.ts";
import {
  type BufferSpec,
  bytesOf,
  Float,
  foldGrid,
  type Kernel,
  type Layout,
  layoutUniforms,
  makeKernel,
} from "./kernel.ts";
import { at } from "./units.ts";

/** What {@linkcode attentionTarget} reads and writes. R is the number of queries of the chunk. */
export interface AttentionTargetSpec {
  /** [R, heads · (qkNopeHeadDim + qkRopeHeadDim)]: the queries from `firstRow` on. */
  readonly q: Layout;
  /** [keys, heads · (qkNopeHeadDim + vHeadDim)]: the sequence from its start. */
  readonly kv: Layout;
  /** [keys, qkRopeHeadDim]. */
  readonly kPe: Layout;
  /** [R, heads]: natural logarithm of each row's sum of exponentials, from the forward pass. */
  readonly lse: Layout;
  /** i32 [R, words]: bit s % 32 of word s / 32 is set where key s counts. Default: all count. */
  readonly mask?: Layout;
  /** [R, keys]: the result. */
  readonly target: Layout;
  /** Position of the first query in its sequence. */
  readonly firstRow: number;
  readonly heads: number;
  readonly qkNopeHeadDim: number;
  readonly qkRopeHeadDim: number;
  readonly vHeadDim: number;
  readonly scale: number;
  readonly capabilities: Capabilities;
}

/** Queries, and keys per lane, that an invocation computes in registers. */
const ROWS = 4;
const COLS = 4;

/**
 * target[t, s] = (1 / heads) · Σ_h exp(scale · (q_h[t] · k_h[s]) − lse_h[t]) where key s is visible
 * (s ≤ t, and its bit is set), else 0. Rows sum to 1 where `lse` is that of the same keys.
 * Bindings: q, kv, kPe, lse, mask if there is one, target.
 */
export function attentionTarget(spec: AttentionTargetSpec): Kernel {
  const { q, kv, kPe, lse, mask, target, firstRow, heads, scale } = spec;
  const dims: HeadDims = {
    heads,
    kvHeads: heads,
    nope: spec.qkNopeHeadDim,
    rope: spec.qkRopeHeadDim,
    value: spec.vHeadDim,
    packed: true,
  };
  const aligned = isAligned(dims, [q, kv, kPe]);
  const matrix: BufferSpec = aligned ? "read vec4f" : "read";
  const columns = headColumns("q", dims);
  const lanes = spec.capabilities.software ? 8 : 64;
  const tileCols = lanes * COLS;
  const rows = range(ROWS);
  const cols = range(COLS);
  const product = (c: string) => [
    ...rows.map((i) => `let a${i} = load_q(row${i}, head, ${c});`),
    ...cols.map((j) => `let b${j} = load_k(key${j}, head, ${c});`),
    ...rows.flatMap((i) => cols.map((j) => `s${i}_${j} += dot(a${i}, b${j});`)),
  ];
  const seen = (i: number, j: number) =>
    `col${j} <= u.first_row + row${i}${
      mask
        ? ` && ((u32(${at("mask", `row${i}`, `col${j} / 32u`)}) >> (col${j} % 32u)) & 1u) == 1u`
        : ""
    }`;
  const body = [
    `let tiles = (u.cols + ${tileCols - 1}u) / ${tileCols}u;`,
    "let tile = wid.x + wid.y * groups.x;",
    `let row0 = tile / tiles * ${ROWS}u;`,
    "if (row0 >= u.rows) { return; }",
    `let first = tile % tiles * ${tileCols}u;`,
    // Rows and keys past the end repeat the last one, and are not stored.
    ...rows.slice(1).map((i) => `let row${i} = min(row0 + ${i}u, u.rows - 1u);`),
    ...cols.flatMap((j) => [
      `let col${j} = first + lane + ${lanes * j}u;`,
      `let key${j} = min(col${j}, u.cols - 1u);`,
    ]),
    ...rows.flatMap((i) => cols.map((j) => `var p${i}_${j} = 0.0;`)),
    `if (first <= u.first_row + row${ROWS - 1}) {`,
    "for (var head = 0u; head < u.heads; head++) {",
    ...rows.flatMap((i) => cols.map((j) => `var s${i}_${j} = 0.0;`)),
    ...unrolled(columns, 8, product),
    ...rows.map((i) => `let lse${i} = ${at("lse", `row${i}`, "head")} * ${Math.LOG2E};`),
    ...rows.flatMap((i) =>
      cols.map((j) => `p${i}_${j} += exp2(fma(s${i}_${j}, u.scale_log2, -lse${i}));`)
    ),
    "}",
    "}",
    ...rows.flatMap((i) => [
      `if (row0 + ${i}u < u.rows) {`,
      ...cols.map((j) =>
        `if (col${j} < u.cols) { ${
          at("target_p", `row${i}`, `col${j}`)
        } = select(0.0, p${i}_${j} * u.per_head, ${seen(i, j)}); }`
      ),
      "}",
    ]),
  ];
  const tiles = Math.ceil(target.rows / ROWS) * Math.ceil(target.cols / tileCols);
  return makeKernel({
    name: "attention_target",
    shape: `${target.rows}x${target.cols}x${heads}`,
    buffers: {
      q: matrix,
      kv: matrix,
      k_pe: matrix,
      lse: "read",
      ...(mask ? { mask: "read i32" as const } : {}),
      target_p: "read_write",
    },
    uniforms: {
      rows: target.rows,
      cols: target.cols,
      first_row: firstRow,
      heads,
      scale_log2: new Float(scale * Math.LOG2E),
      per_head: new Float(1 / heads),
      ...layoutUniforms({ q, kv, k_pe: kPe, lse, ...(mask ? { mask } : {}), target_p: target }),
    },
    workgroup: lanes,
    grid: foldGrid(tiles),
    declarations: [loader("q", dims, aligned), loader("k", dims, aligned)].join("\n"),
    body: body.join("\n"),
    flops: visiblePairs(firstRow, target.rows) * heads * 2 * (dims.nope + dims.rope),
    bytes: bytesOf(q, kv, kPe, lse, target),
  });
}

/** Pairs of a query of rows `firstRow … firstRow + rows` and a key that it may see. */
export function visiblePairs(firstRow: number, rows: number): number {
  return rows * firstRow + rows * (rows + 1) / 2;
}
