import { selectionMaskKernel as kernel } from "../../kernels/select/mask.ts";
import { matrixType, type Op, requireShapes, type Tensor } from "../op.ts";

/** Attributes of {@linkcode selectionMask}. */
export interface SelectionMaskAttributes {
  /** Positions of a sequence. */
  seqLen: number;
}

/** Selections as bits; see {@linkcode selectionMask}. */
export const selectionMaskOp: Op<SelectionMaskAttributes> = {
  name: "selectionMask",
  stopsGradient: true,
  types(inputs, { seqLen }) {
    if (!Number.isInteger(seqLen) || seqLen < 1) {
      throw new RangeError(
        `Cannot apply selectionMask: seqLen is ${seqLen}, not a whole number above 0`,
      );
    }
    const [indices] = inputs;
    requireShapes(
      inputs.length === 1 && indices.dtype === "i32",
      "selectionMask",
      inputs,
      "i32 indices [rows, k]",
    );
    return [matrixType(indices.rows, Math.ceil(seqLen / 32), "i32")];
  },
  twin(tf, [indices], { seqLen }) {
    const [rows, k] = indices.shape;
    const words = Math.ceil(seqLen / 32);
    const mask = new Int32Array(rows * words);
    indices.dataSync().forEach((s, i) => {
      if (s >= 0) mask[Math.floor(i / k) * words + (s >> 5)] |= 1 << (s & 31);
    });
    return [tf.tensor2d(mask, [rows, words], "int32")];
  },
  forward(r, [indices], [mask]) {
    r.byRows([indices, mask], (indices, mask) => {
      r.dispatch(kernel({ indices, mask }));
    });
  },
};

/**
 * A selection as bits: bit s % 32 of word s / 32 of a row is set where the row selects key s.
 *
 * @param indices i32 [batch · seqLen, k]: positions, ascending, then -1
 * @returns i32 [batch · seqLen, ceil(seqLen / 32)]
 * @throws {RangeError} if `indices` is not of i32, or seqLen is not a whole number above 0
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { selectionMask } from "./mask.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const indices = backend.tensor([0, -1, 0, 1, 1, 2], 3, 2, "i32");
 * assert.deepEqual([...backend.read(selectionMask(indices, { seqLen: 3 }))], [0b1, 0b11, 0b110]);
 * ```
 */
export function selectionMask(indices: Tensor, attributes: SelectionMaskAttributes): Tensor {
  return indices.backend.apply(selectionMaskOp, [indices], attributes)[0];
}
