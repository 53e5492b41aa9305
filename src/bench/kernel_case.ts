/**
 * What the cases of `kernels.ts` are made of.
 *
 * @module
 */
import type { Kernel } from "../kernels/wgsl/kernel.ts";
import type { Call } from "./run_kernels.ts";
import { type Layout } from "../kernels/wgsl/operand.ts";

/** What the shapes follow from. */
export interface Sizes {
  readonly square: number;
  readonly batch: number;
  readonly seqLen: number;
  readonly hidden: number;
  readonly vocabulary: number;
  readonly heads: number;
  readonly nope: number;
  readonly rope: number;
  readonly value: number;
  readonly indexHeads: number;
  readonly indexDim: number;
  readonly topk: number;
  readonly parameters: number;
}

/** Content of a buffer. */
export type Data = Float32Array | Int32Array;

/** Kernels to be timed together, and their buffers. */
export interface Case {
  readonly name: string;
  readonly calls: readonly Call[];
  readonly arrays: readonly Data[];
  /** Where not the sum of the kernels' own. */
  readonly flops?: number;
  readonly bytes?: number;
}

/** One kernel whose buffers are these matrices, in order. */
export function single(kernel: Kernel, arrays: readonly Data[]): Case {
  return { name: kernel.label, calls: [[kernel, ...arrays.keys()]], arrays };
}

/** Numbers from -0.5 to 0.5, repeated after a million. */
export function randomValues({ rows, cols }: Layout): Float32Array<ArrayBuffer> {
  const out = new Float32Array(rows * cols);
  const drawn = Math.min(out.length, 2 ** 20);
  for (let i = 0; i < drawn; i++) out[i] = Math.random() - 0.5;
  for (let i = drawn; i < out.length; i += drawn) {
    out.set(out.subarray(0, Math.min(drawn, out.length - i)), i);
  }
  return out;
}
