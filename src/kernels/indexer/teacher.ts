/**
 * The teacher of the indexer: attention averaged over the heads, for a chunk of queries.
 *
 * @module
 */
import { pairsOfChunk, type Teacher } from "./indexer.ts";
import type { Capabilities } from "../wgsl/device.ts";
import { Float, foldGrid, isVec4, type Kernel, makeKernel, range } from "../wgsl/kernel.ts";
import { at } from "../wgsl/layout_units.ts";
import { type Layout, layoutUniforms, read, write } from "../wgsl/operand.ts";
import { isAligned, loader, queryWidth } from "../attention/heads.ts";
import { targetRows } from "./teacher_rows.ts";
import { TARGET_TILES, targetTiles } from "./teacher_tiles.ts";
import { subgroupLanes } from "../product/subgroup.ts";
import { fitsDevice, type Tile } from "../product/tile_loop.ts";

/** What {@linkcode attentionTarget} reads and writes. R is the number of queries of a sequence. */
export interface AttentionTargetSpec {
  /** [batch · R, heads · (nope + rope)]: the queries from `firstRow` on. */
  readonly q: Layout;
  /** [batch · keys, heads · (nope + value)]: the sequence from its start. */
  readonly kv: Layout;
  /** [batch · keys, rope]. */
  readonly kPe: Layout;
  /** [batch · R, heads]: natural logarithm of each row's sum of exponentials, from the forward pass. */
  readonly lse: Layout;
  /** i32 [batch · R, words]: bit s % 32 of word s / 32 is set where key s counts. Default: all count. */
  readonly mask?: Layout;
  /** [batch · R, keys]: the result. */
  readonly target: Layout;
  /** Position of the first query in its sequence. */
  readonly firstRow: number;
  readonly teacher: Teacher;
  /** Sequences side by side, default 1. */
  readonly batch?: number;
  readonly capabilities: Capabilities;
  /** Tile on GPUs; default the first of `TARGET_TILES` that the device has room for, or rows. */
  readonly tile?: Tile;
}

/**
 * target[t, s] = (1 / heads) · Σ_h exp(scale · (q_h[t] · k_h[s]) − lse_h[t]) where key s is visible
 * (s ≤ t, and its bit is set), else 0. Rows sum to 1 where `lse` is that of the same keys.
 */
export function attentionTarget(spec: AttentionTargetSpec): Kernel {
  const { q, kv, kPe, lse, mask, target, firstRow, batch = 1, capabilities } = spec;
  const { dims, scale } = spec.teacher;
  const { heads } = dims;
  const aligned = isAligned(dims, [q, kv, kPe]);
  const tile = capabilities.software
    ? undefined
    : spec.tile ?? TARGET_TILES.find((t) => fitsDevice(t, capabilities));
  const inFours = tile !== undefined && isVec4(target);
  const code = tile
    ? targetTiles(dims, tile, aligned)
    : targetRows(dims, capabilities.software ? subgroupLanes(capabilities.subgroups) : null);
  const queries = target.rows / batch;
  const across = Math.ceil(target.cols / code.tileCols);
  const down = Math.ceil(queries / code.tileRows);
  const type = aligned ? "vec4f" : "f32";
  const operands = {
    q: read(q, type),
    kv: read(kv, type),
    k_pe: read(kPe, type),
    lse: read(lse),
    ...mask ? { mask: read(mask, "i32") } : {},
    teacher: write(target, inFours ? "vec4f" : "f32"),
  };
  return makeKernel({
    name: "attention_target",
    shape: `${target.rows}x${target.cols}x${heads}`,
    operands,
    uniforms: {
      queries,
      keys: target.cols,
      first_row: firstRow,
      heads,
      across,
      down,
      tiles: across * down * batch,
      scale_log2: new Float(scale * Math.LOG2E),
      per_head: new Float(1 / heads),
      ...layoutUniforms(operands),
    },
    workgroup: code.workgroup,
    grid: foldGrid(across * down * batch),
    iterations: code.iterations,
    declarations: `${loader("q", dims, aligned)}
${loader("k", dims, aligned)}
${inFours ? storeFour(mask) : storeOne(mask)}
${code.declarations}`,
    body: `
let tile = wid.x + wid.y * groups.x;
if (tile >= u.tiles) { return; }
let first_key = tile % u.across * ${code.tileCols}u;
let first_query = tile / u.across % u.down * ${code.tileRows}u;
let sequence = tile / u.across / u.down;
let q_row = sequence * u.queries;
let k_row = sequence * u.keys;
let visible = first_key < u.first_row + first_query + ${code.tileRows}u;
${code.body}`,
    flops: batch * pairsOfChunk(firstRow, queries) * heads * 2 * queryWidth(dims),
  });
}

/** The bit of `key` and those after it. */
const MASK_BITS = `(u32(${at("mask", "row", "key / 32u")}) >> (key % 32u))`;

/** `store` and `store_four` for any layout of the result. */
function storeOne(mask?: Layout): string {
  const bit = mask ? ` && (${MASK_BITS} & 1u) == 1u` : "";
  return `fn store(query: u32, key: u32, sum: f32, q_row: u32) {
  if (query >= u.queries || key >= u.keys) { return; }
  let row = q_row + query;
  let visible = key <= u.first_row + query${bit};
  ${at("teacher", "row", "key")} = select(0.0, sum * u.per_head, visible);
}
fn store_four(query: u32, key: u32, sums: vec4f, q_row: u32) {
${range(4).map((e) => `  store(query, key + ${e}u, sums[${e}], q_row);`).join("\n")}
}`;
}

/** `store_four` for rows of whole `vec4`s. */
function storeFour(mask?: Layout): string {
  const bits = mask ? ` & ((vec4u(${MASK_BITS}) & vec4u(1u, 2u, 4u, 8u)) != vec4u())` : "";
  return `fn store_four(query: u32, key: u32, sums: vec4f, q_row: u32) {
  if (query >= u.queries || key >= u.keys) { return; }
  let row = q_row + query;
  let visible = (vec4u(key) + vec4u(0u, 1u, 2u, 3u) <= vec4u(u.first_row + query))${bits};
  teacher[(u.teacher_offset + row * u.teacher_stride + key) / 4u] =
    select(vec4f(), sums * u.per_head, visible);
}`;
}
