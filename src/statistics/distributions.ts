/**
 * The normal and Student's t distribution in double precision.
 *
 * @module
 */

/** Terms after which a continued fraction or a search has converged for all arguments used here. */
const MOST_TERMS = 500;

/** ln Γ(x) for x > 0 by Lanczos' sum with g = 7 and nine terms; relative error 1e-14. */
function logGamma(x: number): number {
  const terms = [
    676.5203681218851,
    -1259.1392167224028,
    771.3234287776531,
    -176.6150291621406,
    12.507343278686905,
    -0.13857109526572012,
    9.984369578019572e-6,
    1.5056327351493116e-7,
  ];
  if (x < 0.5) return Math.log(Math.PI / Math.sin(Math.PI * x)) - logGamma(1 - x);
  const t = x + 6.5;
  const sum = terms.reduce((sum, term, i) => sum + term / (x + i), 0.9999999999998099);
  return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(t) - t + Math.log(sum);
}

/** The regularised incomplete beta function, by its continued fraction (modified Lentz). */
function incompleteBeta(x: number, a: number, b: number): number {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  // The fraction converges quickly below the mean; above it the other tail is computed.
  if (x > (a + 1) / (a + b + 2)) return 1 - incompleteBeta(1 - x, b, a);
  const tiny = 1e-300;
  const atLeast = (value: number) => Math.abs(value) < tiny ? tiny : value;
  let c = 1;
  let d = 1 / atLeast(1 - (a + b) * x / (a + 1));
  let fraction = d;
  for (let m = 1; m < MOST_TERMS; m++) {
    const even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    const odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    let change = 1;
    for (const term of [even, odd]) {
      d = 1 / atLeast(1 + term * d);
      c = atLeast(1 + term / c);
      change = c * d;
      fraction *= change;
    }
    if (Math.abs(change - 1) < 1e-16) break;
  }
  const front = logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log1p(-x);
  return Math.exp(front) * fraction / a;
}

/**
 * P(T ≤ t) of Student's t distribution; with `df = Infinity` that of the normal one.
 *
 * @param df degrees of freedom, above 0, not necessarily whole
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { studentCdf, studentQuantile } from "./distributions.ts";
 *
 * assert.equal(studentCdf(0, 4), 0.5);
 * assert(Math.abs(studentQuantile(0.975, 4) - 2.7764451052) < 1e-9);
 * ```
 */
export function studentCdf(t: number, df: number): number {
  if (!(df > 0)) throw new RangeError(`Cannot take ${df} degrees of freedom: they must be above 0`);
  if (df === Infinity) return normalCdf(t);
  if (Number.isNaN(t)) return NaN;
  const tail = 0.5 * incompleteBeta(df / (df + t * t), df / 2, 0.5);
  return t < 0 ? tail : 1 - tail;
}

/**
 * The t below which a share `p` of Student's t distribution lies.
 *
 * @throws {RangeError} if p is not between 0 and 1
 */
export function studentQuantile(p: number, df: number): number {
  requireShare(p);
  if (df === Infinity) return normalQuantile(p);
  if (p === 0.5) return 0;
  if (p < 0.5) return -studentQuantile(1 - p, df);
  let high = 1;
  while (studentCdf(high, df) < p) high *= 2;
  return bisect((t) => studentCdf(t, df) < p, 0, high);
}

/** P(Z ≤ z) of the standard normal distribution. */
export function normalCdf(z: number): number {
  if (Number.isNaN(z)) return NaN;
  const tail = 0.5 * upperGamma(z * z / 2);
  return z < 0 ? tail : 1 - tail;
}

/**
 * The z below which a share `p` of the standard normal distribution lies.
 *
 * @throws {RangeError} if p is not between 0 and 1
 */
export function normalQuantile(p: number): number {
  requireShare(p);
  if (p === 0.5) return 0;
  if (p < 0.5) return -normalQuantile(1 - p);
  return bisect((z) => normalCdf(z) < p, 0, 40);
}

/** Γ(½, x) / Γ(½) = erfc(√x): by its series for small x, else by its continued fraction. */
function upperGamma(x: number): number {
  if (x === 0) return 1;
  const front = Math.exp(-x + 0.5 * Math.log(x) - logGamma(0.5));
  if (x < 1.5) {
    let term = 2;
    let sum = term;
    for (let n = 1; n < MOST_TERMS && term > sum * 1e-17; n++) {
      term *= x / (0.5 + n);
      sum += term;
    }
    return 1 - front * sum;
  }
  let b = x + 0.5;
  let c = 1e300;
  let d = 1 / b;
  let fraction = d;
  for (let n = 1; n < MOST_TERMS; n++) {
    const a = -n * (n - 0.5);
    b += 2;
    d = 1 / (a * d + b);
    c = b + a / c;
    fraction *= c * d;
    if (Math.abs(c * d - 1) < 1e-16) break;
  }
  return front * fraction;
}

function requireShare(p: number): void {
  if (!(p > 0 && p < 1)) throw new RangeError(`Cannot take the quantile of ${p}: use 0 < p < 1`);
}

/** Where `isBelow` ends to hold between `low` and `high`, to the last bit. */
function bisect(isBelow: (value: number) => boolean, low: number, high: number): number {
  for (let i = 0; i < MOST_TERMS; i++) {
    const middle = (low + high) / 2;
    if (middle === low || middle === high) break;
    if (isBelow(middle)) low = middle;
    else high = middle;
  }
  return high;
}
