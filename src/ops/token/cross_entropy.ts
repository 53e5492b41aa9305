import {
  crossEntropyGradient,
  crossEntropyKernel as kernel,
  scaledSum,
} from "../../kernels/token/cross_entropy.ts";
import { matrixType, type Op, requireShapes, type Tensor } from "../op.ts";
import { byRowsWithSink } from "../sink.ts";

/** Softmax cross-entropy; see {@linkcode crossEntropy}. Outputs: loss, nll, lse. */
export const crossEntropyOp: Op<null> = {
  name: "crossEntropy",
  savesOutputs: true,
  types(inputs) {
    const [logits, targets, inverseCount] = inputs;
    requireShapes(
      inputs.length === 3 && targets.dtype === "i32" && targets.cols === 1 &&
        targets.rows === logits.rows && inverseCount.rows === 1 && inverseCount.cols === 1,
      "crossEntropy",
      inputs,
      "logits [rows, vocabulary], i32 targets [rows, 1], inverse count [1, 1]",
    );
    return [matrixType(1, 1), matrixType(logits.rows, 1), matrixType(logits.rows, 1)];
  },
  twin(tf, [logits, targets, inverseCount]) {
    const [rows, vocabulary] = logits.shape;
    const flat = tf.reshape(targets, [rows]);
    const counted = tf.cast(tf.reshape(tf.greaterEqual(flat, 0), [rows, 1]), logits.dtype);
    const chosen = tf.oneHot(tf.maximum(flat, tf.scalar(0, "int32")), vocabulary);
    const logProbabilities = tf.logSoftmax(logits);
    const own = tf.sum(tf.mul(tf.cast(chosen, logits.dtype), logProbabilities), 1, true);
    const nll = tf.neg(tf.mul(own, counted)) as typeof logits;
    const loss = tf.mul(tf.sum(nll, 0, true), inverseCount) as typeof logits;
    return [loss, nll, tf.logSumExp(logits, 1, true)];
  },
  forward(r, [logits, targets, inverseCount], [loss, nll, lse]) {
    const { software } = r.capabilities;
    r.byRows([logits, targets, nll, lse], (logits, targets, nll, lse) => {
      r.dispatch(kernel({ logits, targets, nll, lse, software }));
    });
    r.dispatch(scaledSum({ x: nll, scale: inverseCount, out: loss }));
  },
  backward(r, g, [logits, targets, scale], [_loss, _nll, lse]) {
    const weight = g.lossWeight(0);
    byRowsWithSink(r, [logits, targets, lse], g.sink(0), ([logits, targets, lse], dLogits) => {
      r.dispatch(crossEntropyGradient({ logits, targets, lse, scale, dLogits, weight }));
    });
  },
};

/**
 * Softmax cross-entropy in nats: nll = log Σ exp(logits) − logits[target], and the loss
 * inverseCount · Σ nll. Rows with target −1 count nothing. The loss is to be a root of the backward
 * pass; no gradient passes through `nll`.
 *
 * @param logits [rows, vocabulary]
 * @param targets i32 [rows, 1], each in −1 … vocabulary − 1
 * @param inverseCount [1, 1], usually 1 / number of targets ≥ 0 in the whole batch
 * @returns `loss` [1, 1] and `nll` [rows, 1]
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { crossEntropy } from "./cross_entropy.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const logits = backend.tensor([0, 0, 0, 0], 2, 2);
 * const targets = backend.tensor([1, -1], 2, 1, "i32");
 * const { loss } = crossEntropy(logits, targets, backend.tensor([1], 1, 1));
 * assert(Math.abs(backend.read(loss)[0] - Math.LN2) < 1e-6);
 * ```
 */
export function crossEntropy(
  logits: Tensor,
  targets: Tensor,
  inverseCount: Tensor,
): { loss: Tensor; nll: Tensor } {
  const inputs = [logits, targets, inverseCount];
  const [loss, nll] = logits.backend.apply(crossEntropyOp, inputs, null);
  return { loss, nll };
}
