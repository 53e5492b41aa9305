/**
 * Scores of the lightning indexer for one query over the cached keys.
 *
 * @module
 */
import { activated, type Indexer } from "../indexer/indexer.ts";
import { Float, foldGrid, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { at, sumOfUnit, widthOf } from "../wgsl/layout_units.ts";
import { type Layout, layoutUniforms, read, unitType, write } from "../wgsl/operand.ts";

/** What {@linkcode cacheScores} computes. */
export interface CacheScoresSpec {
  /** [1, heads · dim]. */
  readonly q: Layout;
  /** [capacity, dim]. */
  readonly k: Layout;
  /** [1, heads]: signed weights of the heads. */
  readonly w: Layout;
  /** i32 [1, 1]: position t of the query. */
  readonly position: Layout;
  /** [1, capacity]. */
  readonly scores: Layout;
  readonly indexer: Indexer;
}

const WORKGROUP = 64;

/**
 * scores[s] = scale · Σ_j w[j] · act(q_j · k[s]) of the keys s ≤ t; others are not written.
 */
export function cacheScores(spec: CacheScoresSpec): Kernel {
  const { q, k, w, position, scores, indexer } = spec;
  const { heads, dim, activation, scale } = indexer;
  const width = widthOf(q, k);
  const type = unitType(width);
  const operands = {
    q: read(q, width),
    k: read(k, width),
    w: read(w),
    position: read(position, "i32"),
    scores: write(scores),
  };
  return makeKernel({
    name: `cache_scores_${activation}`,
    shape: `${k.rows}x${heads}x${dim}`,
    operands,
    uniforms: {
      heads,
      dim: dim / width,
      scale: new Float(scale),
      ...layoutUniforms(operands),
    },
    workgroup: WORKGROUP,
    grid: foldGrid(Math.ceil(k.rows / WORKGROUP)),
    iterations: heads * (1 + dim / width),
    body: `
  let s = (wid.x + wid.y * groups.x) * ${WORKGROUP}u + lane;
  if (s > u32(position[u.position_offset])) { return; }
  var score = 0.0;
  for (var head = 0u; head < u.heads; head++) {
    var sum = ${type}(0.0);
    for (var i = 0u; i < u.dim; i++) {
      sum += ${at("q", "0u", "head * u.dim + i")} * ${at("k", "s", "i")};
    }
    let product = ${sumOfUnit(width, "sum")};
    score += ${at("w", "0u", "head")} * ${activated(indexer, "product")};
  }
  ${at("scores", "0u", "s")} = score * u.scale;`,
    flops: 2 * k.rows * heads * (dim + 1),
  });
}
