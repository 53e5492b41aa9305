/**
 * Means by position or distance, in buckets of powers of two.
 *
 * @module
 */

/** Values from `from` up to, but not including, `to`. */
export interface Bucket {
  readonly from: number;
  readonly to: number;
  /** Values in it. */
  readonly count: number;
  /** Their mean. */
  readonly mean: number;
}

/**
 * Collects values by a whole number, from 0 on, in the buckets [0, 1), [1, 2), [2, 4), [4, 8) ….
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { Buckets } from "./positions.ts";
 *
 * const buckets = new Buckets();
 * buckets.add(2, 0.5);
 * buckets.add(3, 1.5);
 * assert.deepEqual(buckets.read(), [{ from: 2, to: 4, count: 2, mean: 1 }]);
 * ```
 */
export class Buckets {
  readonly #counts: number[] = [];
  readonly #sums: number[] = [];

  /** Adds a value at `place`. */
  add(place: number, value: number): void {
    const bucket = 32 - Math.clz32(place);
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1;
    this.#sums[bucket] = (this.#sums[bucket] ?? 0) + value;
  }

  /** The buckets that hold something, in rising order; none goes beyond `end`. */
  read(end = Infinity): Bucket[] {
    return this.#counts.flatMap((count, bucket) =>
      count === undefined ? [] : [{
        from: bucket === 0 ? 0 : 2 ** (bucket - 1),
        to: Math.min(2 ** bucket, end),
        count,
        mean: this.#sums[bucket] / count,
      }]
    );
  }

  /** Count and mean of all values; the mean of none is NaN. */
  total(): { count: number; mean: number } {
    let count = 0, sum = 0;
    for (const bucket in this.#counts) {
      count += this.#counts[bucket];
      sum += this.#sums[bucket];
    }
    return { count, mean: sum / count };
  }
}
