/**
 * The heads of multi-head latent attention.
 *
 * @module
 */
import type { HeadDims } from "../../kernels/attention/attention.ts";

/** Heads of multi-head latent attention, as its ops take them. */
export interface MlaHeads {
  /** Heads of queries, keys and values. */
  readonly heads: number;
  /** Width of a key head, without position. */
  readonly qkNopeHeadDim: number;
  /** Width of the rotated key that all heads share. */
  readonly qkRopeHeadDim: number;
  /** Width of a value head. */
  readonly vHeadDim: number;
}

/** The same for the kernels of attention, which get keys and values in one matrix. */
export function mlaHeadDims(
  { heads, qkNopeHeadDim: nope, qkRopeHeadDim: rope, vHeadDim: value }: MlaHeads,
): HeadDims {
  return { heads, kvHeads: heads, nope, rope, value, packed: true };
}

/** Factor of the scores: that which is given, or (width of a query head)^-0.5. */
export function mlaScale(
  { qkNopeHeadDim, qkRopeHeadDim, scale }: Omit<MlaHeads, "vHeadDim"> & { scale?: number },
): number {
  return scale ?? (qkNopeHeadDim + qkRopeHeadDim) ** -0.5;
}
