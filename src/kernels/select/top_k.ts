/**
 * The k largest of the visible scores of each row, exactly and always the same: of equal scores the
 * lower index wins, or if it is asked for the higher one, -0 equals +0, and NaN with a clear sign bit
 * is larger than any number.
 *
 * @module
 */
import type { Kernel } from "../wgsl/kernel.ts";
import { subgroupLanes } from "../product/subgroup.ts";
import { radixSelect } from "./top_k_radix.ts";
import type { TopKSpec } from "./top_k_spec.ts";
import { fitsSubgroup, subgroupSelect } from "./top_k_subgroup.ts";

export type { TieRule, TopKSpec } from "./top_k_spec.ts";

/** Most keys of a row. */
export const MAX_KEYS = 65_536;

/**
 * indices[t] = the min(k, t + 1) keys with the largest scores among 0 … t, ascending, then -1.
 * With `positions`, t is the row's position.
 *
 * @throws {RangeError} if the shapes do not fit together, or rows have more than 65 536 keys
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { topK } from "./top_k.ts";
 *
 * const matrix = (rows: number, cols: number) => ({ rows, cols, offset: 0, stride: cols });
 * const capabilities = {
 *   software: false,
 *   maxBindingBytes: 2 ** 27,
 *   workgroupBytes: 2 ** 15,
 *   maxInvocations: 256,
 *   subgroups: null,
 * };
 * const sizes = { firstRow: 32, capabilities };
 * const kernel = topK({ scores: matrix(16, 48), indices: matrix(16, 8), ...sizes });
 * assert.equal(kernel.label, "top_k 8 of 16x48");
 * ```
 */
export function topK(spec: TopKSpec): Kernel {
  const { scores, indices, firstRow, batch = 1, capacity = scores.cols, capabilities } = spec;
  const rows = scores.rows / batch;
  if (
    indices.rows !== scores.rows || !Number.isInteger(rows) || firstRow + rows > scores.cols ||
    capacity < scores.cols
  ) {
    throw new RangeError(
      `Cannot select from ${batch} times rows ${firstRow} to ${firstRow + rows} with scores ` +
        `${scores.rows}x${scores.cols} and indices ${indices.rows}x${indices.cols}`,
    );
  }
  if (capacity > MAX_KEYS) {
    throw new RangeError(`Cannot select from ${capacity} keys: a row may have ${MAX_KEYS}`);
  }
  const lanes = capabilities.software ? subgroupLanes(capabilities.subgroups) : null;
  return lanes && fitsSubgroup(capacity, lanes) ? subgroupSelect(spec, lanes) : radixSelect(spec);
}
