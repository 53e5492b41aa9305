/**
 * Eigenvalues of symmetric matrices, on the CPU in float64.
 *
 * @module
 */

/** Rotations for one eigenvalue, before it is given up; two or three are usual. */
const MOST_ITERATIONS = 50;

/** What {@linkcode symmetricEigen} finds. */
export interface Eigen {
  /** Largest first. */
  readonly values: Float64Array;
  /** `[n, n]`; row i is the unit vector of `values[i]`. */
  readonly vectors: Float64Array;
}

/**
 * All eigenvalues and eigenvectors of a symmetric matrix: Householder's reduction to a tridiagonal
 * matrix, then QL with implicit shifts (Golub and Van Loan, Matrix Computations, §8.3), O(n³).
 *
 * @param matrix `[n, n]`, row-major; read below the diagonal only
 * @throws {RangeError} if it is not square, or holds what is not a finite number
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { symmetricEigen } from "./symmetric_eigen.ts";
 *
 * const { values } = symmetricEigen(Float64Array.of(2, 1, 1, 2), 2);
 * assert(Math.abs(values[0] - 3) < 1e-12 && Math.abs(values[1] - 1) < 1e-12);
 * ```
 */
export function symmetricEigen(matrix: Float64Array, n: number): Eigen {
  if (matrix.length !== n * n || !matrix.every(Number.isFinite)) {
    throw new RangeError(
      `Cannot find the eigenvalues of ${matrix.length} numbers: expected ${n}x${n} finite ones`,
    );
  }
  const { diagonal, offDiagonal, vectors } = tridiagonal(matrix, n);
  diagonalise(diagonal, offDiagonal, vectors);
  const order = Array.from(diagonal.keys()).sort((i, j) => diagonal[j] - diagonal[i]);
  const sorted = new Float64Array(n * n);
  order.forEach((from, to) => sorted.set(vectors.subarray(from * n, (from + 1) * n), to * n));
  return { values: Float64Array.from(order, (i) => diagonal[i]), vectors: sorted };
}

/** matrix = vectorsᵀ · T · vectors with T tridiagonal: `offDiagonal[i]` stands at (i, i + 1). */
function tridiagonal(matrix: Float64Array, n: number) {
  const a = Float64Array.from(matrix);
  const vectors = new Float64Array(n * n);
  for (let i = 0; i < n; i++) vectors[i * n + i] = 1;
  const offDiagonal = new Float64Array(n);
  const v = new Float64Array(n), p = new Float64Array(n);
  for (let k = 0; k < n - 1; k++) {
    // The reflection takes what is below the diagonal of column k to its first place.
    let norm = 0;
    for (let i = k + 1; i < n; i++) norm = Math.hypot(norm, a[i * n + k]);
    const first = a[(k + 1) * n + k];
    const target = first > 0 ? -norm : norm;
    offDiagonal[k] = target;
    let square = 0;
    for (let i = k + 1; i < n; i++) {
      v[i] = i === k + 1 ? first - target : a[i * n + k];
      square += v[i] * v[i];
    }
    if (square === 0) continue;
    // a -= v wᵀ + w vᵀ with w = p - (p·v / square) v, p = 2 a v / square.
    let along = 0;
    for (let i = k + 1; i < n; i++) {
      let sum = 0;
      for (let j = k + 1; j < n; j++) sum += a[i >= j ? i * n + j : j * n + i] * v[j];
      p[i] = 2 * sum / square;
      along += p[i] * v[i];
    }
    for (let i = k + 1; i < n; i++) p[i] -= along / square * v[i];
    for (let i = k + 1; i < n; i++) {
      for (let j = k + 1; j <= i; j++) a[i * n + j] -= v[i] * p[j] + p[i] * v[j];
    }
    // vectors = reflection · vectors.
    const product = new Float64Array(n);
    for (let i = k + 1; i < n; i++) {
      for (let j = 0; j < n; j++) product[j] += v[i] * vectors[i * n + j];
    }
    for (let i = k + 1; i < n; i++) {
      const factor = 2 * v[i] / square;
      for (let j = 0; j < n; j++) vectors[i * n + j] -= factor * product[j];
    }
  }
  const diagonal = Float64Array.from({ length: n }, (_, i) => a[i * n + i]);
  return { diagonal, offDiagonal, vectors };
}

/** QL with implicit shifts, in place: `diagonal` becomes the eigenvalues, `vectors` their rows. */
function diagonalise(d: Float64Array, e: Float64Array, vectors: Float64Array): void {
  const n = d.length;
  for (let low = 0; low < n; low++) {
    for (let iteration = 0;; iteration++) {
      let high = low;
      while (high < n - 1) {
        const scale = Math.abs(d[high]) + Math.abs(d[high + 1]);
        if (Math.abs(e[high]) <= Number.EPSILON * scale) break;
        high++;
      }
      if (high === low) break;
      if (iteration === MOST_ITERATIONS) {
        throw new RangeError(`Cannot find eigenvalue ${low} of a ${n}x${n} matrix`);
      }
      sweep(d, e, vectors, [low, high]);
    }
  }
}

/** One chase of the bulge from `high` up to `low`. */
function sweep(
  d: Float64Array,
  e: Float64Array,
  vectors: Float64Array,
  [low, high]: [number, number],
): void {
  const n = d.length;
  const half = (d[low + 1] - d[low]) / (2 * e[low]);
  const root = Math.hypot(half, 1);
  let g = d[high] - d[low] + e[low] / (half + (half < 0 ? -root : root));
  let sine = 1, cosine = 1, shift = 0;
  for (let i = high - 1; i >= low; i--) {
    const f = sine * e[i], b = cosine * e[i];
    const r = Math.hypot(f, g);
    e[i + 1] = r;
    if (r === 0) {
      d[i + 1] -= shift;
      e[high] = 0;
      return;
    }
    sine = f / r;
    cosine = g / r;
    g = d[i + 1] - shift;
    const t = (d[i] - g) * sine + 2 * cosine * b;
    shift = sine * t;
    d[i + 1] = g + shift;
    g = cosine * t - b;
    const [upper, lower] = [i * n, (i + 1) * n];
    for (let j = 0; j < n; j++) {
      const x = vectors[lower + j], y = vectors[upper + j];
      vectors[lower + j] = sine * y + cosine * x;
      vectors[upper + j] = cosine * y - sine * x;
    }
  }
  d[low] -= shift;
  e[low] = g;
  e[high] = 0;
}
