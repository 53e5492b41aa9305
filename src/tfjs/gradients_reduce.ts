/**
 * Gradients of kernels that sum: reductions, softmaxes and matrix products.
 *
 * @module
 */
import type { GradConfig, NamedAttrMap, Tensor } from "@tensorflow/tfjs-core";
import type { Tf } from "../ops/op.ts";
import { sumTo } from "./gradients_elementwise.ts";

/** The gradients of sums, means, extremes, running sums and softmaxes. */
export function reductions(tf: Tf): GradConfig[] {
  /** Gives a reduced tensor its reduced axes back, as ones. */
  const keepDims = (y: Tensor, x: Tensor, axes: unknown) => {
    const reduced = axesOf(axes, x.rank);
    return tf.reshape(y, x.shape.map((n, i) => reduced.includes(i) ? 1 : n));
  };
  const spread = (dy: Tensor, x: Tensor, axes: unknown) =>
    tf.broadcastTo(keepDims(dy, x, axes), x.shape);
  const extremum = (kernelName: string, axisName: string): GradConfig => ({
    kernelName,
    inputsToSave: ["x"],
    outputsToSave: [true],
    gradFunc: (dy, [x, y], attributes) => ({
      x: () => {
        const axes = attributes[axisName];
        const hits = tf.cast(tf.equal(x, keepDims(y, x, axes)), "float32");
        const count = tf.sum(hits, axesOf(axes, x.rank), true);
        return tf.mul(hits, tf.div(keepDims(dy as Tensor, x, axes), count));
      },
    }),
  });
  return [
    {
      kernelName: "Sum",
      inputsToSave: ["x"],
      gradFunc: (dy, [x], { axis }) => ({ x: () => spread(dy as Tensor, x, axis) }),
    },
    {
      kernelName: "Mean",
      inputsToSave: ["x"],
      gradFunc: (dy, [x], { axis }) => ({
        x: () => spread(tf.div(dy as Tensor, x.size / (dy as Tensor).size), x, axis),
      }),
    },
    extremum("Max", "reductionIndices"),
    extremum("Min", "axis"),
    {
      kernelName: "Cumsum",
      gradFunc: (dy, _, { axis, exclusive, reverse }) => ({
        x: () => tf.cumsum(dy as Tensor, axis as number, exclusive as boolean, !reverse),
      }),
    },
    {
      kernelName: "Softmax",
      outputsToSave: [true],
      gradFunc: (dy, [y], { dim }) => ({
        logits: () => {
          const weighted = tf.mul(y, dy as Tensor);
          return tf.sub(weighted, tf.mul(y, tf.sum(weighted, dim as number, true)));
        },
      }),
    },
    {
      kernelName: "LogSoftmax",
      outputsToSave: [true],
      gradFunc: (dy, [y], { axis }) => ({
        logits: () =>
          tf.sub(dy as Tensor, tf.mul(tf.exp(y), tf.sum(dy as Tensor, axis as number, true))),
      }),
    },
  ];
}

/** The gradient of the (batched, broadcasting) matrix product. */
export function products(tf: Tf): GradConfig[] {
  const grad = (dy: Tensor, a: Tensor, b: Tensor, attributes: NamedAttrMap) => {
    const { transposeA, transposeB } = attributes;
    const toA = () =>
      transposeA
        ? tf.matMul(b, dy, transposeB as boolean, true)
        : tf.matMul(dy, b, false, !transposeB);
    const toB = () =>
      transposeB
        ? tf.matMul(dy, a, true, transposeA as boolean)
        : tf.matMul(a, dy, !transposeA, false);
    return {
      a: () => sumTo(tf, toA(), a.shape),
      b: () => sumTo(tf, toB(), b.shape),
    };
  };
  return [{
    kernelName: "BatchMatMul",
    inputsToSave: ["a", "b"],
    gradFunc: (dy, [a, b], attributes) => grad(dy as Tensor, a, b, attributes),
  }];
}

/** Axes as a list of numbers from 0; none given means all. */
export function axesOf(axes: unknown, rank: number): number[] {
  const list = axes == null ? [...Array(rank).keys()] : [axes as number | number[]].flat();
  return list.map((axis) => axis < 0 ? axis + rank : axis);
}
