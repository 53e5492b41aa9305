import {
  besideKernel,
  besideOwnGradient,
  besideSharedGradient,
} from "../../kernels/token/beside.ts";
import { matrixType, type Op, requireShapes, type Tensor, type TfMatrix } from "../op.ts";
import { byRowsWithSink } from "../sink.ts";

/** Columns beside those of each head; see {@linkcode beside}. */
export const besideOp: Op<{ heads: number }> = {
  name: "beside",
  types(inputs, { heads }) {
    const [a, b] = inputs;
    requireShapes(
      inputs.length === 2 && a.rows === b.rows && Number.isInteger(heads) && heads > 0 &&
        a.cols % heads === 0 && inputs.every(({ dtype }) => dtype === "f32"),
      "beside",
      inputs,
      `a [rows, ${heads} * n], b [rows, m]`,
    );
    return [matrixType(a.rows, a.cols + heads * b.cols)];
  },
  twin(tf, [a, b], { heads }) {
    const own = tf.reshape(a, [a.shape[0], heads, -1]);
    const shared = tf.tile(tf.expandDims(b, 1), [1, heads, 1]);
    return [tf.reshape(tf.concat([own, shared], 2), [a.shape[0], -1]) as TfMatrix];
  },
  forward(r, [a, b], [y], { heads }) {
    r.byRows([a, b, y], (a, b, y) => r.dispatch(besideKernel({ a, b, y, heads })));
  },
  backward(r, g, _inputs, _outputs, { heads }) {
    const dy = g.gradient(0);
    if (g.wants(0)) {
      byRowsWithSink(r, [dy], g.sink(0), ([dy], da) => {
        r.dispatch(besideOwnGradient({ dy, da, heads }));
      });
    }
    if (!g.wants(1)) return;
    byRowsWithSink(r, [dy], g.sink(1), ([dy], db) => {
      r.dispatch(besideSharedGradient({ dy, db, heads }));
    });
  },
};

/**
 * The columns of each head of `a`, and beside them those of `b`, which all heads share.
 *
 * @param a [rows, heads · n]
 * @param b [rows, m]
 * @param heads default 1
 * @returns [rows, heads · (n + m)]
 * @throws {RangeError} if the shapes do not fit
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { beside } from "./beside.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const [a, b] = [backend.tensor([1, 2], 1, 2), backend.tensor([9], 1, 1)];
 * assert.deepEqual([...backend.read(beside(a, b))], [1, 2, 9]);
 * assert.deepEqual([...backend.read(beside(a, b, 2))], [1, 9, 2, 9]);
 * ```
 */
export function beside(a: Tensor, b: Tensor, heads = 1): Tensor {
  return a.backend.apply(besideOp, [a, b], { heads })[0];
}
