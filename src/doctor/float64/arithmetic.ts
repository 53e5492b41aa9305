/**
 * Functions of elements and of pairs of them, sums, and products of matrices.
 *
 * @module
 */
import { broadcastTo, commonShape, reshape, transpose } from "./moves.ts";
import { type Dtype64, sizeOf, Tensor64, tensorOf } from "./tensor64.ts";

/** A number, or a tensor. */
export type Number64 = Tensor64 | number;

/** Axes to be reduced; all of them by default. */
type Axes = number | readonly number[];

/** A function of every element; `slope` is its derivative, of the element and the result. */
function unary(
  f: (x: number) => number,
  slope: (x: number, y: number) => number,
): (x: Tensor64) => Tensor64 {
  return (x) => {
    const values = x.values.map(f);
    const pull = (dy: Float64Array) => [dy.map((d, i) => d * slope(x.values[i], values[i]))];
    return new Tensor64(values, x.shape, x.dtype, { parents: [x], pull });
  };
}

/** A function of every pair of elements, with its derivatives. */
function binary(
  f: (a: number, b: number) => number,
  slopeA: (a: number, b: number) => number,
  slopeB: (a: number, b: number) => number,
): (a: Number64, b: Number64) => Tensor64 {
  return (first, second) => {
    const [x, y] = [tensorOf(first), tensorOf(second)];
    const shape = commonShape(x.shape, y.shape);
    const [a, b] = [broadcastTo(x, shape), broadcastTo(y, shape)];
    const values = a.values.map((v, i) => f(v, b.values[i]));
    const pull = (dy: Float64Array) =>
      [slopeA, slopeB].map((slope) => dy.map((d, i) => d * slope(a.values[i], b.values[i])));
    return new Tensor64(values, shape, x.dtype, { parents: [a, b], pull });
  };
}

/** 1 where a comparison holds, else 0. */
function comparison(holds: (a: number, b: number) => boolean): typeof sumOf {
  const zero = () => 0;
  const f = binary((a, b) => Number(holds(a, b)), zero, zero);
  return (a, b) => {
    const { values, shape } = f(a, b);
    return new Tensor64(values, shape, "bool");
  };
}

export const sumOf = binary((a, b) => a + b, () => 1, () => 1);
export const sub = binary((a, b) => a - b, () => 1, () => -1);
export const mul = binary((a, b) => a * b, (_, b) => b, (a) => a);
export const div = binary((a, b) => a / b, (_, b) => 1 / b, (a, b) => -a / (b * b));
export const maximum = binary(Math.max, (a, b) => Number(a >= b), (a, b) => Number(a < b));
export const minimum = binary(Math.min, (a, b) => Number(a <= b), (a, b) => Number(a > b));
export const less = comparison((a, b) => a < b);
export const lessEqual = comparison((a, b) => a <= b);
export const greaterEqual = comparison((a, b) => a >= b);

export const clone = unary((x) => x, () => 1);
export const neg = unary((x) => -x, () => -1);
export const exp = unary(Math.exp, (_, y) => y);
export const log = unary(Math.log, (x) => 1 / x);
export const square = unary((x) => x * x, (x) => 2 * x);
export const sqrt = unary(Math.sqrt, (_, y) => 0.5 / y);
export const rsqrt = unary((x) => 1 / Math.sqrt(x), (_, y) => -0.5 * y ** 3);
export const relu = unary((x) => Math.max(x, 0), (x) => Number(x > 0));
export const tanh = unary(Math.tanh, (_, y) => 1 - y * y);
export const sigmoid = unary((x) => 1 / (1 + Math.exp(-x)), (_, y) => y * (1 - y));

/** The sum of tensors. */
export function addN(tensors: readonly Tensor64[]): Tensor64 {
  return tensors.reduce((a, b) => sumOf(a, b));
}

/** Elements in another type; whole numbers lose what is behind the point, and pass no gradient. */
export function cast(x: Tensor64, dtype: Dtype64): Tensor64 {
  if (dtype === "int32") return new Tensor64(x.values.map(Math.trunc), x.shape, dtype);
  return new Tensor64(x.values, x.shape, dtype, { parents: [x], pull: (dy) => [dy] });
}

