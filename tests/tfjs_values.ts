/** Random inputs for tests of the tfjs side, and how far results are from what they should be. */
import assert from "node:assert/strict";

/** A shape, with the range of its values if it matters. */
export type Input = number[] | { shape: number[]; low: number; high: number };

/**
 * Random values, numbers of float32 so that every backend gets the same ones. They keep clear of
 * each other and of multiples of 0.1, where a case may have a kink.
 */
export function valuesFor(inputs: Input[]): { values: Float32Array; shape: number[] }[] {
  const specs = inputs.map((input) =>
    Array.isArray(input) ? { shape: input, low: -1.5, high: 1.5 } : input
  );
  const total = specs.reduce((sum, { shape }) => sum + product(shape), 0);
  const places = Array.from({ length: total }, (_, i) => ({ i, key: Math.random() }))
    .sort((x, y) => x.key - y.key);
  return specs.map(({ shape, low, high }) => {
    const width = (high - low) / total;
    const margin = Math.min(0.001, width);
    const values = Float32Array.from({ length: product(shape) }, () => {
      const { i } = places.pop()!;
      while (true) {
        const value = low + width * (i + 0.8 * Math.random());
        if (Math.abs(value * 10 - Math.round(value * 10)) > margin) return value;
      }
    });
    return { values, shape };
  });
}

function product(shape: number[]): number {
  return shape.reduce((size, n) => size * n, 1);
}

/** Infinite if anything is not a number. */
export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  assert.equal(a.length, b.length);
  const largest = Math.max(...Array.from(a, (x, i) => Math.abs(x - b[i])));
  return Number.isNaN(largest) ? Infinity : largest;
}
