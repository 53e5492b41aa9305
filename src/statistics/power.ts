/**
 * What a comparison could have seen, and whether "no difference" may be said.
 *
 * @module
 */
import { studentCdf, studentQuantile } from "./distributions.ts";
import type { Interval } from "./interval.ts";

/** Chance to see an effect that is there, unless said otherwise. */
export const POWER = 0.8;

/** Chance to see one that is not. */
export const ALPHA = 0.05;

/**
 * The least effect that a comparison sees with {@linkcode POWER}:
 * MDE = (t₀.₉₇₅ + t₀.₈) · se at its degrees of freedom.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { minimalDetectableEffect } from "./power.ts";
 *
 * assert(Math.abs(minimalDetectableEffect({ se: 1, df: 10 }) - (2.228139 + 0.879058)) < 1e-5);
 * ```
 */
export function minimalDetectableEffect({ se, df }: Pick<Interval, "se" | "df">): number {
  if (!(df > 0)) return NaN;
  return (studentQuantile(1 - ALPHA / 2, df) + studentQuantile(POWER, df)) * se;
}

/**
 * The least number of pairs whose mean difference has an MDE of at most `effect`.
 *
 * @param sd standard deviation of a difference
 * @throws {RangeError} if `effect` is not above 0
 */
export function pairsNeeded(sd: number, effect: number): number {
  if (!(effect > 0)) {
    throw new RangeError(`Cannot plan for an effect of ${effect}: use one above 0`);
  }
  const isEnough = (n: number) =>
    minimalDetectableEffect({ se: sd / Math.sqrt(n), df: n - 1 }) <= effect;
  let high = 2;
  while (!isEnough(high)) high *= 2;
  let low = Math.max(1, high / 2);
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (isEnough(middle)) high = middle;
    else low = middle;
  }
  return high;
}

/** Outcome of {@linkcode equivalence}. */
export interface Equivalence {
  /** Named beforehand: differences within ± margin count as none. */
  readonly margin: number;
  /** The larger p value of the two one-sided tests. */
  readonly p: number;
  /** Whether both reject at {@linkcode ALPHA}: the 90 % interval lies within the margin. */
  readonly isEquivalent: boolean;
}

/** Two one-sided tests (Schuirmann, 1987) that a difference lies within ± `margin`. */
export function equivalence({ estimate, se, df }: Interval, margin: number): Equivalence {
  if (!(margin > 0)) throw new RangeError(`Cannot test a margin of ${margin}: use one above 0`);
  const reach = margin - Math.abs(estimate);
  const p = !(df > 0) ? NaN : se === 0 ? (reach > 0 ? 0 : 1) : studentCdf(-reach / se, df);
  return { margin, p, isEquivalent: p < ALPHA };
}

/**
 * p values of several comparisons as they count together (Holm, 1979), in the order given: the
 * chance that any of them is a false alarm stays below {@linkcode ALPHA} if those below it are
 * believed. NaN stays NaN and does not count.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { holm } from "./power.ts";
 *
 * assert.deepEqual(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06]);
 * ```
 */
export function holm(pValues: readonly number[]): number[] {
  const order = pValues.map((_, i) => i)
    .filter((i) => !Number.isNaN(pValues[i]))
    .sort((a, b) => pValues[a] - pValues[b]);
  const out = pValues.map(() => NaN);
  let most = 0;
  order.forEach((index, rank) => {
    most = Math.max(most, Math.min(1, (order.length - rank) * pValues[index]));
    out[index] = most;
  });
  return out;
}
