import { columnSum } from "../../kernels/token/column_sum.ts";
import { at } from "../../kernels/wgsl/layout_units.ts";
import { sumOverRows } from "../token/column_sums.ts";
import { recordMatmul } from "../products.ts";
import type { GradientSink } from "../op.ts";
import { columnsOf, rowsOf } from "../matrix.ts";
import {
  type Matrix,
  matrixType,
  type Op,
  type Recorder,
  requireShapes,
  type Tensor,
  type TfMatrix,
} from "../op.ts";
import { furtherSink } from "../sink.ts";

/** Sums and products over tokens; see {@linkcode latentStatistics}. */
export const latentStatisticsOp: Op<Record<never, never>> = {
  name: "latentStatistics",
  stopsGradient: true,
  types(inputs) {
    requireShapes(
      inputs.length === 2 && inputs[0].rows === inputs[1].rows &&
        inputs.every(({ dtype }) => dtype === "f32"),
      "latentStatistics",
      inputs,
      "two f32 matrices with as many rows",
    );
    const width = inputs[0].cols + inputs[1].cols;
    return [matrixType(width + 1, width)];
  },
  twin(tf, inputs) {
    const both = tf.concat([...inputs], 1) as TfMatrix;
    const sums = tf.sum(both, 0, true) as TfMatrix;
    return [tf.concat([tf.matMul(both, both, true, false) as TfMatrix, sums], 0)];
  },
  forward(r, inputs, [out]) {
    const starts = [0, inputs[0].cols];
    inputs.forEach((a, i) => {
      inputs.forEach((b, j) => {
        const block = columnsOf(rowsOf(out, starts[i], a.cols), starts[j], b.cols);
        recordProduct(r, a, b, block);
      });
      const into = columnsOf(rowsOf(out, out.rows - 1, 1), starts[i], a.cols);
      recordSums(r, a, into);
    });
  },
};

/** out = aᵀ · b. */
function recordProduct(r: Recorder, a: Matrix, b: Matrix, out: Matrix): void {
  let c: GradientSink = { into: out, add: null };
  r.byRows([a, b], (a, b) => {
    recordMatmul(r, { form: "tn", a, b, c });
    c = furtherSink(c);
  });
}

/** out = the sum of the rows of x. */
function recordSums(r: Recorder, x: Matrix, out: Matrix): void {
  const { software } = r.capabilities;
  sumOverRows(r, [x], { into: out, add: null }, ([x], sink) => {
    const kernel = columnSum({
      name: "column_sums",
      matrices: { x },
      term: at("x", "row", "col"),
      out: sink,
      software,
    });
    r.dispatch(kernel);
  });
}

/**
 * What the covariance of [x, c] over tokens is made from: [x, c]ᵀ · [x, c], and below it the sums
 * of its columns. Summed in a fixed order; passes no gradient.
 *
 * @param x `[N, a]`, such as the normed inputs of a layer
 * @param c `[N, b]`, such as its latents
 * @returns `[a + b + 1, a + b]`
 * @throws {RangeError} if the numbers of rows differ
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { latentStatistics } from "./latent_statistics.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const x = backend.tensor([1, 2], 2, 1), c = backend.tensor([3, 4], 2, 1);
 * assert.deepEqual([...backend.read(latentStatistics(x, c))], [5, 11, 11, 25, 3, 7]);
 * ```
 */
export function latentStatistics(x: Tensor, c: Tensor): Tensor {
  return x.backend.apply(latentStatisticsOp, [x, c], {})[0];
}
