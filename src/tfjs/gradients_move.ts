/**
 * Gradients of kernels that move elements: gathers, scatters and rearrangements.
 *
 * @module
 */
import type { GradConfig, Tensor } from "@tensorflow/tfjs-core";
import type { Tf } from "../ops/op.ts";
import { axesOf } from "./gradients_reduce.ts";

/** The gradients of gathers, scatters and top-k. */
export function gathers(tf: Tf): GradConfig[] {
  /**
   * Adds `updates` [outer, picks, inner] at rows `indices` [outer, picks] of zeros
   * [outer, rows, inner]. A scatter adds up duplicates and, unlike a segment sum, exists on wasm.
   */
  const scatterRows = (indices: Tensor, updates: Tensor, rows: number) => {
    const [outer, picks, inner] = updates.shape;
    const first = tf.mul(tf.range(0, outer, 1, "int32"), tf.scalar(rows, "int32"));
    const flat = tf.add(tf.reshape(indices, [outer, picks]), tf.reshape(first, [outer, 1]));
    const sums = tf.scatterND(
      tf.reshape(flat, [outer * picks, 1]),
      tf.reshape(updates, [outer * picks, inner]),
      [outer * rows, inner],
    );
    return tf.reshape(sums, [outer, rows, inner]);
  };
  return [
    {
      kernelName: "GatherV2",
      inputsToSave: ["x", "indices"],
      gradFunc: (dy, [x, indices], attributes) => ({
        indices: () => tf.zeros(indices.shape),
        x: () => {
          const axis = axesOf(attributes.axis, x.rank)[0];
          const batchDims = attributes.batchDims as number;
          const batch = size(x.shape.slice(0, batchDims));
          const between = size(x.shape.slice(batchDims, axis));
          const rows = x.shape[axis];
          const inner = size(x.shape.slice(axis + 1));
          const picks = indices.size / batch;
          // [batch, between, picks, inner] to [batch, picks, between * inner] and back.
          const split = tf.reshape(dy as Tensor, [batch, between, picks, inner]);
          const updates = tf.reshape(
            tf.transpose(split, [0, 2, 1, 3]),
            [batch, picks, between * inner],
          );
          const sums = tf.reshape(scatterRows(indices, updates, rows), [
            batch,
            rows,
            between,
            inner,
          ]);
          return tf.reshape(tf.transpose(sums, [0, 2, 1, 3]), x.shape);
        },
      }),
    },
    {
      kernelName: "GatherNd",
      inputsToSave: ["params", "indices"],
      gradFunc: (dy, [params, indices]) => ({
        params: () => tf.scatterND(indices, dy as Tensor, params.shape),
        indices: () => tf.zeros(indices.shape),
      }),
    },
    {
      kernelName: "ScatterNd",
      inputsToSave: ["indices"],
      gradFunc: (dy, [indices]) => ({
        updates: () => tf.gatherND(dy as Tensor, indices),
        indices: () => tf.zeros(indices.shape),
      }),
    },
    {
      kernelName: "TopK",
      inputsToSave: ["x"],
      outputsToSave: [false, true],
      gradFunc: (dy, [x, indices]) => ({
        x: () => {
          const cols = x.shape[x.rank - 1];
          const picks = indices.shape[indices.rank - 1];
          const updates = tf.reshape((dy as Tensor[])[0], [x.size / cols, picks, 1]);
          return tf.reshape(scatterRows(indices, updates, cols), x.shape);
        },
      }),
    },
  ];
}

/** The gradients of reshapes, transposes, slices, pads, concatenations and tilings. */
export function rearrangements(tf: Tf): GradConfig[] {
  const reshapeBack = (kernelName: string, input: string): GradConfig => ({
    kernelName,
    inputsToSave: [input],
    gradFunc: (dy, [x]) => ({ [input]: () => tf.reshape(dy as Tensor, x.shape) }),
  });
  return [
    reshapeBack("Reshape", "x"),
    reshapeBack("ExpandDims", "input"),
    {
      kernelName: "Transpose",
      gradFunc: (dy, _, { perm }) => ({
        x: () => tf.transpose(dy as Tensor, inversePermutation(perm as number[])),
      }),
    },
    {
      kernelName: "Slice",
      inputsToSave: ["x"],
      gradFunc: (dy, [x], attributes) => ({
        x: () => {
          const begin = [attributes.begin as number | number[]].flat();
          const paddings = x.shape.map((n, i): [number, number] => {
            const before = begin[i] ?? 0;
            return [before, n - before - (dy as Tensor).shape[i]];
          });
          return tf.pad(dy as Tensor, paddings);
        },
      }),
    },
    {
      kernelName: "PadV2",
      inputsToSave: ["x"],
      gradFunc: (dy, [x], { paddings }) => ({
        x: () =>
          tf.slice(dy as Tensor, (paddings as number[][]).map(([before]) => before), x.shape),
      }),
    },
    {
      kernelName: "Reverse",
      gradFunc: (dy, _, { dims }) => ({ x: () => tf.reverse(dy as Tensor, dims as number[]) }),
    },
    {
      kernelName: "Concat",
      saveAllInputs: true,
      gradFunc: (dy, inputs, attributes) => {
        const axis = axesOf(attributes.axis, inputs[0].rank)[0];
        let end = 0;
        return Object.fromEntries(inputs.map((x, i) => {
          const begin = x.shape.map((_, d) => d === axis ? end : 0);
          end += x.shape[axis];
          return [i, () => tf.slice(dy as Tensor, begin, x.shape)];
        }));
      },
    },
    {
      kernelName: "SplitV",
      gradFunc: (dy, _, { axis }) => ({
        x: () => tf.concat([dy as Tensor | Tensor[]].flat(), axis as number),
      }),
    },
    {
      kernelName: "Pack",
      saveAllInputs: true,
      gradFunc: (dy, inputs, { axis }) => {
        const parts = tf.unstack(dy as Tensor, axis as number);
        return Object.fromEntries(inputs.map((_, i) => [i, () => tf.clone(parts[i])]));
      },
    },
    {
      kernelName: "Unpack",
      gradFunc: (dy, _, { axis }) => ({
        value: () => tf.stack([dy as Tensor | Tensor[]].flat(), axis as number),
      }),
    },
    {
      kernelName: "Tile",
      inputsToSave: ["x"],
      gradFunc: (dy, [x], { reps }) => ({
        x: () => {
          const pairs = x.shape.flatMap((n, i) => [(reps as number[])[i], n]);
          const sums = tf.sum(tf.reshape(dy as Tensor, pairs), x.shape.map((_, i) => 2 * i));
          return tf.reshape(sums, x.shape);
        },
      }),
    },
  ];
}

function inversePermutation(perm: readonly number[]): number[] {
  const inverse: number[] = [];
  perm.forEach((from, to) => inverse[from] = to);
  return inverse;
}

function size(shape: readonly number[]): number {
  return shape.reduce((product, n) => product * n, 1);
}
