/**
 * What only moves elements: each is a list of where every element of the result comes from.
 *
 * @module
 */
import { sizeOf, stridesOf, Tensor64 } from "./tensor64.ts";

/** Where an element comes from, by its coordinates: an index among the sources', or -1. */
type From = (at: readonly number[], index: number) => number;

/**
 * The elements of `sources`, one after the other, in another order and number; `missing` where
 * they come from -1.
 */
function arrange(
  sources: readonly Tensor64[],
  shape: readonly number[],
  from: From,
  missing = 0,
): Tensor64 {
  const origins = new Int32Array(sizeOf(shape));
  const at = shape.map(() => 0);
  for (let i = 0; i < origins.length; i++) {
    origins[i] = from(at, i);
    for (let axis = at.length - 1; axis >= 0; axis--) {
      if (++at[axis] < shape[axis]) break;
      at[axis] = 0;
    }
  }
  const starts = startsOf(sources);
  const all = new Float64Array(starts.at(-1)!);
  sources.forEach(({ values }, i) => all.set(values, starts[i]));
  const values = Float64Array.from(origins, (i) => i < 0 ? missing : all[i]);
  const pull = (gradient: Float64Array) => {
    const sums = new Float64Array(all.length);
    origins.forEach((to, i) => {
      if (to >= 0) sums[to] += gradient[i];
    });
    return sources.map((_, i) => sums.subarray(starts[i], starts[i + 1]));
  };
  return new Tensor64(values, shape, sources[0].dtype, { parents: sources, pull });
}

/** Where each source begins if they lie one after the other, and where the last one ends. */
function startsOf(sources: readonly Tensor64[]): number[] {
  const starts = [0];
  for (const { size } of sources) starts.push(starts.at(-1)! + size);
  return starts;
}

/** Sum of products. */
function dot(a: readonly number[], b: readonly number[]): number {
  return a.reduce((sum, x, i) => sum + x * b[i], 0);
}

/** The same values in another shape; one dimension may be -1, what is left. */
export function reshape(x: Tensor64, shape: readonly number[]): Tensor64 {
  const rest = x.size / sizeOf(shape.filter((n) => n !== -1));
  const whole = shape.map((n) => n === -1 ? rest : n);
  return new Tensor64(x.values, whole, x.dtype, { parents: [x], pull: (dy) => [dy] });
}

/** A dimension of 1 more. */
export function expandDims(x: Tensor64, axis = 0): Tensor64 {
  return reshape(x, x.shape.toSpliced(axis, 0, 1));
}

/** Axis i of the result is axis `perm[i]` of `x`. */
export function transpose(
  x: Tensor64,
  perm: readonly number[] = x.shape.map((_, i) => x.rank - 1 - i),
): Tensor64 {
  const strides = stridesOf(x.shape);
  const own = perm.map((i) => strides[i]);
  return arrange([x], perm.map((i) => x.shape[i]), (at) => dot(at, own));
}

/** The part that starts at `begin`; a size of -1 is all that is left. */
export function slice(
  x: Tensor64,
  begin: readonly number[],
  size: readonly number[] = begin.map(() => -1),
): Tensor64 {
  const strides = stridesOf(x.shape);
  const start = dot(begin, strides);
  const shape = x.shape.map((n, i) => size[i] === -1 ? n - begin[i] : size[i]);
  return arrange([x], shape, (at) => start + dot(at, strides));
}

/** Consecutive parts of these sizes. */
export function split(x: Tensor64, sizes: readonly number[], axis = 0): Tensor64[] {
  let end = 0;
  return sizes.map((n) => {
    const begin = x.shape.map((_, i) => i === axis ? end : 0);
    end += n;
    return slice(x, begin, x.shape.with(axis, n));
  });
}

/** The other way round along an axis. */
export function reverse(x: Tensor64, axis: number): Tensor64 {
  const strides = stridesOf(x.shape);
  return arrange([x], x.shape, (at) => dot(at.with(axis, x.shape[axis] - 1 - at[axis]), strides));
}

/** One after another along an axis. */
export function concat(inputs: readonly Tensor64[], axis = 0): Tensor64 {
  const starts = startsOf(inputs);
  const strides = inputs.map(({ shape }) => stridesOf(shape));
  const total = inputs.reduce((sum, x) => sum + x.shape[axis], 0);
  return arrange(inputs, inputs[0].shape.with(axis, total), (at) => {
    let [i, place] = [0, at[axis]];
    while (place >= inputs[i].shape[axis]) place -= inputs[i++].shape[axis];
    return starts[i] + dot(at.with(axis, place), strides[i]);
  });
}

/** Repeats whole axes. */
export function tile(x: Tensor64, reps: readonly number[]): Tensor64 {
  const strides = stridesOf(x.shape);
  const shape = x.shape.map((n, i) => n * reps[i]);
  return arrange([x], shape, (at) => dot(at.map((a, i) => a % x.shape[i]), strides));
}

/** `x` with constants around it. */
export function pad(
  x: Tensor64,
  paddings: readonly (readonly [number, number])[],
  value = 0,
): Tensor64 {
  const strides = stridesOf(x.shape);
  const shape = x.shape.map((n, i) => paddings[i][0] + n + paddings[i][1]);
  return arrange([x], shape, (at) => {
    const inner = at.map((a, i) => a - paddings[i][0]);
    return inner.every((a, i) => a >= 0 && a < x.shape[i]) ? dot(inner, strides) : -1;
  }, value);
}

/** The rows of `x` with these indices. */
export function gather(x: Tensor64, indices: Tensor64): Tensor64 {
  const inner = sizeOf(x.shape.slice(1));
  const shape = [...indices.shape, ...x.shape.slice(1)];
  return arrange([x], shape, (_, i) => {
    return indices.values[Math.floor(i / inner)] * inner + i % inner;
  });
}

/** `x` in a larger shape: axes of 1, and those that are missing in front, are repeated. */
export function broadcastTo(x: Tensor64, shape: readonly number[]): Tensor64 {
  if (x.rank === shape.length && x.shape.every((n, i) => n === shape[i])) return x;
  const lead = shape.length - x.rank;
  const own = stridesOf(x.shape);
  const strides = shape.map((_, i) => i < lead || x.shape[i - lead] === 1 ? 0 : own[i - lead]);
  return arrange([x], shape, (at) => dot(at, strides));
}

/** The shape that both of these can be repeated to. */
export function commonShape(a: readonly number[], b: readonly number[]): number[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const m = a[i - rank + a.length] ?? 1;
    const n = b[i - rank + b.length] ?? 1;
    if (m !== n && m !== 1 && n !== 1) throw new RangeError(`Cannot broadcast [${a}] and [${b}]`);
    return m === 1 ? n : m;
  });
}

/** `a` where the condition holds, else `b`. */
export function where(condition: Tensor64, a: Tensor64, b: Tensor64): Tensor64 {
  const shape = commonShape(condition.shape, commonShape(a.shape, b.shape));
  const [holds, yes, no] = [condition, a, b].map((x) => broadcastTo(x, shape));
  return arrange([yes, no], shape, (_, i) => holds.values[i] ? i : yes.size + i);
}
