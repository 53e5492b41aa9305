import { matmul } from "../../kernels/product/matmul.ts";
import {
  type GradientRecorder,
  type Matrix,
  matrixType,
  type Op,
  type Recorder,
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
    for (const run of runsOf(weights.map((into) => ({ into, add: "none" })))) {
      let start = run.start;
      r.byRows([run.into], (weight) => {
        const out = columnsOf(y, start, weight.rows);
        const add = residual ? columnsOf(residual, start, weight.rows) : "none";
        byRows(r, [x], { into: out, add }, ([x], target) => multiply(r, "nt", x, weight, target));
        start += weight.rows;
      });
    }
  },

  backward(r, inputs, _, attributes) {
    const { x, weights, residual } = split(inputs, attributes);
    const dy = r.gradient(0);
    if (residual) r.pass(inputs.length - 1, dy);
    if (r.wants(0)) {
      let target = sinkOf(r, 0);
      for (const run of runsOf(weights.map((into) => ({ into, add: "none" })))) {
        let start = run.start;
        r.byRows([run.into], (weight) => {
          const part = columnsOf(dy, start, weight.rows);
          byRows(r, [part], target, ([part], target) => multiply(r, "nn", part, weight, target));
          start += weight.rows;
          target = { into: target.into, add: "inPlace" };
        });
      }
    }
    const sinks = weights.map((_, i) => r.wants(i + 1) ? sinkOf(r, i + 1) : weights[i].rows);
    for (const run of runsOf(sinks)) {
      let start = run.start;
      byRows(r, [], run, (_, target) => {
        const part = columnsOf(dy, start, target.into.rows);
        let { add } = target;
        r.byRows([part, x], (part, x) => {
          multiply(r, "tn", part, x, { into: target.into, add });
          add = "inPlace";
        });
        start += target.into.rows;
      });
    }
  },
};

/** A matrix to write, and what to add to it: nothing, what it holds, or another matrix. */
interface Target {
  readonly into: Matrix;
  readonly add: "none" | "inPlace" | Matrix;
}

function split<T>(
  inputs: readonly T[],
  { residual }: LinearAttributes,
): { x: T; weights: readonly T[]; residual: T | null } {
  const end = residual ? inputs.length - 1 : inputs.length;
  return { x: inputs[0], weights: inputs.slice(1, end), residual: residual ? inputs[end] : null };
}

function sinkOf(r: GradientRecorder, input: number): Target {
  const { into, add } = r.sink(input);
  return { into, add: add === null ? "none" : add === into ? "inPlace" : add };
}

/**
 * Joins targets that lie below each other in memory. A number stands for that many rows to be left
 * out. `start` is the first row of a run among all rows.
 */
function runsOf(targets: readonly (Target | number)[]): (Target & { start: number })[] {
  const runs: (Target & { start: number })[] = [];
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
function join(a: Target, b: Target): Target | null {
  const into = below(a.into, b.into);
  if (!into) return null;
  if (typeof a.add === "string" || typeof b.add === "string") {
    return a.add === b.add ? { into, add: a.add } : null;
  }
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

function columnsOf(m: Matrix, start: number, cols: number): Matrix {
  return { ...m, offset: m.offset + start, cols };
}

/** {@linkcode Recorder.byRows} for matrices and a target of as many rows. */
function byRows(
  r: Recorder,
  matrices: readonly Matrix[],
  { into, add }: Target,
  body: (parts: Matrix[], target: Target) => void,
): void {
  if (typeof add === "string") {
    r.byRows([into, ...matrices], (into, ...parts) => body(parts, { into, add }));
  } else {
    r.byRows([into, add, ...matrices], (into, add, ...parts) => body(parts, { into, add }));
  }
}

/** Records the product of a and b. */
function multiply(
  r: Recorder,
  form: "nt" | "nn" | "tn",
  a: Matrix,
  b: Matrix,
  { into: c, add }: Target,
): void {
  const plan = matmul({ form, a, b, c, add, capabilities: r.capabilities });
  const d = typeof add === "string" ? c : add;
  const partial = plan.partialElements > 0 ? r.temporary(plan.partialElements / c.cols, c.cols) : c;
  const operands = { a, b, c, d, partial };
  for (const step of plan.steps) {
    r.dispatch(step.kernel, ...step.operands.map((name) => operands[name]));
  }
}
