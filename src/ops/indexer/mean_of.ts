import { meanOfRows } from "../../kernels/indexer/metrics.ts";
import { addInto } from "../../kernels/token/add.ts";
import { rowsOf } from "../matrix.ts";
import { matrixType, type Op, requireShapes, type Tensor } from "../op.ts";

/** The mean of rows; see {@linkcode meanOf}. */
export const meanOfOp: Op<null> = {
  name: "meanOf",
  stopsGradient: true,
  types(inputs) {
    const [{ cols }] = inputs;
    requireShapes(
      inputs.every((x) => x.rows === 1 && x.cols === cols && x.dtype === "f32"),
      "meanOf",
      inputs,
      `f32 rows [1, ${cols}]`,
    );
    return [matrixType(1, cols)];
  },
  twin(tf, inputs) {
    return [tf.div(tf.addN([...inputs]), inputs.length)];
  },
  forward(r, inputs, [mean]) {
    const all = r.temporary(inputs.length, mean.cols);
    inputs.forEach((a, i) => r.dispatch(addInto({ a, into: rowsOf(all, i, 1), add: null })));
    r.dispatch(meanOfRows({ x: all, out: mean, seqLen: inputs.length, from: 0 }));
  },
};

/**
 * The mean of what several report, such as groups of heads. One row is itself; of more no gradient
 * passes.
 *
 * @param rows [1, n] each, at least one
 * @returns [1, n]
 * @throws {RangeError} if they are not rows of one length
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { meanOf } from "./mean_of.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const [a, b] = [backend.tensor([1, 2], 1, 2), backend.tensor([3, 6], 1, 2)];
 * assert.deepEqual([...backend.read(meanOf([a, b]))], [2, 4]);
 * ```
 */
export function meanOf(rows: readonly Tensor[]): Tensor {
  const [first] = rows;
  return rows.length === 1 ? first : first.backend.apply(meanOfOp, rows, null)[0];
}
