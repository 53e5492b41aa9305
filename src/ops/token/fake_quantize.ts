import { fakeQuantizeKernel, type Grid, MOST_OF_GROUP } from "../../kernels/token/fake_quantize.ts";
import { matrixType, type Op, type Tensor, type TfMatrix } from "../op.ts";

/** Numbers of few bits, by name: whole ones of so many bits, and FP8 E4M3. */
export const QUANTIZED = {
  "16": { bits: 16, grid: { largest: 32767 } },
  "8": { bits: 8, grid: { largest: 127 } },
  fp8: { bits: 8, grid: { largest: 448, float: { mantissa: 3, lowest: -6 } } },
  "4": { bits: 4, grid: { largest: 7 } },
  "2": { bits: 2, grid: { largest: 1 } },
} as const satisfies Record<string, { bits: number; grid: Grid }>;

/** A name of one of {@linkcode QUANTIZED}. */
export type QuantizedName = keyof typeof QUANTIZED;

/** Attributes of {@linkcode fakeQuantize}. */
export interface FakeQuantizeAttributes {
  /** What numbers may be. */
  readonly to: QuantizedName;
  /** Groups of a row, each with a scale of its own; default 1. */
  readonly groups?: number;
  /**
   * Whether a group is turned by a Hadamard matrix before it is rounded, and back after, so that no
   * column alone sets the scale. The matrix has blocks of the largest power of two that divides a
   * group.
   */
  readonly hadamard?: boolean;
}

/** Rounding to few bits; see {@linkcode fakeQuantize}. */
export const fakeQuantizeOp: Op<FakeQuantizeAttributes> = {
  name: "fakeQuantize",
  types(inputs, { groups = 1 }) {
    const [x] = inputs;
    const isWhole = Number.isInteger(groups) && groups > 0 && x.cols % groups === 0;
    if (inputs.length !== 1 || x.dtype !== "f32" || !isWhole) {
      throw new RangeError(
        `Cannot apply fakeQuantize to ${x.rows}x${x.cols} in ${groups} groups: they must be whole`,
      );
    }
    if (x.cols / groups > MOST_OF_GROUP) {
      throw new RangeError(
        `Cannot apply fakeQuantize to ${x.cols / groups} columns with one scale: take at most ` +
          `${MOST_OF_GROUP}`,
      );
    }
    return [matrixType(x.rows, x.cols)];
  },
  twin(tf, [x], attributes) {
    const n = x.shape[1] / (attributes.groups ?? 1);
    const straightThrough = tf.customGrad((x) => ({
      value: tf.tensor2d(rounded((x as TfMatrix).dataSync(), n, attributes), (x as TfMatrix).shape),
      gradFunc: (dy: TfMatrix) => dy,
    }));
    return [straightThrough(x) as TfMatrix];
  },
  forward(r, [x], [y], { to, groups = 1, hadamard = false }) {
    const { grid } = QUANTIZED[to];
    const block = hadamard ? blockOf(x.cols / groups) : 1;
    r.byRows([x, y], (x, y) => r.dispatch(fakeQuantizeKernel({ x, y, groups, grid, block })));
  },
  backward(_r, g) {
    g.pass(0, g.gradient(0));
  },
};

/** The largest power of two that divides a number. */
function blockOf(n: number): number {
  return n & -n;
}

/** The numbers, group by group, in plain loops. */
function rounded(
  x: ArrayLike<number>,
  n: number,
  { to, hadamard = false }: FakeQuantizeAttributes,
): Float32Array {
  const { largest, float }: Grid = QUANTIZED[to].grid;
  const block = hadamard ? blockOf(n) : 1;
  const out = new Float32Array(x.length);
  for (let first = 0; first < x.length; first += n) {
    const group = turned(Array.from({ length: n }, (_, i) => x[first + i]), block);
    const scale = Math.max(...group.map(Math.abs), 2 ** -126) / largest;
    const values = group.map((value) => {
      const v = value / scale;
      const unit = float ? 2 ** (Math.max(exponentOf(v), float.lowest) - float.mantissa) : 1;
      return roundHalfEven(v / unit) * unit * scale;
    });
    out.set(turned(values, block), first);
  }
  return out;
}

/** ⌊log2 |v|⌋, by the bits. */
function exponentOf(v: number): number {
  const [bits] = new Uint32Array(Float32Array.of(v).buffer);
  return (bits >> 23 & 0xff) - 127;
}

function roundHalfEven(v: number): number {
  const floor = Math.floor(v);
  return v - floor === 0.5 ? 2 * Math.round(v / 2) : Math.round(v);
}

/** Blocks times the Hadamard matrix, whose entries are ±1 / √n. */
function turned(x: readonly number[], block: number): number[] {
  const isOdd = (i: number) => i.toString(2).replaceAll("0", "").length % 2 === 1;
  return x.map((_, at) => {
    const [first, row] = [at - at % block, at % block];
    let sum = 0;
    for (let i = 0; i < block; i++) sum += isOdd(row & i) ? -x[first + i] : x[first + i];
    return sum / Math.sqrt(block);
  });
}

/**
 * What is left of x if each group of a row is kept in few bits beside one scale: scale ·
 * round(x / scale), where scale = max |x| / largest, halves to even. Its gradient goes straight
 * through (Bengio et al., 2013, arXiv:1308.3432). FP8 is E4M3 (Micikevicius et al., 2022,
 * arXiv:2209.05433); the Hadamard matrix is that of DeepSeek-V3.2's indexer.
 *
 * @param x [rows, cols]
 * @returns like x
 * @throws {RangeError} if groups are not whole, or wider than 2048 columns
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { fakeQuantize } from "./fake_quantize.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const x = backend.tensor([7, -3.4, 0.6], 1, 3);
 * assert.deepEqual([...backend.read(fakeQuantize(x, { to: "4" }))], [7, -3, 1]);
 * ```
 */
export function fakeQuantize(x: Tensor, attributes: FakeQuantizeAttributes): Tensor {
  return x.backend.apply(fakeQuantizeOp, [x], attributes)[0];
}
