/**
 * The functions of tfjs-core that naive twins use, in float64, in plain loops and without an npm
 * package: so that twins can be a reference where only the GPU path is installed.
 *
 * @module
 */
import type { Tf } from "../../ops/op.ts";
import * as arithmetic from "./arithmetic.ts";
import * as moves from "./moves.ts";
import { type Dtype64, sizeOf, Tensor64 } from "./tensor64.ts";

/** Numbers, flat or in nested lists. */
type Numbers = ArrayLike<number> | readonly (readonly number[])[];

function tensor(values: Numbers, shape: readonly number[], dtype: Dtype64 = "float32"): Tensor64 {
  return new Tensor64(Float64Array.from(Array.from(values as number[]).flat()), shape, dtype);
}

/** The `k` largest of each row, the lower index first where some are equal. */
function topk(x: Tensor64, k: number): { values: Tensor64; indices: Tensor64 } {
  const cols = x.shape.at(-1)!;
  const shape = [...x.shape.slice(0, -1), k];
  const values: number[] = [], indices: number[] = [];
  for (let start = 0; start < x.size; start += cols) {
    const row = x.values.subarray(start, start + cols);
    const best = [...row.keys()].sort((a, b) => row[b] - row[a] || a - b).slice(0, k);
    for (const i of best) {
      values.push(row[i]);
      indices.push(i);
    }
  }
  return { values: tensor(values, shape), indices: tensor(indices, shape, "int32") };
}

/** One more axis, `on` at the index and `off` elsewhere; all `off` where the index is outside. */
function oneHot(
  indices: Tensor64,
  depth: number,
  on = 1,
  off = 0,
  dtype: Dtype64 = "int32",
): Tensor64 {
  const values = new Float64Array(indices.size * depth).fill(off);
  indices.values.forEach((index, i) => {
    if (index >= 0 && index < depth) values[i * depth + index] = on;
  });
  return new Tensor64(values, [...indices.shape, depth], dtype);
}

/** A function with a gradient of its own. */
function customGrad(
  f: (x: Tensor64) => { value: Tensor64; gradFunc: (dy: Tensor64) => Tensor64 },
): (x: Tensor64) => Tensor64 {
  return (x) => {
    const { value, gradFunc } = f(x);
    const pull = (dy: Float64Array) => [gradFunc(new Tensor64(dy, value.shape)).values];
    return new Tensor64(value.values, value.shape, value.dtype, { parents: [x], pull });
  };
}

const zeros = (shape: readonly number[]) => tensor(new Float64Array(sizeOf(shape)), shape);

const functions = {
  ...arithmetic,
  ...moves,
  add: arithmetic.sumOf,
  topk,
  oneHot,
  customGrad,
  zeros,
  zerosLike: (x: Tensor64) => zeros(x.shape),
  fill: (shape: readonly number[], value: number) =>
    tensor(new Float64Array(sizeOf(shape)).fill(value), shape),
  scalar: (value: number, dtype?: Dtype64) => tensor([value], [], dtype),
  range(start: number, stop: number, step = 1, dtype?: Dtype64) {
    const count = Math.max(0, Math.ceil((stop - start) / step));
    return tensor(Array.from({ length: count }, (_, i) => start + i * step), [count], dtype);
  },
  tensor1d: (values: Numbers, dtype?: Dtype64) => tensor(values, [values.length], dtype),
  tensor2d: tensor,
  tensor3d: tensor,
};

/** The namespace as twins expect it: they see of tensors what {@linkcode Tensor64} has. */
export const float64Tf: Tf = functions as unknown as Tf;
