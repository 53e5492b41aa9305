import { addInto } from "../../kernels/token/add.ts";
import { cacheAppendKernel as kernel } from "../../kernels/decode/cache_append.ts";
import { matrixType, type Op, requireShapes, type Tensor, type TensorType } from "../op.ts";

/** A cache with one more token; see {@linkcode cacheAppend}. */
export const cacheAppendOp: Op<null> = {
  name: "cacheAppend",
  stopsGradient: true,
  types(inputs) {
    const [cache, row, position] = inputs;
    requireShapes(
      inputs.length === 3 && row.rows === 1 && row.cols === cache.cols && isPosition(position),
      "cacheAppend",
      inputs,
      "cache [capacity, cols], row [1, cols], i32 position [1, 1]",
    );
    return [matrixType(cache.rows, cache.cols)];
  },
  twin(tf, [cache, row, position]) {
    const [t] = position.dataSync();
    const parts = [tf.slice(cache, [0, 0], [t, -1]), row, tf.slice(cache, [t + 1, 0], [-1, -1])];
    return [tf.concat(parts.filter((part) => part.size > 0), 0)];
  },
  forward(r, [cache, row, position], [y]) {
    // In the cache's own memory the other rows are there already.
    if (cache.storage !== y.storage) {
      r.byRows([cache, y], (a, into) => r.dispatch(addInto({ a, into, add: null })));
    }
    r.dispatch(kernel({ x: row, position, y }));
  },
};

/** Whether a matrix can be the position of one token. */
export function isPosition({ rows, cols, dtype }: TensorType): boolean {
  return rows === 1 && cols === 1 && dtype === "i32";
}

/**
 * The cache with `row` at `position`. Costs one row where the result is given the memory of the
 * cache, as decoders do. For generating; no gradient passes.
 *
 * @param cache [capacity, cols]
 * @param row [1, cols]
 * @param position i32 [1, 1], below the capacity
 * @returns like the cache
 * @throws {RangeError} if the shapes do not fit
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { cacheAppend } from "./cache_append.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const cache = backend.tensor([1, 2, 0, 0, 0, 0], 3, 2), row = backend.tensor([3, 4], 1, 2);
 * const longer = cacheAppend(cache, row, backend.tensor([1], 1, 1, "i32"));
 * assert.deepEqual([...backend.read(longer)], [1, 2, 3, 4, 0, 0]);
 * ```
 */
export function cacheAppend(cache: Tensor, row: Tensor, position: Tensor): Tensor {
  return cache.backend.apply(cacheAppendOp, [cache, row, position], null)[0];
}
