import type { Op, Tensor } from "../op.ts";

/**
 * The same matrix, marking where a part of the model begins whose activations may be computed
 * again in the backward pass instead of being kept (Chen et al., "Training Deep Nets with Sublinear
 * Memory Cost", 2016). Costs nothing by itself.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { checkpoint } from "./checkpoint.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * assert.deepEqual([...backend.read(checkpoint(backend.tensor([1, 2], 1, 2)))], [1, 2]);
 * ```
 */
export function checkpoint(x: Tensor): Tensor {
  return x.backend.apply(checkpointOp, [x], { cols: x.cols })[0];
}

/** The op behind {@linkcode checkpoint}: a view. */
export const checkpointOp: Op<{ cols: number }> = {
  name: "checkpoint",
  types: ([x]) => [x],
  twin: (tf, [x]) => [tf.clone(x)],
  view: ({ cols }) => ({ start: 0, cols }),
};
