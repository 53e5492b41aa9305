/**
 * The longer loops of the float64 test backend: products, gathers, softmaxes, sorting.
 *
 * @module
 */
import {
  axesOf,
  type Block,
  block,
  broadcast,
  broadcastShape,
  fold,
  reduce,
  sizeOf,
  stridesOf,
  transpose,
  type Values,
} from "./float64_blocks.ts";

/** Index of the best value along an axis, the first of equals. */
export function argBest(x: Block, axis: number, better: (a: number, b: number) => boolean): Block {
  const best = (values: Values, start: number, count: number) => {
    let at = 0;
    for (let i = 1; i < count; i++) if (better(values[start + i], values[start + at])) at = i;
    return at;
  };
  return reduce(x, axis, false, best, "int32");
}

/** Softmax, or its logarithm, over the last axis: the only one that tfjs-core allows. */
export function softmax(x: Block, log: boolean): Block {
  const out = block(x.shape, x.dtype);
  const cols = x.shape.at(-1) ?? 1;
  for (let start = 0; start < x.values.length; start += cols) {
    const top = fold(x.values, start, cols, Math.max, -Infinity);
    let sum = 0;
    for (let i = start; i < start + cols; i++) sum += Math.exp(x.values[i] - top);
    for (let i = start; i < start + cols; i++) {
      const shifted = x.values[i] - top;
      out.values[i] = log ? shifted - Math.log(sum) : Math.exp(shifted) / sum;
    }
  }
  return out;
}

/** Running sums along an axis. */
export function cumsum(x: Block, axis: number, exclusive: boolean, reverse: boolean): Block {
  const [at] = axesOf(axis, x.shape.length);
  const out = block(x.shape, x.dtype);
  const inner = sizeOf(x.shape.slice(at + 1));
  const count = x.shape[at];
  for (let outer = 0; outer < x.values.length; outer += count * inner) {
    for (let i = outer; i < outer + inner; i++) {
      let sum = 0;
      for (let j = 0; j < count; j++) {
        const k = i + (reverse ? count - 1 - j : j) * inner;
        out.values[k] = exclusive ? sum : sum + x.values[k];
        sum += x.values[k];
      }
    }
  }
  return out;
}

/** Slices along an axis, as `tf.gather`. */
export function gather(x: Block, indices: Block, axis: number, batchDims: number): Block {
  const [at] = axesOf(axis, x.shape.length);
  const batch = sizeOf(x.shape.slice(0, batchDims));
  const between = sizeOf(x.shape.slice(batchDims, at));
  const inner = sizeOf(x.shape.slice(at + 1));
  const rows = x.shape[at];
  const picks = indices.values.length / batch;
  const shape = [...x.shape.slice(0, at), ...indices.shape.slice(batchDims)];
  const out = block([...shape, ...x.shape.slice(at + 1)], x.dtype);
  let to = 0;
  for (let b = 0; b < batch; b++) {
    for (let o = 0; o < between; o++) {
      for (let p = 0; p < picks; p++, to += inner) {
        const row = indices.values[b * picks + p];
        if (row < 0 || row >= rows) throw new RangeError(`Cannot gather row ${row} of ${rows}`);
        const from = ((b * between + o) * rows + row) * inner;
        out.values.set(x.values.subarray(from, from + inner), to);
      }
    }
  }
  return out;
}

/** Where the slices that `indices` [..., depth] name lie in a tensor of this shape. */
export function rowOffsets(
  indices: Block,
  shape: readonly number[],
): { offsets: number[]; lead: number[]; inner: number } {
  const depth = indices.shape.at(-1) ?? 1;
  const strides = stridesOf(shape);
  const lead = indices.shape.slice(0, -1);
  const offsets = Array.from({ length: sizeOf(lead) }, (_, i) => {
    let offset = 0;
    for (let d = 0; d < depth; d++) offset += indices.values[i * depth + d] * strides[d];
    return offset;
  });
  return { offsets, lead, inner: sizeOf(shape.slice(depth)) };
}

/** Largest first; of equal values the one with the lower index first. */
export function topK(x: Block, k: number): Block[] {
  const cols = x.shape.at(-1)!;
  const shape = [...x.shape.slice(0, -1), k];
  const values = block(shape, x.dtype);
  const indices = block(shape, "int32");
  for (let row = 0; row * cols < x.values.length; row++) {
    const at = (i: number) => x.values[row * cols + i];
    const order = [...Array(cols).keys()].sort((i, j) => at(j) === at(i) ? i - j : at(j) - at(i));
    for (let i = 0; i < k; i++) {
      values.values[row * k + i] = at(order[i]);
      indices.values[row * k + i] = order[i];
    }
  }
  return [values, indices];
}

/** Batched matrix product; batch axes broadcast as in NumPy. */
export function matMul(a: Block, b: Block, transposeA: boolean, transposeB: boolean): Block {
  const rank = a.shape.length;
  const swap = (x: Block) => {
    const last = x.shape.length - 1;
    return transpose(x, [...Array(last - 1).keys(), last, last - 1]);
  };
  const left = transposeA ? swap(a) : a;
  const right = transposeB ? swap(b) : b;
  const [rows, inner] = left.shape.slice(-2);
  const [depth, cols] = right.shape.slice(-2);
  if (inner !== depth) throw new RangeError(`Cannot multiply [${left.shape}] by [${right.shape}]`);
  const lead = broadcastShape(left.shape.slice(0, rank - 2), right.shape.slice(0, -2));
  const x = broadcast(left, [...lead, rows, inner]).values;
  const y = broadcast(right, [...lead, inner, cols]).values;
  const out = block([...lead, rows, cols], "float32");
  for (let batch = 0; batch < sizeOf(lead); batch++) {
    for (let r = 0; r < rows; r++) {
      const to = (batch * rows + r) * cols;
      for (let k = 0; k < inner; k++) {
        const factor = x[(batch * rows + r) * inner + k];
        const from = (batch * inner + k) * cols;
        for (let c = 0; c < cols; c++) out.values[to + c] += factor * y[from + c];
      }
    }
  }
  return out;
}
