import { addInto } from "../../kernels/token/add.ts";
import { matrixType, type Op, requireShapes, type Tensor } from "../op.ts";

/** Sum of two matrices; see {@linkcode add}. */
export const addOp: Op<null> = {
  name: "add",
  types(inputs) {
    const [a, b] = inputs;
    requireShapes(
      inputs.length === 2 && a.rows === b.rows && a.cols === b.cols,
      "add",
      inputs,
      "two matrices of one shape",
    );
    return [matrixType(a.rows, a.cols)];
  },
  twin(tf, [a, b]) {
    return [tf.add(a, b)];
  },
  forward(r, [a, b], [c]) {
    r.byRows([a, c, b], (a, c, b) => r.dispatch(addInto({ a, into: c, add: b })));
  },
  backward(_r, g) {
    g.pass(0, g.gradient(0));
    g.pass(1, g.gradient(0));
  },
};

/**
 * a + b, element by element: residual branches.
 *
 * @param a [rows, cols]
 * @param b [rows, cols]
 * @returns [rows, cols]
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { add } from "./add.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const x = backend.tensor([1, 2, 3, 4], 2, 2);
 * assert.deepEqual([...backend.read(add(x, x))], [2, 4, 6, 8]);
 * ```
 */
export function add(a: Tensor, b: Tensor): Tensor {
  return a.backend.apply(addOp, [a, b], null)[0];
}
