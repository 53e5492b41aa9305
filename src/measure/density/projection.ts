/**
 * Latents c of a layer replaced by their projections P_j c onto the j strongest directions, by way of
 * the weights that multiply them: W (P_j c) = (W P_j) c, so nothing of the model changes.
 *
 * The directions are those of E[c cᵀ] about the origin, not about the mean: the maps from latents
 * have no biases, so that a constant takes a direction, too, and j numbers a token are all that the
 * projected model reads.
 *
 * @module
 */
import type { RunConfig } from "../../config/config.ts";
import { symmetricEigen } from "../symmetric_eigen.ts";

/**
 * Whether all that reads a latent is a product with a weight. Where `latentRope=onLatent` rotates it
 * before, by position, it is not.
 */
export function isProjectable({ latentRope }: Pick<RunConfig, "latentRope">): boolean {
  return latentRope !== "onLatent";
}

/**
 * Directions of the latents c of a layer from the sums of `latentStatistics`: the eigenvectors of
 * Σ c cᵀ, those with the most of Σ |c|² first.
 *
 * @param sums `[a + b + 1, a + b]`: a columns of inputs, b of latents
 * @param latents b
 * @returns `[b, b]`, a row a direction
 * @throws {RangeError} if the sums do not fit, or are not finite
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { latentDirections } from "./projection.ts";
 *
 * // No inputs; latents [0, 2] and [1, 0].
 * const directions = latentDirections([1, 0, 0, 4, 1, 2], 2);
 * assert.deepEqual([...directions].map(Math.abs), [0, 1, 1, 0]);
 * ```
 */
export function latentDirections(sums: ArrayLike<number>, latents: number): Float64Array {
  const width = Math.round((Math.sqrt(1 + 4 * sums.length) - 1) / 2);
  const inputs = width - latents;
  if (width * (width + 1) !== sums.length || inputs < 0) {
    throw new RangeError(`Cannot read ${sums.length} sums of ${latents} latents`);
  }
  const moments = Float64Array.from(
    { length: latents * latents },
    (_, i) => sums[(inputs + Math.floor(i / latents)) * width + inputs + i % latents],
  );
  return symmetricEigen(moments, latents).vectors;
}

/** A layer and the directions that its latents are projected onto. */
export interface Projection {
  /** Number of the layer, from 0. */
  readonly layer: number;
  /** `[kvLoraRank, kvLoraRank]`, orthonormal rows; see {@linkcode latentDirections}. */
  readonly directions: Float64Array;
  /** How many of them are kept, the first. */
  readonly rank: number;
}

/**
 * The parameters of a model whose layer reads projected latents: attention its keys and values, the
 * indexer what it makes of latents. All others are the same arrays.
 *
 * @param parameters values by Hugging Face's name
 * @throws {RangeError} if latents are rotated before they are read: see {@linkcode isProjectable}
 */
export function projectedParameters(
  config: RunConfig,
  parameters: ReadonlyMap<string, Float32Array>,
  { layer, directions, rank }: Projection,
): Map<string, Float32Array> {
  if (!isProjectable(config)) {
    throw new RangeError("Cannot project latents by their weights: latentRope=onLatent");
  }
  const readers = ["kv_b_proj"];
  if (config.indexKeyInput.startsWith("kvLatent")) readers.push("indexer.wk");
  if (config.indexInput === "kvLatent") readers.push("indexer.wq_b");
  const all = new Map(parameters);
  for (const reader of readers) {
    const name = `model.layers.${layer}.self_attn.${reader}.weight`;
    const weight = parameters.get(name);
    // Layers that share an indexer have none of their own.
    if (weight) all.set(name, projectedRows(weight, directions, { n: config.kvLoraRank, rank }));
  }
  return all;
}

/** Each row w of a matrix as Σ (w · v) v over the first `rank` directions v. */
function projectedRows(
  weight: Float32Array,
  directions: Float64Array,
  { n, rank }: { n: number; rank: number },
): Float32Array {
  const out = new Float32Array(weight.length);
  const row = new Float64Array(n);
  for (let start = 0; start < weight.length; start += n) {
    row.fill(0);
    for (let v = 0; v < rank * n; v += n) {
      let along = 0;
      for (let i = 0; i < n; i++) along += weight[start + i] * directions[v + i];
      for (let i = 0; i < n; i++) row[i] += along * directions[v + i];
    }
    out.set(row, start);
  }
  return out;
}
