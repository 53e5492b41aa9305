/**
 * Arrays with shapes, and the loops that the float64 test backend's kernels are made of. What only
 * moves elements is a strided view copied out ({@linkcode gatherView}) or in
 * ({@linkcode placeView}).
 *
 * @module
 */
import type { DataType } from "@tensorflow/tfjs-core";

/** What a tensor holds: float32 as Float64Array, int32 as Int32Array, bool as Uint8Array. */
export type Values = Float64Array | Int32Array | Uint8Array;

/** An array with its shape, between kernels. */
export interface Block {
  values: Values;
  shape: number[];
  dtype: DataType;
}

/** Zeros. */
export function block(shape: number[], dtype: DataType): Block {
  const size = sizeOf(shape);
  const values = dtype === "float32"
    ? new Float64Array(size)
    : dtype === "int32"
    ? new Int32Array(size)
    : new Uint8Array(size);
  return { values, shape, dtype };
}

/** Elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, n) => product * n, 1);
}

/** Row-major strides of a shape, in elements. */
export function stridesOf(shape: readonly number[]): number[] {
  return shape.map((_, i) => sizeOf(shape.slice(i + 1)));
}

/** Axes as a list of numbers from 0; none given means all. */
export function axesOf(axes: number | number[] | null | undefined, rank: number): number[] {
  const list = axes == null ? [...Array(rank).keys()] : [axes].flat();
  return list.map((axis) => axis < 0 ? axis + rank : axis);
}

/** Calls `row` with the start of every run along the last axis of a strided view. */
function eachRow(
  shape: readonly number[],
  strides: readonly number[],
  offset: number,
  row: (start: number) => void,
): void {
  if (sizeOf(shape) === 0) return;
  const index = shape.slice(0, -1).map(() => 0);
  let start = offset;
  while (true) {
    row(start);
    let axis = index.length - 1;
    for (; axis >= 0; axis--) {
      start += strides[axis];
      if (++index[axis] < shape[axis]) break;
      start -= strides[axis] * shape[axis];
      index[axis] = 0;
    }
    if (axis < 0) return;
  }
}

/** Copies out the view of `x` with this shape and these strides. */
export function gatherView(x: Block, shape: number[], strides: number[], offset: number): Block {
  const out = block(shape, x.dtype);
  const cols = shape.at(-1) ?? 1;
  const step = strides.at(-1) ?? 1;
  let to = 0;
  eachRow(shape, strides, offset, (start) => {
    for (let i = 0; i < cols; i++) out.values[to++] = x.values[start + i * step];
  });
  return out;
}

/** Copies `x` into `out` so that its first element lies at index `begin`. */
export function placeView(x: Block, out: Block, begin: readonly number[]): void {
  const strides = stridesOf(out.shape);
  const offset = begin.reduce((sum, n, i) => sum + n * strides[i], 0);
  const cols = x.shape.at(-1) ?? 1;
  let from = 0;
  eachRow(x.shape, strides, offset, (start) => {
    out.values.set(x.values.subarray(from, from + cols), start);
    from += cols;
  });
}

/** The part of this shape that starts at index `begin`. */
export function slice(x: Block, begin: number[], shape: number[]): Block {
  const strides = stridesOf(x.shape);
  return gatherView(x, shape, strides, begin.reduce((sum, n, i) => sum + n * strides[i], 0));
}

/** Consecutive parts along an axis. */
export function parts(x: Block, axis: number, sizes: number[]): Block[] {
  let end = 0;
  return sizes.map((n) => {
    const begin = x.shape.map((_, i) => i === axis ? end : 0);
    end += n;
    return slice(x, begin, x.shape.with(axis, n));
  });
}

/** Puts blocks one after another along an axis. */
export function concat(inputs: Block[], axis: number): Block {
  const total = inputs.reduce((sum, x) => sum + x.shape[axis], 0);
  const out = block(inputs[0].shape.with(axis, total), inputs[0].dtype);
  let end = 0;
  for (const x of inputs) {
    placeView(x, out, x.shape.map((_, i) => i === axis ? end : 0));
    end += x.shape[axis];
  }
  return out;
}

/** Reorders axes: axis i of the result is axis `perm[i]` of `x`. */
export function transpose(x: Block, perm: number[]): Block {
  const strides = stridesOf(x.shape);
  return gatherView(x, perm.map((i) => x.shape[i]), perm.map((i) => strides[i]), 0);
}

/** Repeats axes of size 1, as NumPy does. */
export function broadcast(x: Block, shape: number[]): Block {
  if (x.shape.length === shape.length && x.shape.every((n, i) => n === shape[i])) return x;
  const lead = shape.length - x.shape.length;
  const strides = stridesOf(x.shape);
  return gatherView(
    x,
    shape,
    shape.map((_, i) => i < lead || x.shape[i - lead] === 1 ? 0 : strides[i - lead]),
    0,
  );
}

/** The common shape of two operands. */
export function broadcastShape(a: readonly number[], b: readonly number[]): number[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const m = a[i - rank + a.length] ?? 1;
    const n = b[i - rank + b.length] ?? 1;
    if (m !== n && m !== 1 && n !== 1) throw new RangeError(`Cannot broadcast [${a}] and [${b}]`);
    return m === 1 ? n : m;
  });
}

/** Applies `f` to every element. */
export function map(x: Block, f: (v: number) => number, dtype: DataType): Block {
  const out = block(x.shape, dtype);
  for (let i = 0; i < out.values.length; i++) out.values[i] = f(x.values[i]);
  return out;
}

/** Applies `f` to pairs of elements, broadcasting. */
export function zip(
  a: Block,
  b: Block,
  f: (a: number, b: number) => number,
  dtype: DataType,
): Block {
  const shape = broadcastShape(a.shape, b.shape);
  const x = broadcast(a, shape).values;
  const y = broadcast(b, shape).values;
  const out = block(shape, dtype);
  for (let i = 0; i < out.values.length; i++) out.values[i] = f(x[i], y[i]);
  return out;
}

/** Folds `count` values from `start` on. */
export function fold(
  x: Values,
  start: number,
  count: number,
  f: (a: number, b: number) => number,
  initial: number,
): number {
  let result = initial;
  for (let i = start; i < start + count; i++) result = f(result, x[i]);
  return result;
}

/** Reduces axes with `f`, which gets runs of contiguous values. */
export function reduce(
  x: Block,
  axes: number | number[] | null,
  keepDims: boolean,
  f: (x: Values, start: number, count: number) => number,
  dtype: DataType,
): Block {
  const reduced = axesOf(axes, x.shape.length);
  const kept = x.shape.map((_, i) => i).filter((i) => !reduced.includes(i));
  const { values } = transpose(x, [...kept, ...reduced]);
  const count = sizeOf(reduced.map((i) => x.shape[i]));
  const shape = keepDims
    ? x.shape.map((n, i) => reduced.includes(i) ? 1 : n)
    : kept.map((i) => x.shape[i]);
  const out = block(shape, dtype);
  for (let i = 0; i < out.values.length; i++) out.values[i] = f(values, i * count, count);
  return out;
}
