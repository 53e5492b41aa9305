import type { Op, Tensor, TfMatrix } from "../op.ts";

/**
 * The same matrix, through which no gradient passes (`sg(·)` of the DeepSeek-V3.2 report: the
 * indexer's inputs are detached).
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { detach } from "./detach.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const x = backend.tensor([1, 2], 1, 2);
 * assert.deepEqual(backend.read(detach(x)), backend.read(x));
 * ```
 */
export function detach(x: Tensor): Tensor {
  return x.backend.apply(detachOp, [x], { cols: x.cols })[0];
}

/** The op behind {@linkcode detach}: a view. */
export const detachOp: Op<{ cols: number }> = {
  name: "detach",
  stopsGradient: true,
  types: ([x]) => [x],
  twin(tf, [x]) {
    const stop = tf.customGrad((x) => {
      const value = tf.clone(x as TfMatrix);
      return { value, gradFunc: (dy: TfMatrix) => tf.zerosLike(dy) };
    });
    return [stop(x) as TfMatrix];
  },
  view: ({ cols }) => ({ start: 0, cols }),
};
