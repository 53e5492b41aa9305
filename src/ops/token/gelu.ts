import { geluGradient, geluKernel as kernel } from "../../kernels/token/gelu.ts";
import { matrixType, type Op, requireShapes, type Tensor } from "../op.ts";
import { byRowsWithSink } from "../sink.ts";

/** GELU in its tanh form; see {@linkcode gelu}. */
export const geluOp: Op<null> = {
  name: "gelu",
  types(inputs) {
    requireShapes(inputs.length === 1, "gelu", inputs, "one matrix");
    return [matrixType(inputs[0].rows, inputs[0].cols)];
  },
  twin(tf, [x]) {
    const cube = tf.mul(tf.mul(x, x), x);
    const inner = tf.mul(tf.add(x, tf.mul(cube, 0.044715)), Math.sqrt(2 / Math.PI));
    return [tf.mul(tf.mul(x, 0.5), tf.add(tf.tanh(inner), 1))];
  },
  forward(r, [x], [y]) {
    r.byRows([x, y], (x, y) => r.dispatch(kernel({ x, y })));
  },
  backward(r, g, [x]) {
    byRowsWithSink(r, [x, g.gradient(0)], g.sink(0), ([x, dy], dx) => {
      r.dispatch(geluGradient({ x, dy, dx: dx }));
    });
  },
};

/**
 * GELU (Hendrycks and Gimpel, 2016, arXiv:1606.08415) in its tanh form:
 * x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))).
 *
 * @param x of any shape
 * @returns like x
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { gelu } from "./gelu.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const [low, zero, one] = backend.read(gelu(backend.tensor([-9, 0, 1], 1, 3)));
 * assert(Math.abs(low) < 1e-6 && zero === 0 && Math.abs(one - 0.8412) < 1e-4);
 * ```
 */
export function gelu(x: Tensor): Tensor {
  return x.backend.apply(geluOp, [x], null)[0];
}
