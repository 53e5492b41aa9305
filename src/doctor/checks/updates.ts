/** Kernels of the update, which are no ops of a model: each as an op of its own. */
import { ADAMW_HYPER, adamwKernel } from "../../kernels/step/adamw.ts";
import { addInto } from "../../kernels/token/add.ts";
import { fill } from "../../kernels/token/fill.ts";
import { recordMetrics } from "../../kernels/step/record_metrics.ts";
import {
  normOfPartials,
  sumOfSquares,
  sumOfSquaresBlocks,
} from "../../kernels/step/sum_of_squares.ts";
import { type Matrix, matrixType, type Op, type Recorder, type TfMatrix } from "../../ops/op.ts";
import type { OpCase } from "../cases/check_case.ts";
import type { Random } from "../cases/random.ts";

/** Kernels work in place: the outputs begin as the inputs. */
function copy(r: Recorder, from: readonly Matrix[], to: readonly Matrix[]): void {
  from.forEach((a, i) => r.dispatch(addInto({ a, into: to[i], add: null })));
}

/** AdamW: p, g, m, v, the norm and the hyperparameters give p, m and v. */
const adamwOp: Op<null> = {
  name: "adamw",
  types: ([p]) => [p, p, p],
  twin(tf, [p, g, m, v, norm, hyper]) {
    const [lr, decay, clip, beta1, beta2, eps, correction1, correction2] = ADAMW_HYPER
      .map((_, i) => tf.slice(hyper, [0, i], [1, 1]) as TfMatrix);
    const gradient = tf.mul(g, tf.minimum(tf.div(clip, tf.add(norm, 1e-6)), 1));
    const blend = (old: TfMatrix, beta: TfMatrix, x: typeof gradient) =>
      tf.add(tf.mul(old, beta), tf.mul(tf.sub(1, beta), x)) as TfMatrix;
    const [mean, square] = [blend(m, beta1, gradient), blend(v, beta2, tf.square(gradient))];
    const root = tf.add(tf.sqrt(tf.mul(square, correction2)), eps);
    const step = tf.add(tf.div(tf.mul(mean, correction1), root), tf.mul(p, decay));
    return [tf.sub(p, tf.mul(lr, step)), mean, square];
  },
  forward(r, [p, g, m, v, norm, hyper], outputs) {
    copy(r, [p, m, v], outputs);
    const [values, first, second] = outputs;
    const kernel = adamwKernel({ p: values, g, m: first, v: second, norm, hyper });
    r.dispatch(kernel);
  },
};

/** The global norm, for clipping. */
const normOp: Op<null> = {
  name: "globalNorm",
  types: () => [matrixType(1, 1)],
  twin: (tf, [x]) => [tf.reshape(tf.sqrt(tf.sum(tf.square(x))), [1, 1])],
  forward(r, [x], [norm]) {
    const partials = r.temporary(1, sumOfSquaresBlocks(x.cols));
    r.dispatch(sumOfSquares({ x, partials }));
    r.dispatch(normOfPartials({ partials, norm }));
  },
};

/** A row added to one of a ring of zeros. */
const metricsOp: Op<{ slots: number }> = {
  name: "recordMetrics",
  types: ([row], { slots }) => [matrixType(slots, row.cols)],
  twin(tf, [row, slot], { slots }) {
    const hit = tf.oneHot(tf.reshape(slot, [1]), slots, 1, 0, "float32");
    return [tf.mul(tf.matMul(hit as TfMatrix, row, true), 2)];
  },
  forward(r, [row, slot], [ring]) {
    r.dispatch(fill({ x: ring, value: 0 }));
    for (const add of [false, true]) {
      r.dispatch(recordMetrics({ row, slot, ring, add }));
    }
  },
};

export function updateCases(random: Random): OpCase[] {
  const count = 5000;
  const flat = (cols: number, values?: ArrayLike<number>) => ({
    ...{ rows: 1, cols, values, gradient: false },
  });
  const hyper = [0.01, 0.1, 0.5, 0.9, 0.95, 1e-8, 1 / (1 - 0.9 ** 3), 1 / (1 - 0.95 ** 3)];
  const state = [flat(count), flat(count), flat(count)];
  const squares = flat(count, random.normal(count).map((x) => x * x));
  return [
    {
      ...{ name: "adamw, clipped", shape: `${count}` },
      inputs: [...state, squares, flat(1, [70]), flat(hyper.length, hyper)],
      apply: (inputs) => inputs[0].backend.apply(adamwOp, inputs, null),
    },
    {
      ...{ name: "sumOfSquares, normOfPartials", shape: "70004", inputs: [flat(70_004)] },
      apply: (inputs) => inputs[0].backend.apply(normOp, inputs, null),
    },
    {
      ...{ name: "fill, recordMetrics", shape: "4x7" },
      inputs: [flat(7), { rows: 1, cols: 1, dtype: "i32", values: [2] }],
      apply: (inputs) => inputs[0].backend.apply(metricsOp, inputs, { slots: 4 }),
    },
  ];
}
