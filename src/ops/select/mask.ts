import { maskUnionKernel, selectionMaskKernel as kernel } from "../../kernels/select/mask.ts";
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

/** Keys that either selection has; see {@linkcode maskUnion}. */
export const maskUnionOp: Op<null> = {
  name: "maskUnion",
  stopsGradient: true,
  types(inputs) {
    const [a, b] = inputs;
    requireShapes(
      inputs.length === 2 && a.rows === b.rows && a.cols === b.cols &&
        inputs.every(({ dtype }) => dtype === "i32"),
      "maskUnion",
      inputs,
      "two i32 masks of one shape",
    );
    return [matrixType(a.rows, a.cols, "i32")];
  },
  twin(tf, [a, b]) {
    const [bits, others] = [a.dataSync(), b.dataSync()];
    const union = Int32Array.from(bits, (word, i) => word | others[i]);
    return [tf.tensor2d(union, a.shape, "int32")];
  },
  forward(r, [a, b], [y]) {
    r.byRows([a, b, y], (a, b, y) => r.dispatch(maskUnionKernel({ a, b, y })));
  },
};

/**
 * The keys that either of two selections has, as bits.
 *
 * @param a i32 [rows, words], as of `selectionMask`
 * @param b another
 * @returns like them
 * @throws {RangeError} if they are not masks of one shape
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { maskUnion } from "./mask.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const [a, b] = [0b011, 0b110].map((bits) => backend.tensor([bits], 1, 1, "i32"));
 * assert.deepEqual([...backend.read(maskUnion(a, b))], [0b111]);
 * ```
 */
export function maskUnion(a: Tensor, b: Tensor): Tensor {
  return a.backend.apply(maskUnionOp, [a, b], null)[0];
}
