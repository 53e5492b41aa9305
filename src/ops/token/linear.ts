import type { GradientSink } from "../op.ts";
import { columnsOf } from "../matrix.ts";
import { recordMatmul } from "../products.ts";
import { byRowsWithSink, furtherSink } from "../sink.ts";
import {
  type Matrix,
  matrixType,
  type Op,
  requireShapes,
  type Tensor,
  type TfMatrix,
} from "../op.ts";

/** Attributes of {@linkcode linear}'s op: how its inputs are to be read. */
export interface LinearAttributes {
  /** Whether the last input is a residual. */
  readonly residual: boolean;
}

/**
 * y = x · Wᵀ, plus a residual. With several weights, W is all of them below each other, and y has
 * their results side by side; weights that are neighbours in memory cost one product.
 *
 * @param x `[rows, in]`
 * @param weights `[out, in]` each, the layout of PyTorch's `nn.Linear` and of Hugging Face
 * @param residual `[rows, Σ out]`, added to the result
 * @returns `[rows, Σ out]`
 * @throws {RangeError} if the shapes do not fit together
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { linear } from "./linear.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const x = backend.tensor([1, 2], 1, 2);
 * const q = backend.tensor([1, 0, 0, 1], 2, 2), k = backend.tensor([1, 1], 1, 2);
 * const y = linear(x, [q, k]);
 * assert.deepEqual([...backend.read(y)], [1, 2, 3]);
 * assert.deepEqual([...backend.read(linear(x, [q, k], y))], [2, 4, 6]);
 * ```
 */
export function linear(
  x: Tensor,
  weights: Tensor | readonly Tensor[],
  residual?: Tensor,
): Tensor {
  const all = "rows" in weights ? [weights] : weights;
  const inputs = residual ? [x, ...all, residual] : [x, ...all];
  return x.backend.apply(linearOp, inputs, { residual: residual !== undefined })[0];
}

/** The op behind {@linkcode linear}: inputs x, the weights, and the residual if there is one. */
export const linearOp: Op<LinearAttributes> = {
  name: "linear",

  types(inputs, attributes) {
    const { x, weights, residual } = split(inputs, attributes);
    const cols = weights.reduce((sum, w) => sum + w.rows, 0);
    requireShapes(
      weights.length > 0 && inputs.every((t) => t.dtype === "f32") &&
        weights.every((w) => w.cols === x.cols) &&
        (!residual || (residual.rows === x.rows && residual.cols === cols)),
      "linear",
      inputs,
      "f32 x [rows, in], weights [out, in]" + (residual ? ", residual [rows, sum of out]" : ""),
    );
    return [matrixType(x.rows, cols)];
  },

  twin(tf, inputs, attributes) {
    const { x, weights, residual } = split(inputs, attributes);
    const weight = weights.length > 1 ? tf.concat([...weights], 0) : weights[0];
    const y = tf.matMul<TfMatrix>(x, weight, false, true);
    return [residual ? tf.add<TfMatrix>(y, residual) : y];
  },

  forward(r, inputs, [y], attributes) {
    const { x, weights, residual } = split(inputs, attributes);
    for (const run of runsOf(weights.map((into) => ({ into, add: null })))) {
      let start = run.start;
      r.byRows([run.into], (weight) => {
        const out = columnsOf(y, start, weight.rows);
        const add = residual && columnsOf(residual, start, weight.rows);
        byRowsWithSink(
          r,
          [x],
          { into: out, add },
          ([a], c) => recordMatmul(r, { form: "nt", a, b: weight, c }),
        );
        start += weight.rows;
      });
    }
  },

  backward(r, g, inputs, _, attributes) {
    const { x, weights, residual } = split(inputs, attributes);
    const dy = g.gradient(0);
    if (residual) g.pass(inputs.length - 1, dy);
    if (g.wants(0)) {
      let target = g.sink(0);
      for (const run of runsOf(weights.map((into) => ({ into, add: null })))) {
        let start = run.start;
        r.byRows([run.into], (weight) => {
          const part = columnsOf(dy, start, weight.rows);
          byRowsWithSink(
            r,
            [part],
            target,
            ([a], c) => recordMatmul(r, { form: "nn", a, b: weight, c }),
          );
          start += weight.rows;
          target = furtherSink(target);
        });
      }
    }
    const sinks = weights.map((_, i) => g.wants(i + 1) ? g.sink(i + 1) : weights[i].rows);
    for (const run of runsOf(sinks)) {
      let start = run.start;
      byRowsWithSink(r, [], run, (_, target) => {
        const part = columnsOf(dy, start, target.into.rows);
        let c = target;
        r.byRows([part, x], (a, b) => {
          recordMatmul(r, { form: "tn", a, b, c });
          c = furtherSink(c);
        });
        start += target.into.rows;
      });
    }
  },
};

function split<T>(
  inputs: readonly T[],
  { residual }: LinearAttributes,
): { x: T; weights: readonly T[]; residual: T | null } {
  const end = residual ? inputs.length - 1 : inputs.length;
  return { x: inputs[0], weights: inputs.slice(1, end), residual: residual ? inputs[end] : null };
}

/**
 * Joins targets that lie below each other in memory. A number stands for that many rows to be left
 * out. `start` is the first row of a run among all rows.
 */
function runsOf(targets: readonly (GradientSink | number)[]): (GradientSink & { start: number })[] {
  const runs: (GradientSink & { start: number })[] = [];
  let row = 0;
  for (const target of targets) {
    if (typeof target === "number") {
      row += target;
      continue;
    }
    const last = runs.at(-1);
    const joined = last && last.start + last.into.rows === row ? join(last, target) : null;
    if (joined) runs[runs.length - 1] = { ...joined, start: last!.start };
    else runs.push({ ...target, start: row });
    row += target.into.rows;
  }
  return runs;
}

/** Two targets as one, or null if they are not neighbours or add in different ways. */
function join(a: GradientSink, b: GradientSink): GradientSink | null {
  const into = below(a.into, b.into);
  if (!into) return null;
  if (a.add === null && b.add === null) return { into, add: null };
  if (a.add === a.into && b.add === b.into) return { into, add: into };
  if (!a.add || !b.add || a.add === a.into || b.add === b.into) return null;
  const add = below(a.add, b.add);
  return add && { into, add };
}

/** `a` with `b` below it, or null if `b` does not begin where `a` ends. */
function below(a: Matrix, b: Matrix): Matrix | null {
  const end = a.base + a.offset + a.rows * a.stride;
  const fits = a.storage === b.storage && a.stride === b.stride && a.cols === b.cols &&
    end === b.base + b.offset;
  return fits ? { ...a, rows: a.rows + b.rows } : null;
}
