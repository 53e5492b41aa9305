import { swigluGradient, swigluKernel as kernel } from "../../kernels/token/swiglu.ts";
import { matrixType, type Op, requireShapes, type Tensor } from "../op.ts";
import { byRowsWithSink } from "../sink.ts";

/** SwiGLU; see {@linkcode swiglu}. */
export const swigluOp: Op<null> = {
  name: "swiglu",
  types(inputs) {
    const [x] = inputs;
    requireShapes(
      inputs.length === 1 && x.cols % 2 === 0,
      "swiglu",
      inputs,
      "gate and up side by side, [rows, 2 * cols]",
    );
    return [matrixType(x.rows, x.cols / 2)];
  },
  twin(tf, [x]) {
    const cols = x.shape[1] / 2;
    const gate = tf.slice(x, [0, 0], [-1, cols]);
    const up = tf.slice(x, [0, cols], [-1, cols]);
    return [tf.mul(tf.mul(gate, tf.sigmoid(gate)), up)];
  },
  forward(r, [gateUp], [y]) {
    r.byRows([gateUp, y], (gateUp, y) => r.dispatch(kernel({ gateUp, y })));
  },
  backward(r, g, [gateUp]) {
    byRowsWithSink(r, [gateUp, g.gradient(0)], g.sink(0), ([gateUp, dy], dx) => {
      r.dispatch(swigluGradient({ gateUp, dy, dGateUp: dx }));
    });
  },
};

/**
 * SwiGLU (Shazeer, 2020, arXiv:2002.05202): silu(gate) ∘ up, silu(z) = z / (1 + e^−z).
 *
 * @param gateUp [rows, 2 · cols]: gate in the first half of the columns, up in the second
 * @returns [rows, cols]
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { swiglu } from "./swiglu.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const gateUp = backend.tensor([0, 100, 7, 2], 1, 4);
 * assert.deepEqual([...backend.read(swiglu(gateUp))], [0, 200]);
 * ```
 */
export function swiglu(gateUp: Tensor): Tensor {
  return gateUp.backend.apply(swigluOp, [gateUp], null)[0];
}
