/**
 * Gradients of the lightning indexer from the gradient of its scores, for a chunk of queries. The
 * products of queries and keys are recomputed. Sums have a fixed order: one pass goes over the
 * keys of each query, the other over the queries of each key.
 *
 * @module
 */
import type { Capabilities } from "../ops/op.ts";
import { type HeadDims, isAligned, loader, storer } from "./attention_access.ts";
import { visiblePairs } from "./attention_target.ts";
import { gradientRows } from "./index_gradient_rows.ts";
import { chooseIndexTile, gradientTiles, type IndexTile } from "./index_gradient_tiles.ts";
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

/** What both passes read. R is the number of queries of a sequence. */
export interface IndexGradientSpec {
  /** [batch · R, heads · dim]: the queries of rows `firstRow …` of a sequence. */
  readonly q: Layout;
  /** [batch · keys, dim]: the keys of the sequence from its start. */
  readonly k: Layout;
  /** [batch · R, heads]. */
  readonly w: Layout;
  /** [batch · R, keys]: the gradient of the scores. What lies above the diagonal is not read. */
  readonly gradScores: Layout;
  /** Position of the first query in its sequence. */
  readonly firstRow: number;
  readonly heads: number;
  readonly dim: number;
  readonly activation: "relu" | "none";
  readonly scale: number;
  /** Sequences side by side, default 1. */
  readonly batch?: number;
  readonly capabilities: Capabilities;
  /** Tile on GPUs; default the first of `INDEX_TILES` that the device has room for. */
  readonly tile?: IndexTile;
}

/** What a family of kernels adds to a pass. */
export interface GradientCode {
  readonly declarations: string;
  readonly body: string;
  readonly workgroup: number;
  /** Queries or keys of one workgroup. */
  readonly tileRows: number;
}

/**
 * Gradients of the queries and of the head weights, for the rows of the chunk:
 * gradQ[t, j] = scale · Σ_s G[t, s] w[t, j] act′(a) k[s] and gradW[t, j] = scale · Σ_s G[t, s] act(a),
 * with a = q[t, j] · k[s]. gradQ [batch · R, heads · dim], gradW
 * [batch · R, heads].
 * Bindings: q, k, w, gradScores, gradQ, gradW.
 */
export function indexGradientQ(spec: IndexGradientSpec, gradQ: Layout, gradW: Layout): Kernel {
  return passKernel("q", spec, { grad_q: gradQ, grad_w: gradW }, false);
}

/**
 * Gradients of the keys, head by head, for `sumHeads`:
 * gradK[s, j] = scale · Σ_t G[t, s] w[t, j] act′(a) q[t, j] over the queries t of the chunk. gradK
 * [batch · keys, heads · dim]; `accumulate` adds to what is there.
 * Bindings: q, k, w, gradScores, gradK.
 */
export function indexGradientK(
  spec: IndexGradientSpec,
  gradK: Layout,
  accumulate: boolean,
): Kernel {
  return passKernel("k", spec, { grad_k: gradK }, accumulate);
}

function passKernel(
  pass: "q" | "k",
  spec: IndexGradientSpec,
  written: Record<string, Layout>,
  accumulate: boolean,
): Kernel {
  const { q, k, w, gradScores, firstRow, heads, dim, batch = 1, capabilities } = spec;
  const dims: HeadDims = { heads, kvHeads: 1, nope: dim, rope: 0, value: dim, packed: false };
  const wide = { q, k, [`grad_${pass}`]: written[`grad_${pass}`] };
  const aligned = isAligned(dims, Object.values(wide));
  const tile = capabilities.software ? null : spec.tile ?? chooseIndexTile(dim, capabilities);
  const code = tile ? gradientTiles(pass, spec, tile) : gradientRows(pass, spec);
  const own = (name: string, access: "read" | "read_write"): BufferSpec =>
    aligned && name in wide ? `${access} vec4f` : access;
  const layouts = { q, k, w, grad_scores: gradScores, ...written };
  const [queries, keys] = [q.rows / batch, k.rows / batch];
  const tiles = Math.ceil((pass === "q" ? queries : keys) / code.tileRows);
  return makeKernel({
    name: `index_gradient_${pass}`,
    shape: `${gradScores.rows}x${gradScores.cols}x${heads}x${dim}`,
    buffers: Object.fromEntries(
      Object.keys(layouts).map((
        name,
      ) => [name, own(name, name in written ? "read_write" : "read")]),
    ),
    uniforms: {
      queries,
      keys,
      first_row: firstRow,
      heads,
      units: batch * heads,
      tiles,
      scale: new Float(spec.scale),
      ...layoutUniforms(layouts),
    },
    workgroup: code.workgroup,
    grid: foldGrid(tiles * batch * heads),
    declarations: [
      loader("q", dims, aligned),
      loader("k", dims, aligned),
      storer(`grad_${pass}`, dims, aligned, new Set(accumulate ? [`grad_${pass}`] : [])),
      code.declarations,
    ].join("\n"),
    // Tiles with the most visible pairs come first, so that the last workgroups are short ones.
    body: `
let index = wid.x + wid.y * groups.x;
if (index >= u.tiles * u.units) { return; }
let tile = ${pass === "q" ? "u.tiles - 1u - index / u.units" : "index / u.units"};
let head = index % u.heads;
let sequence = index % u.units / u.heads;
// First rows of the sequence.
let q_row = sequence * u.queries;
let k_row = sequence * u.keys;
${code.body}`,
    flops: batch * visiblePairs(firstRow, queries) * heads * 4 * dim,
    bytes: bytesOf(...Object.values(layouts)),
  });
}
