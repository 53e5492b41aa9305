/**
 * Gradients of the lightning indexer from the gradient of its scores, for a chunk of queries. Sums
 * have a fixed order: one pass goes over the keys of each query, the other over the queries of each
 * key.
 *
 * @module
 */
import type { IndexGradientSpec } from "./gradient_code.ts";
import { indexDims, pairsOfChunk } from "./indexer.ts";
import { isAligned, loader, storer } from "../attention/heads.ts";
import { gradientRows } from "./gradient_rows.ts";
import { gradientProducts, productTile } from "./gradient_products.ts";
import { Float, foldGrid, type Kernel, makeKernel, startsAtVec4 } from "../wgsl/kernel.ts";
import { type Layout, layoutUniforms, type Operand, read, update, write } from "../wgsl/operand.ts";
import { balancedOrder } from "../wgsl/workgroup_order.ts";

/** Whether the kernels read the signs of the products. Those that don't compute the products again. */
export function readsSigns(spec: Pick<IndexGradientSpec, "indexer" | "capabilities">): boolean {
  return spec.indexer.activation === "relu" && productTile(spec) !== null;
}

/**
 * Gradients of the queries and of the head weights, for the rows of the chunk:
 * gradQ[t, j] = scale · Σ_s G[t, s] w[t, j] act′(a) k[s] and gradW[t, j] = scale · Σ_s G[t, s] act(a),
 * with a = q[t, j] · k[s]. gradQ [batch · R, heads · dim], gradW [batch · R, heads].
 */
export function indexGradientQ(spec: IndexGradientSpec, gradQ: Layout, gradW: Layout): Kernel {
  return passKernel("q", spec, {
    gradient: gradQ,
    accumulate: false,
    rest: { grad_w: write(gradW) },
  });
}

/**
 * Gradients of the keys, head by head, for `sumHeads`:
 * gradK[s, j] = scale · Σ_t G[t, s] w[t, j] act′(a) q[t, j] over the queries t of the chunk. gradK
 * [batch · keys, heads · dim]; `accumulate` adds to what is there.
 */
export function indexGradientK(
  spec: IndexGradientSpec,
  gradK: Layout,
  accumulate: boolean,
): Kernel {
  return passKernel("k", spec, { gradient: gradK, accumulate, rest: {} });
}

function passKernel(
  pass: "q" | "k",
  spec: IndexGradientSpec,
  { gradient, accumulate, rest }: {
    gradient: Layout;
    accumulate: boolean;
    /** What else is written. */
    rest: Record<string, Operand>;
  },
): Kernel {
  const { q, k, w, gradScores, signs, firstRow, indexer, batch = 1 } = spec;
  const { heads, dim, scale } = indexer;
  if (readsSigns(spec) !== (signs !== undefined)) {
    throw new RangeError(`Cannot take the gradient of ReLU ${signs ? "with" : "without"} signs`);
  }
  const dims = indexDims(indexer);
  const aligned = isAligned(dims, [q, k, gradient]);
  const tile = productTile(spec);
  const code = tile ? gradientProducts(pass, spec, tile) : gradientRows(pass, spec);
  // Products read the gradient of the scores in fours, too.
  const fours = tile && startsAtVec4(gradScores);
  const type = aligned ? "vec4f" : "f32";
  const operands = {
    q: read(q, type),
    k: read(k, type),
    w: read(w),
    grad_scores: read(gradScores, fours ? "vec4f" : "f32"),
    ...signs ? { signs: read(signs, "u32") } : {},
    [`grad_${pass}`]: (accumulate ? update : write)(gradient, type),
    ...rest,
  };
  const [queries, keys] = [q.rows / batch, k.rows / batch];
  const tiles = Math.ceil((pass === "q" ? queries : keys) / code.tileRows);
  return makeKernel({
    name: `index_gradient_${pass}`,
    shape: `${gradScores.rows}x${gradScores.cols}x${heads}x${dim}`,
    operands,
    uniforms: {
      queries,
      keys,
      first_row: firstRow,
      heads,
      units: batch * heads,
      tiles,
      scale: new Float(scale),
      ...layoutUniforms(operands),
    },
    workgroup: code.workgroup,
    grid: foldGrid(tiles * batch * heads),
    iterations: code.iterations(pass === "q" ? keys : queries),
    declarations: [
      loader("q", dims, aligned),
      loader("k", dims, aligned),
      storer(`grad_${pass}`, dims, aligned, new Set(accumulate ? [`grad_${pass}`] : [])),
      code.declarations,
    ].join("\n"),
    // Tiles with the most visible pairs come first.
    body: `
let index = wid.x + wid.y * groups.x;
if (index >= u.tiles * u.units) { return; }
${balancedOrder("u.tiles * u.units")}
let tile = ${pass === "q" ? "u.tiles - 1u - order / u.units" : "order / u.units"};
let head = order % u.heads;
let sequence = order % u.units / u.heads;
// First rows of the sequence.
let q_row = sequence * u.queries;
let k_row = sequence * u.keys;
${code.body}`,
    flops: batch * pairsOfChunk(firstRow, queries) * heads * code.flopsPerPair,
  });
}
