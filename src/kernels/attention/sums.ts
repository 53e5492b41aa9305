/**
 * The gradients of attention's queries, keys and values as products with what `weights.ts`
 * has kept: rows of weights times rows of a head.
 *
 * @module
 */
import {
  columnRuns,
  headColumns,
  type HeadDims,
  type HeadTensor,
  isAligned,
  loader,
  spanLoaders,
  storer,
} from "./heads.ts";
import { BLOCK, blocksAlong, blockStart, type Units } from "./blocks.ts";
import { addedTo, type AttentionSpec, type PassOperands, visiblePairs } from "./pass.ts";
import { foldGrid, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { rounds } from "../wgsl/loops.ts";
import {
  type Layout,
  layoutUniforms,
  mapValues,
  read,
  readAll,
  update,
  write,
} from "../wgsl/operand.ts";
import { balancedOrder } from "../wgsl/workgroup_order.ts";
import {
  colOf,
  dividesLines,
  lanePlace,
  rowOf,
  type Source,
  sumsOf,
  tallTile,
  type Tile,
  tileArrays,
  tileLoop,
  tileThreads,
} from "../product/tile_loop.ts";

/** A gradient that is a product: of which tensor, and whether the sums run over queries. */
export interface AttentionSum {
  readonly into: "grad_q" | "grad_k" | "grad_v";
  readonly of: HeadTensor;
  readonly overQueries: boolean;
}

/** The three gradients. Those of values sum weights, the others gradients of scores. */
export const SUMS = {
  gradV: { into: "grad_v", of: "grad_o", overQueries: true },
  gradK: { into: "grad_k", of: "q", overQueries: true },
  gradQ: { into: "grad_q", of: "k", overQueries: false },
} as const satisfies Record<string, AttentionSum>;

/** What a sum reads, beside the weights, and writes: matrices of a tensor, see `heads.ts`. */
export interface SumOperands extends PassOperands {
  readonly weights: Layout;
}

/**
 * The kernel of a gradient, for some heads. The tile has {@linkcode BLOCK} rows.
 */
export function attentionSum(
  { into, of, overQueries }: AttentionSum,
  spec: AttentionSpec,
  units: Units,
  { weights, read: given, written }: SumOperands,
  tile = tallTile(headColumns(of, spec.dims)),
): Kernel {
  const { dims, extent } = spec;
  const columns = headColumns(of, dims);
  const across = Math.ceil(4 * columns / tile.cols);
  const blocks = blocksAlong(extent);
  const sharers = dims.heads / dims.kvHeads;
  const heads = overQueries ? units.count : units.count * sharers;
  const ofHeads = overQueries ? dims.kvHeads : dims.heads;
  const all = [...Object.values(given), ...Object.values(written).map(({ into }) => into)];
  const aligned = isAligned(dims, all);
  const type = aligned ? "vec4f" : "f32";
  const operands = {
    ...readAll(given, type),
    ...mapValues(written, ({ into, add }) => (add ? update : write)(into, type)),
  };
  const ofHead = overQueries ? "q_head" : "kv_head";
  const sources = {
    a: blockSource(overQueries),
    b: headAsLines(of, dims, aligned, tile, across, ofHead),
  };
  const loop = (begin: string, end: string) => tileLoop(tile, sources, begin, end);
  const walk = overQueries
    ? `for (var sharer = 0u; sharer < ${sharers}u; sharer++) {
let local = local_head * ${sharers}u + sharer;
let q_head = head * ${sharers}u + sharer;
${loop(`block * ${BLOCK}u`, `u.blocks * ${BLOCK}u`)}
}`
    : `let local = local_head;
let kv_head = head / ${sharers}u;
${loop("0u", `(block + 1u) * ${BLOCK}u`)}`;
  return makeKernel({
    name: `attention_${into}`,
    shape: `${extent.batch}x${extent.seqLen}x${dims.heads}`,
    operands: { weights: read(weights, "vec4f"), ...operands },
    uniforms: {
      seq_len: extent.seqLen,
      blocks,
      first_head: overQueries ? units.first : units.first * sharers,
      heads,
      ...layoutUniforms(operands),
    },
    workgroup: tileThreads(tile),
    grid: foldGrid(heads * blocks * across),
    iterations: (overQueries ? sharers : 1) * (1 + rounds(blocks * BLOCK, tile.depth)),
    declarations: [
      loader(of, dims, aligned),
      ...(aligned ? [spanLoaders(of, dims)] : []),
      storer(into, dims, aligned, addedTo(written)),
      tileArrays(tile),
    ].join("\n"),
    body: `
let index = wid.x + wid.y * groups.x;
let count = u.heads * u.blocks * ${across}u;
if (index >= count) { return; }
${balancedOrder("count")}
let rank = order / (u.heads * ${across}u);
let block = ${overQueries ? "rank" : "u.blocks - 1u - rank"};
let local_head = order / ${across}u % u.heads;
let first_col = order % ${across}u * ${tile.cols}u;
let unit = u.first_head + local_head;
let batch_row = unit / ${ofHeads}u * u.seq_len;
let head = unit % ${ofHeads}u;
${lanePlace(tile)}
${sumsOf(tile)}
${walk}
${stores(tile, into, columns)}`,
    flops: 2 * units.count * sharers * visiblePairs(spec) * 4 * columns,
  });
}

/** Columns of a head, as lines; tokens past the last one repeat it. */
function headAsLines(
  tensor: HeadTensor,
  dims: HeadDims,
  aligned: boolean,
  tile: Tile,
  across: number,
  head: string,
): Source {
  const columns = headColumns(tensor, dims);
  const runs = columnRuns(tensor, dims, aligned);
  const whole = across * tile.cols === 4 * columns;
  const apart = across === 1 && whole && runs.every((run) => dividesLines(tile, 4 * run.columns));
  return {
    alongK: false,
    parts: apart ? runs.map((run) => 4 * run.columns) : undefined,
    before: (id, line) => [`let ${id}Col = first_col / 4u + (${line}) / 4u;`],
    read(id, step, part) {
      const row = `batch_row + min(k + ${step}, u.seq_len - 1u)`;
      if (apart) return `${runs[part].load}(${row}, ${head}, ${id}Col - ${runs[part].origin}u)`;
      const column = whole ? `${id}Col` : `min(${id}Col, ${columns - 1}u)`;
      return `load_${tensor}(${row}, ${head}, ${column})`;
    },
  };
}

/** Rows of the kept weights, or, for sums over queries, their columns. */
function blockSource(overQueries: boolean): Source {
  const at = (queries: string, keys: string) => blockStart("local", queries, keys);
  if (overQueries) {
    return {
      alongK: false,
      before: (id, line, step) => [`let ${id}At = ${step} * ${BLOCK}u + ${line};`],
      read: (id) =>
        `weights[(${at(`(k / ${BLOCK}u)`, "block")} + k % ${BLOCK}u * ${BLOCK}u + ${id}At) / 4u]`,
    };
  }
  return {
    alongK: true,
    before: (id, line, step) => [`let ${id}At = ${line} * ${BLOCK}u + ${step};`],
    read: (id) => `weights[(${at("block", `k / ${BLOCK}u`)} + k % ${BLOCK}u + ${id}At) / 4u]`,
  };
}

function stores(t: Tile, into: string, columns: number): string {
  const lines: string[] = [];
  for (let i = 0; i < t.threadRows; i++) {
    lines.push(
      `let row${i} = block * ${BLOCK}u + ${rowOf(t, i)};`,
      `if (row${i} < u.seq_len) {`,
    );
    for (let q = 0; q < t.threadCols / 4; q++) {
      const column = `(first_col + ${colOf(t, q)}) / 4u`;
      const store = `store_${into}(batch_row + row${i}, head, ${column}, s${i}_${q});`;
      lines.push(`if (${column} < ${columns}u) { ${store} }`);
    }
    lines.push("}");
  }
  return lines.join("\n");
}
