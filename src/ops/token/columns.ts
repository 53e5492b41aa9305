import { matrixType, type Op, type Tensor } from "../op.ts";

/** Some columns of a matrix; see {@linkcode columns}. */
export const columnsOp: Op<{ start: number; cols: number }> = {
  name: "columns",
  types([x], { start, cols }) {
    if (start < 0 || cols < 1 || start + cols > x.cols) {
      throw new RangeError(
        `Cannot take columns ${start} to ${start + cols} of ${x.rows}x${x.cols}: it has ${x.cols}`,
      );
    }
    return [matrixType(x.rows, cols, x.dtype)];
  },
  twin(tf, [x], { start, cols }) {
    return [tf.slice(x, [0, start], [-1, cols])];
  },
  view: (attributes) => attributes,
};

/**
 * Columns `start … start + cols` of x, without a copy.
 *
 * @param x [rows, more columns]
 * @returns [rows, cols]
 * @throws {RangeError} if x has not that many columns
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { columns } from "./columns.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * // A latent of 2 columns beside a rotary key of 1, for each of 2 tokens.
 * const kv = backend.tensor([1, 2, 3, 4, 5, 6], 2, 3);
 * assert.deepEqual([...backend.read(columns(kv, 0, 2))], [1, 2, 4, 5]);
 * assert.deepEqual([...backend.read(columns(kv, 2, 1))], [3, 6]);
 * ```
 */
export function columns(x: Tensor, start: number, cols: number): Tensor {
  return x.backend.apply(columnsOp, [x], { start, cols })[0];
}
