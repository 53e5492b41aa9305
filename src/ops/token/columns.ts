import { addInto } from "../../kernels/token/add.ts";
import { columnsOf } from "../matrix.ts";
import { matrixType, type Op, requireShapes, type Tensor } from "../op.ts";

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

/** Matrices side by side; see {@linkcode sideBySide}. */
export const sideBySideOp: Op<null> = {
  name: "sideBySide",
  types(inputs) {
    const [{ rows }] = inputs;
    requireShapes(
      inputs.every((x) => x.rows === rows && x.dtype === "f32"),
      "sideBySide",
      inputs,
      `f32 matrices of ${rows} rows`,
    );
    return [matrixType(rows, inputs.reduce((sum, { cols }) => sum + cols, 0))];
  },
  twin(tf, inputs) {
    return [tf.concat([...inputs], 1)];
  },
  forward(r, inputs, [y]) {
    let start = 0;
    for (const x of inputs) {
      const part = columnsOf(y, start, x.cols);
      r.byRows([x, part], (a, into) => r.dispatch(addInto({ a, into, add: null })));
      start += x.cols;
    }
  },
  backward(_r, g, inputs) {
    let start = 0;
    for (const [i, { cols }] of inputs.entries()) {
      if (g.wants(i)) g.pass(i, columnsOf(g.gradient(0), start, cols));
      start += cols;
    }
  },
};

/**
 * All columns of the first matrix, then all of the next: what {@linkcode columns} takes apart. One
 * matrix is itself.
 *
 * @param parts [rows, any columns] each, at least one
 * @returns [rows, Σ columns]
 * @throws {RangeError} if they have not as many rows
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { sideBySide } from "./columns.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const [a, b] = [backend.tensor([1, 2], 2, 1), backend.tensor([3, 4, 5, 6], 2, 2)];
 * assert.deepEqual([...backend.read(sideBySide([a, b]))], [1, 3, 4, 2, 5, 6]);
 * ```
 */
export function sideBySide(parts: readonly Tensor[]): Tensor {
  const [first] = parts;
  return parts.length === 1 ? first : first.backend.apply(sideBySideOp, parts, null)[0];
}
