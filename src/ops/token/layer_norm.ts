import {
  layerNormBiasGradient,
  layerNormGradient,
  layerNormKernel as kernel,
  layerNormWeightGradient,
} from "../../kernels/token/layer_norm.ts";
import { sumOverRows } from "./column_sums.ts";
import { matrixType, type Op, requireShapes, type Tensor } from "../op.ts";
import { byRowsWithSink } from "../sink.ts";

/** LayerNorm; see {@linkcode layerNorm}. Inputs: x, weight and, if there is one, bias. */
export const layerNormOp: Op<{ eps: number }> = {
  name: "layerNorm",
  types(inputs) {
    const [x, ...rest] = inputs;
    requireShapes(
      (rest.length === 1 || rest.length === 2) &&
        rest.every((t) => t.rows === 1 && t.cols === x.cols),
      "layerNorm",
      inputs,
      "x [rows, cols], weight [1, cols] and no or one bias [1, cols]",
    );
    return [matrixType(x.rows, x.cols)];
  },
  twin(tf, [x, w, b], { eps }) {
    const centred = tf.sub(x, tf.mean(x, 1, true));
    const variance = tf.mean(tf.square(centred), 1, true);
    const y = tf.mul(tf.mul(centred, tf.rsqrt(tf.add(variance, eps))), w);
    return [b ? tf.add(y, b) : y] as [typeof x];
  },
  forward(r, [x, w, b], [y], { eps }) {
    const { software } = r.capabilities;
    r.byRows([x, y], (x, y) => {
      r.dispatch(kernel({ x, w, b: b ?? null, y, eps, software }));
    });
  },
  backward(r, g, [x, w, b], _outputs, { eps }) {
    const { software } = r.capabilities;
    const dy = g.gradient(0);
    const stats = r.temporary(x.rows, 2);
    const dx = g.wants(0) ? g.sink(0) : { into: r.temporary(x.rows, x.cols), add: null };
    byRowsWithSink(r, [x, dy, stats], dx, ([x, dy, stats], dx) => {
      r.dispatch(layerNormGradient({ x, w, dy, stats, dx, eps, software }));
    });
    if (g.wants(1)) {
      sumOverRows(r, [x, dy, stats], g.sink(1), ([x, dy, stats], dw) => {
        r.dispatch(layerNormWeightGradient({ x, dy, stats, dw, software }));
      });
    }
    if (b && g.wants(2)) {
      sumOverRows(r, [dy], g.sink(2), ([dy], db) => {
        r.dispatch(layerNormBiasGradient({ dy, db, software }));
      });
    }
  },
};

/**
 * LayerNorm (Ba et al., 2016, arXiv:1607.06450): (x − mean) / sqrt(var + eps) ∘ weight + bias, mean
 * and variance (divided by cols) over each row.
 *
 * @param x [rows, cols]
 * @param weight [1, cols]
 * @param bias [1, cols], or null for none
 * @returns [rows, cols]
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { layerNorm } from "./layer_norm.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const x = backend.tensor([1, 3], 1, 2);
 * const weight = backend.tensor([1, 1], 1, 2);
 * const [a, b] = backend.read(layerNorm(x, weight, null, 1e-5));
 * assert(Math.abs(a + 1) < 1e-4 && Math.abs(b - 1) < 1e-4);
 * ```
 */
export function layerNorm(x: Tensor, weight: Tensor, bias: Tensor | null, eps: number): Tensor {
  const inputs = bias ? [x, weight, bias] : [x, weight];
  return x.backend.apply(layerNormOp, inputs, { eps })[0];
}
