import type { Op, Tensor, TfMatrix } from "./op.ts";

/**
 * The same matrix, through which no gradient passes (`sg(·)` of the DeepSeek-V3.2 report: the
 * indexer's inputs are detached).
 *
 * @example
 * ```ts ignore
 * const q = linear(detach(queryLatent), weight("indexer.wq_b"));
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