/** Reduces axes to one number, and tells the derivative by each element that went into it. */
function reduce(
  f: (run: Float64Array) => number,
  slope: (x: number, y: number) => number,
): (x: Tensor64, axes?: Axes, keepDims?: boolean) => Tensor64 {
  return (x, axes = x.shape.map((_, i) => i), keepDims = false) => {
    const gone = [axes].flat().map((axis) => axis < 0 ? axis + x.rank : axis);
    const kept = x.shape.map((_, i) => i).filter((i) => !gone.includes(i));
    const runs = transpose(x, [...kept, ...gone]);
    const count = sizeOf(gone.map((i) => x.shape[i]));
    const values = Float64Array.from(
      { length: x.size / count },
      (_, i) => f(runs.values.subarray(i * count, (i + 1) * count)),
    );
    const pull = (dy: Float64Array) => [runs.values.map((v, i) => {
      const run = Math.floor(i / count);
      return dy[run] * slope(v, values[run]);
    })];
    const shape = keepDims
      ? x.shape.map((n, i) => gone.includes(i) ? 1 : n)
      : kept.map((i) => x.shape[i]);
    return new Tensor64(values, shape, x.dtype, { parents: [runs], pull });
  };
}

export const sum = reduce((run) => run.reduce((a, b) => a + b, 0), () => 1);
/** Of equal maxima each passes the whole gradient: nothing here differentiates by one. */
export const max = reduce(
  (run) => run.reduce((a, b) => Math.max(a, b), -Infinity),
  (x, y) => Number(x === y),
);

/** The mean over axes. */
export function mean(x: Tensor64, axes?: Axes, keepDims = false): Tensor64 {
  const total = sum(x, axes, keepDims);
  return div(total, x.size / total.size);
}

/** log Σ exp over axes. */
export function logSumExp(x: Tensor64, axes?: Axes, keepDims = false): Tensor64 {
  const top = max(constant(x), axes, true);
  const rest = log(sum(exp(sub(x, top)), axes, keepDims));
  return sumOf(rest, reshape(top, rest.shape));
}

/** Logarithms of the softmax along the last axis. */
export function logSoftmax(x: Tensor64): Tensor64 {
  return sub(x, logSumExp(x, x.rank - 1, true));
}

/** The softmax along the last axis. */
export function softmax(x: Tensor64): Tensor64 {
  return exp(logSoftmax(x));
}

/** The values, with no gradient. */
function constant(x: Tensor64): Tensor64 {
  return new Tensor64(x.values, x.shape, x.dtype);
}

/** Products of matrices, one for each index of the axes before the last two. */
export function matMul(
  a: Tensor64,
  b: Tensor64,
  transposeA = false,
  transposeB = false,
): Tensor64 {
  const swapped = (x: Tensor64) => {
    const axes = x.shape.map((_, i) => i);
    return transpose(x, [...axes.slice(0, -2), axes.length - 1, axes.length - 2]);
  };
  return product(transposeA ? swapped(a) : a, transposeB ? swapped(b) : b);
}

function product(a: Tensor64, b: Tensor64): Tensor64 {
  const batch = a.shape.slice(0, -2);
  const [m, k, n] = [...a.shape.slice(-2), b.shape.at(-1)!];
  if (b.shape.at(-2) !== k || sizeOf(batch) !== sizeOf(b.shape.slice(0, -2))) {
    throw new RangeError(`Cannot multiply [${a.shape}] and [${b.shape}]`);
  }
  const values = new Float64Array(sizeOf(batch) * m * n);
  const pull = (dy: Float64Array) => {
    const [da, db] = [new Float64Array(a.size), new Float64Array(b.size)];
    eachProduct(sizeOf(batch), m, k, n, (i, j, l) => {
      da[i] += dy[l] * b.values[j];
      db[j] += dy[l] * a.values[i];
    });
    return [da, db];
  };
  eachProduct(sizeOf(batch), m, k, n, (i, j, l) => values[l] += a.values[i] * b.values[j]);
  return new Tensor64(values, [...batch, m, n], "float32", { parents: [a, b], pull });
}

/** Calls `visit` with the places of every factor of a, its factor of b, and their sum. */
function eachProduct(
  batch: number,
  m: number,
  k: number,
  n: number,
  visit: (a: number, b: number, sum: number) => void,
): void {
  for (let row = 0; row < batch * m; row++) {
    const first = Math.floor(row / m) * k;
    for (let x = 0; x < k; x++) {
      for (let c = 0; c < n; c++) visit(row * k + x, (first + x) * n + c, row * n + c);
    }
  }
}
