import {
  mixHeadsGateTerms,
  mixHeadsGradient,
  mixHeadsKernel,
  mixHeadsWeightGradient,
} from "../../kernels/token/mix_heads.ts";
import { columnSum } from "../../kernels/token/column_sum.ts";
import { at } from "../../kernels/wgsl/layout_units.ts";
import { sumOverRows } from "./column_sums.ts";
import { matrixType, type Op, requireShapes, type Tensor, type TfMatrix } from "../op.ts";
import { byRowsWithSink } from "../sink.ts";

/** A weighted sum of heads; see {@linkcode mixHeads}. */
export const mixHeadsOp: Op<{ scale: number }> = {
  name: "mixHeads",
  types(inputs) {
    const [x, w, gate] = inputs;
    requireShapes(
      inputs.length === 3 && x.rows === w.rows && x.cols % w.cols === 0 && gate.rows === 1 &&
        gate.cols === 1 && inputs.every(({ dtype }) => dtype === "f32"),
      "mixHeads",
      inputs,
      "x [rows, heads * dim], w [rows, heads], gate [1, 1]",
    );
    return [matrixType(x.rows, x.cols / w.cols)];
  },
  twin(tf, [x, w, gate], { scale }) {
    const heads = tf.reshape(x, [x.shape[0], w.shape[1], -1]);
    const sums = tf.sum(tf.mul(heads, tf.expandDims(w, 2)), 1) as TfMatrix;
    return [tf.mul(tf.mul(sums, scale), gate)];
  },
  forward(r, [x, w, gate], [y], { scale }) {
    r.byRows([x, w, y], (x, w, y) => r.dispatch(mixHeadsKernel({ x, w, gate, y, scale })));
  },
  backward(r, g, [x, w, gate], _outputs, { scale }) {
    const dy = g.gradient(0);
    if (g.wants(0)) {
      byRowsWithSink(r, [w, dy], g.sink(0), ([w, dy], dx) => {
        r.dispatch(mixHeadsGradient({ w, gate, scale, dy, dx }));
      });
    }
    if (g.wants(1)) {
      byRowsWithSink(r, [x, dy], g.sink(1), ([x, dy], dw) => {
        r.dispatch(mixHeadsWeightGradient({ x, w, gate, scale, dy, dw }));
      });
    }
    if (!g.wants(2)) return;
    const { software } = r.capabilities;
    const terms = r.temporary(x.rows, 1);
    r.byRows([x, w, dy, terms], (x, w, dy, out) => {
      r.dispatch(mixHeadsGateTerms({ x, w, scale, dy, out }));
    });
    sumOverRows(r, [terms], g.sink(2), ([x], out) => {
      const term = at("x", "row", "col");
      r.dispatch(columnSum({ name: "sum_of_terms", matrices: { x }, term, out, software }));
    });
  },
};

/**
 * The heads of each row, summed up: gate · scale · Σ_j w[t, j] · x[t, j].
 *
 * @param x [rows, heads · dim]
 * @param w [rows, heads]
 * @param gate [1, 1]
 * @returns [rows, dim]
 * @throws {RangeError} if the shapes do not fit
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { mixHeads } from "./mix_heads.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const x = backend.tensor([1, 2, 3, 4], 1, 4), w = backend.tensor([10, 1], 1, 2);
 * const gate = backend.tensor([2], 1, 1);
 * assert.deepEqual([...backend.read(mixHeads(x, w, gate, 0.5))], [13, 24]);
 * ```
 */
export function mixHeads(x: Tensor, w: Tensor, gate: Tensor, scale = 1): Tensor {
  return x.backend.apply(mixHeadsOp, [x, w, gate], { scale })[0];
}
