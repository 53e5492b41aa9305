import {
  rmsNormGradient,
  rmsNormKernel as kernel,
  rmsNormWeightGradient,
} from "../../kernels/token/rms_norm.ts";
import { sumOverRows } from "./column_sums.ts";
import { matrixType, type Op, requireShapes, type Tensor } from "../op.ts";
import { byRowsWithSink } from "../sink.ts";

/** RMSNorm; see {@linkcode rmsNorm}. */
export const rmsNormOp: Op<{ eps: number }> = {
  name: "rmsNorm",
  types(inputs) {
    const [x, w] = inputs;
    requireShapes(
      inputs.length === 2 && w.rows === 1 && w.cols === x.cols,
      "rmsNorm",
      inputs,
      "x [rows, cols], weight [1, cols]",
    );
    return [matrixType(x.rows, x.cols)];
  },
  twin(tf, [x, w], { eps }) {
    const meanSquare = tf.mean(tf.square(x), 1, true);
    return [tf.mul(tf.mul(x, tf.rsqrt(tf.add(meanSquare, eps))), w)];
  },
  forward(r, [x, w], [y], { eps }) {
    const { software } = r.capabilities;
    r.byRows([x, y], (x, y) => r.dispatch(kernel({ x, w, y, eps, software })));
  },
  backward(r, g, [x, w], _outputs, { eps }) {
    const { software } = r.capabilities;
    const dy = g.gradient(0);
    const rstd = r.temporary(x.rows, 1);
    const dx = g.wants(0) ? g.sink(0) : { into: r.temporary(x.rows, x.cols), add: null };
    byRowsWithSink(r, [x, dy, rstd], dx, ([x, dy, rstd], dx) => {
      r.dispatch(rmsNormGradient({ x, w, dy, rstd, dx, eps, software }));
    });
    if (!g.wants(1)) return;
    sumOverRows(r, [x, dy, rstd], g.sink(1), ([x, dy, rstd], dw) => {
      r.dispatch(rmsNormWeightGradient({ x, dy, rstd, dw, software }));
    });
  },
};

/**
 * RMSNorm (Zhang and Sennrich, 2019, arXiv:1910.07467): x / sqrt(mean(x²) + eps) ∘ weight, the mean
 * over each row.
 *
 * @param x [rows, cols]
 * @param weight [1, cols]
 * @returns [rows, cols]
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { rmsNorm } from "./rms_norm.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const x = backend.tensor([2, -2], 1, 2);
 * const weight = backend.tensor([1, 3], 1, 2);
 * const [a, b] = backend.read(rmsNorm(x, weight, 1e-6));
 * assert(Math.abs(a - 1) < 1e-5 && Math.abs(b + 3) < 1e-5);
 * ```
 */
export function rmsNorm(x: Tensor, weight: Tensor, eps: number): Tensor {
  return x.backend.apply(rmsNormOp, [x, weight], { eps })[0];
}
