import { ropeInPlace, ropeKernel as kernel, type RopeSpec } from "../../kernels/token/rope.ts";
import { matrixType, type Op, requireShapes, type Tensor, type Tf, type TfMatrix } from "../op.ts";
import { byRowsWithSink } from "../sink.ts";

/** Attributes of {@linkcode rope}. */
export interface RopeAttributes extends RopeSpec {
  /** Turn back what was turned by as much. */
  readonly inverse?: boolean;
}

/** Rotary position embedding; see {@linkcode rope}. */
export const ropeOp: Op<RopeAttributes> = {
  name: "rope",
  inPlace: true,
  types(inputs, spec) {
    const [x] = inputs;
    const { heads, headDim, seqLen } = spec;
    requireShapes(
      inputs.length === 1 && x.cols === heads * headDim && x.rows % seqLen === 0,
      "rope",
      inputs,
      `[multiple of ${seqLen}, ${heads} * ${headDim}]`,
    );
    requireRotation(spec);
    return [matrixType(x.rows, x.cols)];
  },
  twin(tf, [x], spec) {
    const sign = spec.inverse ? -1 : 1;
    return [ropeTwin(tf, x, spec, (row) => sign * (row % spec.seqLen))];
  },
  forward(r, [x], [y], spec) {
    const { software } = r.capabilities;
    const { inverse = false } = spec;
    let firstRow = 0;
    if (x.storage === y.storage) {
      r.byRows([x], (x) => {
        r.dispatch(ropeInPlace({ ...spec, x, firstRow, inverse, software }));
        firstRow += x.rows;
      });
      return;
    }
    byRowsWithSink(r, [x], { into: y, add: null }, ([x], y) => {
      r.dispatch(kernel({ ...spec, x, y, firstRow, inverse, software }));
      firstRow += x.rows;
    });
  },
  backward(r, g, _inputs, _outputs, spec) {
    const { software } = r.capabilities;
    const inverse = !spec.inverse;
    let firstRow = 0;
    byRowsWithSink(r, [g.gradient(0)], g.sink(0), ([dy], dx) => {
      r.dispatch(kernel({ ...spec, x: dy, y: dx, firstRow, inverse, software }));
      firstRow += dy.rows;
    });
  },
};

/** What is rotated and by how much, wherever a token stands. */
export type Rotation = Omit<RopeSpec, "seqLen">;

/** @throws {RangeError} if the rotated columns are no pairs, or leave the head */
export function requireRotation({ start, dims, headDim }: Rotation): void {
  if (dims % 2 !== 0 || dims < 2 || start < 0 || start + dims > headDim) {
    throw new RangeError(
      `Cannot rotate ${dims} columns from ${start} of ${headDim}: the number must be even and fit`,
    );
  }
}

/** The twin, for rows at given positions. */
export function ropeTwin(
  tf: Tf,
  x: TfMatrix,
  spec: Rotation,
  positionOf: (row: number) => number,
): TfMatrix {
  const { heads, headDim, start, dims, layout, theta } = spec;
  const [rows, cols] = x.shape;
  const pairs = dims / 2;
  const perHead = tf.reshape(x, [rows * heads, headDim]);
  const frequencies = Array.from({ length: pairs }, (_, i) => theta ** (-2 * i / dims));
  const angle = (i: number) => positionOf(Math.floor(i / (heads * pairs))) * frequencies[i % pairs];
  const table = (f: (angle: number) => number) =>
    tf.tensor2d(
      Float32Array.from({ length: rows * heads * pairs }, (_, i) => f(angle(i))),
      [rows * heads, pairs],
    );
  const cos = table(Math.cos);
  const sin = table(Math.sin);
  const rotated = tf.slice(perHead, [0, start], [-1, dims]);
  let first: TfMatrix, second: TfMatrix;
  if (layout === "interleaved") {
    const pairRows = tf.reshape(rotated, [rows * heads * pairs, 2]);
    first = tf.reshape(tf.slice(pairRows, [0, 0], [-1, 1]), [rows * heads, pairs]) as TfMatrix;
    second = tf.reshape(tf.slice(pairRows, [0, 1], [-1, 1]), [rows * heads, pairs]) as TfMatrix;
  } else {
    first = tf.slice(rotated, [0, 0], [-1, pairs]) as TfMatrix;
    second = tf.slice(rotated, [0, pairs], [-1, pairs]) as TfMatrix;
  }
  const a = tf.sub(tf.mul(first, cos), tf.mul(second, sin));
  const b = tf.add(tf.mul(second, cos), tf.mul(first, sin));
  const column = (t: typeof a) => tf.reshape(t, [rows * heads * pairs, 1]);
  const joined = layout === "interleaved"
    ? tf.reshape(tf.concat([column(a), column(b)], 1), [rows * heads, dims])
    : tf.concat([a, b], 1);
  const parts = [
    tf.slice(perHead, [0, 0], [-1, start]),
    joined,
    tf.slice(perHead, [0, start + dims], [-1, headDim - start - dims]),
  ].filter((t) => t.size > 0);
  return tf.reshape(tf.concat(parts, 1), [rows, cols]);
}

/**
 * Rotary position embedding (Su et al., 2021, arXiv:2104.09864) on part of each head: the pair
 * (a, b) number i of the token at position t = row % seqLen becomes
 * (a cos φ − b sin φ, b cos φ + a sin φ), φ = t · theta^(−2i / dims). Pairs are columns
 * (2i, 2i + 1) of the rotated part (`"interleaved"`, MLA) or (i, i + dims / 2) (`"halfSplit"`,
 * GPT-NeoX, Llama). Other columns stay. With `inverse` φ is −t · …: what was turned is turned back.
 *
 * @param x [batch · seqLen, heads · headDim]
 * @returns like x
 * @throws {RangeError} if `dims` is odd or the rotated part leaves the head
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { rope } from "./rope.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * // Two tokens, one head of 3 columns of which the last two rotate: by 0, then by 1 radian.
 * const x = backend.tensor([7, 1, 0, 7, 1, 0], 2, 3);
 * const spec = { seqLen: 2, heads: 1, headDim: 3, start: 1, dims: 2, theta: 10_000 };
 * const y = backend.read(rope(x, { ...spec, layout: "interleaved" }));
 * const expected = [7, 1, 0, 7, Math.cos(1), Math.sin(1)];
 * assert(expected.every((value, i) => Math.abs(y[i] - value) < 1e-6));
 * ```
 */
export function rope(x: Tensor, spec: RopeAttributes): Tensor {
  return x.backend.apply(ropeOp, [x], spec)[0];
}

export type { RopeLayout, RopeSpec } from "../../kernels/token/rope.ts";
