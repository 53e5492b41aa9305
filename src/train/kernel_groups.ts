/**
 * GPU time of a step by what it is spent on.
 *
 * @module
 */
import type { Metrics } from "../engine.ts";
import type { ProfileRow } from "../webgpu/plan/profile.ts";

/** What kernels work for; the first pattern that fits a kernel's label counts. */
const GROUPS: readonly [group: string, pattern: RegExp][] = [
  ["top_k", /^(top_k|selection_|scan_starts|recent_indices|random_scores)/],
  ["indexer", /^(index_|indexer_|attention_target|block_pool|mask_overlap|mean_of_rows)/],
  ["attention", /^(attention|mosa_|sum_heads)/],
  ["matmul", /^matmul/],
  ["optimizer", /^(adamw|sum_of_squares|norm_of_partials)/],
];

/**
 * The group of a kernel: `matmul`, `attention`, `indexer` (scores, its loss and its teacher),
 * `top_k`, `optimizer` or `other`. The indexer's projections count as `matmul`.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { kernelGroup } from "./kernel_groups.ts";
 *
 * assert.equal(kernelGroup("matmul_nt 64x64x64"), "matmul");
 * assert.equal(kernelGroup("rms_norm 64x96"), "other");
 * ```
 */
export function kernelGroup(label: string): string {
  return GROUPS.find(([, pattern]) => pattern.test(label))?.[0] ?? "other";
}

/** Milliseconds of a profiled step, as `time/gpu/<group>_ms`. */
export function kernelTimes(rows: readonly ProfileRow[]): Metrics {
  const times: Metrics = {};
  for (const { label, ms } of rows) {
    const name = `time/gpu/${kernelGroup(label)}_ms`;
    times[name] = (times[name] ?? 0) + ms;
  }
  return times;
}
