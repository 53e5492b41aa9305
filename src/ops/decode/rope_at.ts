import { ropeKernel as kernel } from "../../kernels/token/rope.ts";
import { matrixType, type Op, requireShapes, type Tensor } from "../op.ts";
import { requireRotation, ropeTwin, type Rotation } from "../token/rope.ts";

/** Rotary position embedding at given positions; see {@linkcode ropeAt}. */
export const ropeAtOp: Op<Rotation> = {
  name: "ropeAt",
  stopsGradient: true,
  types(inputs, spec) {
    const [x, positions] = inputs;
    const { heads, headDim } = spec;
    requireShapes(
      inputs.length === 2 && x.cols === heads * headDim && positions.rows === x.rows &&
        positions.cols === 1 && positions.dtype === "i32",
      "ropeAt",
      inputs,
      `[rows, ${heads} * ${headDim}] and i32 positions [rows, 1]`,
    );
    requireRotation(spec);
    return [matrixType(x.rows, x.cols)];
  },
  twin(tf, [x, positions], spec) {
    const at = positions.dataSync();
    return [ropeTwin(tf, x, spec, (row) => at[row])];
  },
  forward(r, [x, positions], [y], spec) {
    const { software } = r.capabilities;
    const place = { seqLen: 1, firstRow: 0, inverse: false };
    r.byRows([x, positions, y], (x, positions, y) => {
      const sink = { into: y, add: null };
      r.dispatch(kernel({ ...spec, ...place, x, positions, y: sink, software }));
    });
  },
};

/**
 * `rope` for tokens that stand anywhere: row n is rotated as at position `positions[n]`. For
 * generating; no gradient passes.
 *
 * @param x [rows, heads · headDim]
 * @param positions i32 [rows, 1]
 * @returns like x
 * @throws {RangeError} if `dims` is odd or the rotated part leaves the head
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { ropeAt } from "./rope_at.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const x = backend.tensor([1, 0], 1, 2), position = backend.tensor([3], 1, 1, "i32");
 * const spec = { heads: 1, headDim: 2, start: 0, dims: 2, theta: 10_000 };
 * const y = backend.read(ropeAt(x, position, { ...spec, layout: "interleaved" }));
 * assert([Math.cos(3), Math.sin(3)].every((value, i) => Math.abs(y[i] - value) < 1e-6));
 * ```
 */
export function ropeAt(x: Tensor, positions: Tensor, spec: Rotation): Tensor {
  return x.backend.apply(ropeAtOp, [x, positions], spec)[0];
}
