/**
 * Gradients of tfjs-core's kernels. The entry that Deno loads registers none ("gradient function
 * not found"), so those that naive twins need are defined here and registered by us. They use
 * only kernels that the wasm backend has.
 *
 * @module
 */
import type { Tf } from "../ops/op.ts";
import { elementwiseGradients } from "./gradients_elementwise.ts";
import { gathers, rearrangements } from "./gradients_move.ts";
import { products, reductions } from "./gradients_reduce.ts";

const registered = new WeakSet<Tf>();

/**
 * Registers, once, the gradients of all kernels that twins may use. Piecewise constant kernels
 * (comparisons, rounding, arg max) get zeros, so a mask may be computed from trained values.
 *
 * Where a maximum is shared by several elements, they share its gradient evenly.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "./backend.ts";
 * import { registerGradients } from "./gradients.ts";
 *
 * const { tf } = await TfjsBackend.open("wasm");
 * // Opening the backend has done this already; a second time changes nothing.
 * registerGradients(tf);
 * const slope = tf.grad((x) => tf.sum(tf.tanh(x)));
 * assert.equal(slope(tf.tensor1d([0])).dataSync()[0], 1);
 * ```
 */
export function registerGradients(tf: Tf): void {
  if (registered.has(tf)) return;
  registered.add(tf);
  const families = [elementwiseGradients, reductions, products, gathers, rearrangements];
  for (const config of families.flatMap((family) => family(tf))) tf.registerGradient(config);
}
