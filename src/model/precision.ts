/**
 * What is kept of numbers in fewer bits: of latents, of index queries and keys.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import type { Tensor } from "../ops/op.ts";
import { fakeQuantize, type QuantizedName } from "../ops/token/fake_quantize.ts";

/** The matrix in so many bits, a scale a token and group; null: as it is. */
export function inBits(
  x: Tensor,
  bits: QuantizedName | null,
  { hadamard }: Pick<RunConfig, "hadamard">,
  groups = 1,
): Tensor {
  return bits === null ? x : fakeQuantize(x, { to: bits, groups, hadamard });
}
