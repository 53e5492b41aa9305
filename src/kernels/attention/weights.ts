/**
 * The weights of attention and the gradients of its scores, computed once and kept, so that the
 * gradients of queries, keys and values are plain products (`sums.ts`): 5 products for a
 * pair where passes that stream past each other, and recompute the weights, take 7.
 *
 * @module
 */
import { headColumns, type HeadTensor, isAligned, loader, spanLoaders } from "./heads.ts";
import { BLOCK, blocksAlong, blockStart, type Units } from "./blocks.ts";
import { type AttentionSpec, type Named, visiblePairs } from "./pass.ts";
import { headAlongK } from "./head_sources.ts";
import { Float, foldGrid, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { rounds } from "../wgsl/loops.ts";
import {
  type Element,
  type Layout,
  layoutUniforms,
  mapValues,
  read,
  write,
} from "../wgsl/operand.ts";
import {
  colOf,
  lanePlace,
  rowOf,
  sumsOf,
  type Tile,
  tileArrays,
  tileLoop,
  tileThreads,
} from "../product/tile_loop.ts";

/** The heads that are read. */
const TENSORS = ["q", "k", "v", "grad_o"] as const;

/** What {@linkcode attentionWeights} reads and writes. */
export interface WeightOperands {
  /** The inputs, `grad_o`, `lse` and `delta` as in `attention.ts`; with a selection, its `mask`. */
  readonly read: Named;
  /** Weights, and gradients of the scores times the scores' factor; see `blocks.ts`. */
  readonly weights: Layout;
  readonly gradients: Layout;
}

/** What is not a vector of a head. */
const SCALARS: Readonly<Record<string, Element>> = { lse: "f32", delta: "f32", mask: "u32" };

/** The kernel for the blocks of some heads; 0 where a query doesn't see a key. */
export function attentionWeights(
  spec: AttentionSpec,
  tile: Tile,
  units: Units,
  { read: given, weights, gradients }: WeightOperands,
): Kernel {
  const { dims, extent, scale } = spec;
  const sharers = dims.heads / dims.kvHeads;
  const wide = Object.keys(given).filter((name) => !(name in SCALARS));
  const aligned = isAligned(dims, wide.map((name) => given[name]));
  const operands = mapValues(
    given,
    (m, name) => read(m, SCALARS[name] ?? (aligned ? "vec4f" : "f32")),
  );
  const blocks = blocksAlong(extent);
  const parts = (BLOCK / tile.rows) * (BLOCK / tile.cols);
  const heads = units.count * sharers;
  // Rows of blocks, the longest with the shortest and so on, have `blocks` + 1 blocks together.
  const places = Math.ceil(blocks / 2) * (blocks + 1);
  const side = (tensor: HeadTensor, first: string, head: string) =>
    headAlongK(tensor, dims, aligned, tile, {
      // Tokens past the last one repeat it.
      row: (line) => `batch_row + min(${first} + ${line}, u.seq_len - 1u)`,
      head,
    });
  const sources = (rows: HeadTensor, cols: HeadTensor) => ({
    a: side(rows, "first_query", "head"),
    b: side(cols, "first_key", "kv_head"),
  });
  const ofScores = sources("q", "k");
  const ofGradients = sources("grad_o", "v");
  const width = (tensor: HeadTensor) => 4 * headColumns(tensor, dims);
  return makeKernel({
    name: "attention_weights",
    shape: `${extent.batch}x${extent.seqLen}x${dims.heads}`,
    operands: {
      ...operands,
      weights: write(weights, "vec4f"),
      gradients: write(gradients, "vec4f"),
    },
    uniforms: {
      seq_len: extent.seqLen,
      blocks,
      first_head: units.first * sharers,
      heads,
      workgroups: places * parts,
      scale: new Float(scale),
      scale_log2: new Float(scale * Math.LOG2E),
      ...layoutUniforms(operands),
    },
    workgroup: tileThreads(tile),
    grid: foldGrid(heads * places * parts),
    iterations: rounds(width("q"), tile.depth) + rounds(width("grad_o"), tile.depth),
    declarations: [
      ...TENSORS.map((t) => loader(t, dims, aligned)),
      ...(aligned ? TENSORS.map((t) => spanLoaders(t, dims)) : []),
      tileArrays(tile),
    ].join("\n"),
    body: `
let index = wid.x + wid.y * groups.x;
let place = index / ${parts}u;
let pair = place / (u.blocks + 1u) % ((u.blocks + 1u) / 2u);
let along = place % (u.blocks + 1u);
let local = index / u.workgroups;
if (local >= u.heads) { return; }
var query_block = u.blocks - 1u - pair;
var key_block = along;
if (along > query_block) {
  if (pair == query_block) { return; }
  query_block = pair;
  key_block = along - (u.blocks - pair);
}
let first_row = index % ${parts}u / ${BLOCK / tile.cols}u * ${tile.rows}u;
let first_col = index % ${BLOCK / tile.cols}u * ${tile.cols}u;
let first_query = query_block * ${BLOCK}u + first_row;
let first_key = key_block * ${BLOCK}u + first_col;
let unit = u.first_head + local;
let batch_row = unit / ${dims.heads}u * u.seq_len;
let head = unit % ${dims.heads}u;
let kv_head = head / ${sharers}u;
${lanePlace(tile)}
${sumsOf(tile, "s")}
${tileLoop(tile, ofScores, "0u", `${width("q")}u`)}
${toWeights(tile, "mask" in given)}
${sumsOf(tile, "dp")}
${tileLoop(tile, ofGradients, "0u", `${width("grad_o")}u`, { sum: "dp" })}
let start = ${blockStart("local", "query_block", "key_block")};
${stores(tile)}`,
    flops: 2 * heads * visiblePairs(spec) * (width("q") + width("v")),
  });
}

/** Makes weights of the scores `s`. */
function toWeights(t: Tile, masked: boolean): string {
  const lines: string[] = [];
  for (let q = 0; q < t.threadCols / 4; q++) {
    lines.push(`let key${q} = first_key + ${colOf(t, q)};`);
  }
  for (let i = 0; i < t.threadRows; i++) {
    lines.push(
      `let query${i} = first_query + ${rowOf(t, i)};`,
      `let row${i} = batch_row + min(query${i}, u.seq_len - 1u);`,
      // Queries past the end see nothing.
      `let log${i} = select(3e38, lse[u.lse_offset + row${i} * u.lse_stride + head] * ${Math.LOG2E}, query${i} < u.seq_len);`,
    );
    for (let q = 0; q < t.threadCols / 4; q++) {
      const sum = `s${i}_${q}`;
      const keys = `(vec4u(key${q}) + vec4u(0u, 1u, 2u, 3u))`;
      const seen = [`(${keys} <= vec4u(query${i}))`];
      if (masked) {
        const word = `mask[u.mask_offset + row${i} * u.mask_stride + key${q} / 32u]`;
        lines.push(
          `let bits${i}_${q} = select(0u, ${word} >> (key${q} % 32u), key${q} < u.seq_len);`,
        );
        seen.push(`((vec4u(bits${i}_${q}) & vec4u(1u, 2u, 4u, 8u)) != vec4u())`);
      }
      const weight = `exp2(fma(${sum}, vec4f(u.scale_log2), vec4f(-log${i})))`;
      lines.push(`${sum} = select(vec4f(), ${weight}, ${seen.join(" & ")});`);
    }
  }
  return lines.join("\n");
}

/** Writes the weights `s`, and the gradients of the scores from those of the weights, `dp`. */
function stores(t: Tile): string {
  const lines: string[] = [];
  for (let i = 0; i < t.threadRows; i++) {
    lines.push(
      `let delta${i} = delta[u.delta_offset + row${i} * u.delta_stride + head];`,
      `let at${i} = start + (first_row + ${rowOf(t, i)}) * ${BLOCK}u + first_col;`,
    );
    for (let q = 0; q < t.threadCols / 4; q++) {
      const at = `(at${i} + ${colOf(t, q)}) / 4u`;
      lines.push(
        `weights[${at}] = s${i}_${q};`,
        `gradients[${at}] = s${i}_${q} * (dp${i}_${q} - vec4f(delta${i})) * u.scale;`,
      );
    }
  }
  return lines.join("\n");
}
