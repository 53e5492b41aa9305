/**
 * Means and differences with their t intervals.
 *
 * @module
 */
import { studentCdf, studentQuantile } from "./distributions.ts";

/** Share of repetitions in which an interval covers the truth, unless said otherwise. */
export const LEVEL = 0.95;

/** An estimate with its uncertainty. */
export interface Interval {
  /** Best guess. */
  readonly estimate: number;
  /** Standard error; NaN for a single value. */
  readonly se: number;
  /** Degrees of freedom of `se`. */
  readonly df: number;
  /** Lower limit; NaN for a single value. */
  readonly low: number;
  /** Upper limit; NaN for a single value. */
  readonly high: number;
  /** Independent units: trunks. */
  readonly n: number;
}

/** Mean, sample variance (n - 1) and number of values. */
function moments(values: readonly number[]): { mean: number; variance: number; n: number } {
  const n = values.length;
  const mean = values.reduce((a, b) => a + b, 0) / n;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, variance: squares / (n - 1), n };
}

function intervalOf(
  { estimate, se, df, n }: Omit<Interval, "low" | "high">,
  level: number,
): Interval {
  const reach = df > 0 ? studentQuantile((1 + level) / 2, df) * se : NaN;
  return { estimate, se, df, n, low: estimate - reach, high: estimate + reach };
}

/**
 * The mean of independent values. A single one has no interval: its limits are NaN.
 *
 * @throws {RangeError} for no values, or one that is not finite
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { meanInterval } from "./interval.ts";
 *
 * const { estimate, low, high } = meanInterval([1, 2, 3]);
 * assert.equal(estimate, 2);
 * assert(low < -0.48 && high > 4.48 && high < 4.49);
 * ```
 */
export function meanInterval(values: readonly number[], level = LEVEL): Interval {
  requireValues(values);
  const { mean, variance, n } = moments(values);
  const se = n > 1 ? Math.sqrt(variance / n) : NaN;
  return intervalOf({ estimate: mean, se, df: n - 1, n }, level);
}

/**
 * The mean difference of pairs, `a[i] - b[i]`: branches of the same trunk.
 *
 * @throws {RangeError} if they are not pairs
 */
export function pairedInterval(
  a: readonly number[],
  b: readonly number[],
  level = LEVEL,
): Interval {
  if (a.length !== b.length) {
    throw new RangeError(`Cannot pair ${a.length} values with ${b.length}`);
  }
  return meanInterval(a.map((value, i) => value - b[i]), level);
}

/**
 * The difference of the means of two independent samples, without the assumption that they have the
 * same variance (Welch, 1947).
 */
export function differenceInterval(
  a: readonly number[],
  b: readonly number[],
  level = LEVEL,
): Interval {
  requireValues(a);
  requireValues(b);
  const [x, y] = [moments(a), moments(b)];
  const [u, v] = [x.variance / x.n, y.variance / y.n];
  const se = Math.sqrt(u + v);
  // Samples without any spread leave no degrees to count: those of equal variances are taken.
  const df = se === 0 ? x.n + y.n - 2 : (u + v) ** 2 / (u ** 2 / (x.n - 1) + v ** 2 / (y.n - 1));
  return intervalOf({ estimate: x.mean - y.mean, se, df, n: x.n + y.n }, level);
}

/**
 * A straight line through independent points by least squares: the interval of its slope.
 *
 * @throws {RangeError} if x and y are not pairs, or all x are equal
 */
export function slopeInterval(
  x: readonly number[],
  y: readonly number[],
  level = LEVEL,
): Interval {
  requireValues(x);
  requireValues(y);
  const n = x.length;
  const [mx, my] = [moments(x).mean, moments(y).mean];
  const sxx = x.reduce((sum, value) => sum + (value - mx) ** 2, 0);
  if (n !== y.length || sxx === 0) {
    throw new RangeError("Cannot fit a slope: it needs pairs with different x");
  }
  const slope = x.reduce((sum, value, i) => sum + (value - mx) * (y[i] - my), 0) / sxx;
  const rest = y.reduce((sum, value, i) => sum + (value - my - slope * (x[i] - mx)) ** 2, 0);
  const se = n > 2 ? Math.sqrt(rest / (n - 2) / sxx) : NaN;
  return intervalOf({ estimate: slope, se, df: n - 2, n }, level);
}

/** Two-sided p value of the hypothesis that the truth is `value`. */
export function pValue({ estimate, se, df }: Interval, value = 0): number {
  if (!(df > 0)) return NaN;
  if (se === 0) return estimate === value ? 1 : 0;
  return 2 * studentCdf(-Math.abs((estimate - value) / se), df);
}

/** `exp` of an interval: a ratio from a difference of logarithms. */
export function expInterval(
  { estimate, low, high }: Interval,
): Pick<Interval, "estimate" | "low" | "high"> {
  return { estimate: Math.exp(estimate), low: Math.exp(low), high: Math.exp(high) };
}

function requireValues(values: readonly number[]): void {
  if (values.length === 0) throw new RangeError("Cannot estimate from no values");
  const wrong = values.find((value) => !Number.isFinite(value));
  if (wrong !== undefined) throw new RangeError(`Cannot estimate from ${wrong}: leave it out`);
}
