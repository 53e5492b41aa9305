/**
 * Scores of the lightning indexer (DeepSeek-V3.2, arXiv:2512.02556, eq. 1) for a chunk of queries.
 *
 * @module
 */
import type { IndexScoresSpec } from "./scores_spec.ts";
import { subgroupScores } from "./scores_subgroup.ts";
import { tiledScores } from "./scores_tiled.ts";
import type { Kernel } from "../wgsl/kernel.ts";
import { subgroupLanes } from "../product/subgroup.ts";

export type { IndexScoresSpec } from "./scores_spec.ts";

/**
 * scores[t, s] = scale · Σ_j w[t, j] · act(q_j[t] · k[s]) where query t may see key s (s ≤ t), and
 * -∞ where it may not.
 *
 * @throws {RangeError} if the shapes do not fit together
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { indexScores } from "./scores.ts";
 *
 * const matrix = (rows: number, cols: number) => ({ rows, cols, offset: 0, stride: cols });
 * const capabilities = {
 *   software: false,
 *   maxBindingBytes: 2 ** 27,
 *   workgroupBytes: 2 ** 15,
 *   maxInvocations: 256,
 *   subgroups: null,
 * };
 * const kernel = indexScores({
 *   q: matrix(16, 4 * 8),
 *   k: matrix(48, 8),
 *   w: matrix(16, 4),
 *   scores: matrix(16, 48),
 *   firstRow: 32,
 *   indexer: { heads: 4, dim: 8, activation: "relu", scale: 32 ** -0.5 },
 *   capabilities,
 * });
 * assert.equal(kernel.label, "index_scores_relu 16x48x4x8");
 * ```
 */
export function indexScores(spec: IndexScoresSpec): Kernel {
  const { q, k, w, scores, indexer, batch = 1, capabilities } = spec;
  const { heads, dim } = indexer;
  const fits = q.cols === heads * dim && k.cols === dim && w.cols === heads &&
    q.rows === scores.rows && w.rows === scores.rows && k.rows === scores.cols * batch &&
    q.rows % batch === 0;
  if (!fits) {
    const shapes = [q, k, w, scores].map((x) => `${x.rows}x${x.cols}`).join(", ");
    throw new RangeError(
      `Cannot score ${heads} heads of ${dim} with q, k, w, scores of shapes ${shapes}`,
    );
  }
  const lanes = capabilities.software ? subgroupLanes(capabilities.subgroups) : null;
  if (lanes && spec.signs) throw new RangeError("Cannot keep signs: only kernels for GPUs do");
  return lanes ? subgroupScores(spec, lanes) : tiledScores(spec);
}
