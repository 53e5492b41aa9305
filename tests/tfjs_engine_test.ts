import assert from "node:assert/strict";
import type { Tensor as TfTensor } from "@tensorflow/tfjs-core";
import type {
  EngineOptions,
  GroupHyper,
  LossFunction,
  ParameterSpec,
  StepHyper,
} from "../src/engine.ts";
import { matrixType, type Op, requireShapes, type Tensor } from "../src/ops/op.ts";
import { TfjsBackend, type TfjsKind } from "../src/tfjs/backend.ts";
import { TfjsEngine } from "../src/tfjs/engine.ts";
import { centralDifferences, tensor64, useFloat64, values64 } from "./float64_backend.ts";
import { largestDifference, valuesFor } from "./tfjs_values.ts";

const tf = useFloat64();

/** A weight layer: x [N, in] times w [out, in], transposed. */
const linear: Op<Record<never, never>> = {
  name: "linear",
  types(inputs) {
    const [x, w] = inputs;
    requireShapes(x.cols === w.cols, this.name, inputs, "equal columns");
    return [matrixType(x.rows, w.rows)];
  },
  twin: (tf, [x, w]) => [tf.matMul(x, w, false, true)],
};

/** Rows of a table. */
const lookUp: Op<Record<never, never>> = {
  name: "look_up",
  types: ([ids, table]) => [matrixType(ids.rows, table.cols)],
  twin: (tf, [ids, table]) => [
    tf.reshape(tf.gather(table, tf.reshape(ids, [-1])), [ids.shape[0], table.shape[1]]),
  ],
};

/** Summed cross-entropy times `inverseCount`; targets of -1 count nothing. */
const crossEntropy: Op<Record<never, never>> = {
  name: "cross_entropy",
  types: () => [matrixType(1, 1)],
  twin: (tf, [logits, targets, inverseCount]) => {
    const vocab = logits.shape[1];
    const hits = tf.reshape(tf.oneHot(tf.reshape(targets, [-1]), vocab, 1, 0, "float32"), [
      -1,
      vocab,
    ]);
    const sum = tf.reshape(tf.neg(tf.sum(tf.mul(tf.logSoftmax(logits), hits))), [1, 1]);
    return [tf.mul(sum, inverseCount)];
  },
};

function apply(op: Op<Record<never, never>>, ...inputs: Tensor[]): Tensor {
  return inputs[0].backend.apply(op, inputs, {})[0];
}

const parameters: ParameterSpec[] = [
  { name: "table", shape: [5, 3], rows: 5, cols: 3, group: "body", decay: true },
  { name: "head", shape: [5, 3], rows: 5, cols: 3, group: "head", decay: false },
  { name: "unused", shape: [2], rows: 1, cols: 2, group: "head", decay: false },
];

const lossFunction: LossFunction = (parameter, { tokens, targets, inverseCount }) => {
  const logits = apply(linear, apply(lookUp, tokens, parameter("table")), parameter("head"));
  const loss = apply(crossEntropy, logits, targets, inverseCount);
  return { losses: [{ tensor: loss, weight: 2 }], metrics: { loss }, logits };
};

function engineOptions(trained?: string[]): EngineOptions {
  const initial = new Map(parameters.map(({ name, rows, cols }) => {
    return [name, valuesFor([[rows, cols]])[0].values];
  }));
  return { parameters, initial, loss: lossFunction, batchSize: 2, seqLen: 4, trained };
}

function batchOf(tokens: number[], targets: number[]) {
  const count = targets.filter((target) => target >= 0).length;
  return { tokens: Int32Array.from(tokens), targets: Int32Array.from(targets), count };
}

const batches = [
  batchOf([0, 1, 2, 3, 4, 4, 0, 1], [1, 2, 3, 4, -1, 0, 1, 2]),
  batchOf([3, 3, 1, 0, 2, 1, 4, 0], [0, -1, -1, 2, 2, 3, 1, -1]),
];

function hyperOf(
  update: number,
  groups: Record<string, Omit<GroupHyper, "update">>,
): StepHyper {
  const counted = Object.entries(groups).map(([name, group]) => [name, { ...group, update }]);
  return { beta1: 0.9, beta2: 0.95, eps: 1e-8, groups: Object.fromEntries(counted) };
}

const bothGroups = {
  body: { lr: 0.02, weightDecay: 0.1, clip: 0.05 },
  head: { lr: 0.01, weightDecay: 0.1, clip: 0 },
};

for (const kind of ["wasm", "float64"] as TfjsKind[]) {
  Deno.test(`engine on ${kind} takes the steps that AdamW's formulas give`, async () => {
    const options = engineOptions();
    using engine = new TfjsEngine(await TfjsBackend.open(kind), options);
    const expected = parameters.map(({ name }) => {
      const p = Float64Array.from(options.initial.get(name)!);
      return { name, p, m: new Float64Array(p.length), v: new Float64Array(p.length) };
    });
    const tolerance = kind === "wasm" ? 2e-5 : 1e-6;
    for (let update = 1; update <= 3; update++) {
      // The gradient of the whole step by central differences of the loss, times its weight.
      const tensors = expected.map(({ p }, i) =>
        tensor64(p, [parameters[i].rows, parameters[i].cols])
      );
      const loss = (...values: TfTensor[]) => stepLoss(values);
      const before = values64(stepLoss(tensors))[0];
      const gradients = centralDifferences(loss, tensors).map((g) => g.map((x) => 2 * x));
      const norms = { body: normOf([gradients[0]]), head: normOf([gradients[1], gradients[2]]) };

      engine.step(batches, hyperOf(update, bothGroups));

      const [metrics, ...more] = await engine.metrics();
      assert.equal(more.length, 0);
      const wanted = { loss: before, "grad/norm/body": norms.body, "grad/norm/head": norms.head };
      assert.deepEqual(Object.keys(metrics), Object.keys(wanted));
      for (const [name, value] of Object.entries(wanted)) {
        assert(
          Math.abs(metrics[name] / value - 1) < tolerance,
          `${name}: ${metrics[name]}, ${value}`,
        );
      }
      assert(norms.body > bothGroups.body.clip, "Clipping is not exercised");
      const state = await engine.exportState();
      for (const [i, { name, p, m, v }] of expected.entries()) {
        const { lr, weightDecay } = i === 0 ? bothGroups.body : bothGroups.head;
        const scale = i === 0 ? bothGroups.body.clip / (norms.body + 1e-6) : 1;
        for (let j = 0; j < p.length; j++) {
          const g = gradients[i][j] * scale;
          m[j] = 0.9 * m[j] + 0.1 * g;
          v[j] = 0.95 * v[j] + 0.05 * g * g;
          const direction = m[j] / (1 - 0.9 ** update) /
            (Math.sqrt(v[j] / (1 - 0.95 ** update)) + 1e-8);
          p[j] -= lr * (direction + (parameters[i].decay ? weightDecay * p[j] : 0));
        }
        assert(largestDifference(state.parameters.get(name)!, p) < tolerance, `${name}, ${update}`);
        assert(largestDifference(state.m.get(name)!, m) < tolerance, `m of ${name}, ${update}`);
        assert(largestDifference(state.v.get(name)!, v) < tolerance, `v of ${name}, ${update}`);
      }
    }
  });
}

/** The loss of both batches as one step, in float64. */
function stepLoss([table, head]: TfTensor[]): TfTensor {
  const count = batches.reduce((sum, batch) => sum + batch.count, 0);
  const terms = batches.map(({ tokens, targets }) => {
    const rows = tf.gather(table, tf.tensor1d(tokens, "int32"));
    const logProbabilities = tf.logSoftmax(tf.matMul(rows, head, false, true));
    return tf.sum(tf.mul(logProbabilities, tf.oneHot(tf.tensor1d(targets, "int32"), 5)));
  });
  return tf.div(tf.neg(tf.addN(terms)), count);
}

function normOf(arrays: Float64Array[]): number {
  return Math.hypot(...arrays.flatMap((array) => [...array]));
}

Deno.test("engine leaves frozen groups as they are", async () => {
  const options = engineOptions(["body"]);
  using engine = new TfjsEngine(await TfjsBackend.open("wasm"), options);
  engine.step(batches, hyperOf(1, bothGroups));
  engine.step(batches, hyperOf(2, { head: bothGroups.head }));
  const state = await engine.exportState();
  assert.deepEqual(state.parameters.get("head"), options.initial.get("head"));
  assert(state.m.get("head")!.every((value) => value === 0));
  assert(state.v.get("head")!.every((value) => value === 0));
  const rows = await engine.metrics();
  assert.deepEqual(rows.map((row) => Object.keys(row)), [
    ["loss", "grad/norm/body"],
    ["loss", "grad/norm/body"],
  ]);
  // The second step named no hyperparameters for "body": it only measured.
  engine.step(batches, hyperOf(2, {}));
  assert.deepEqual((await engine.exportState()).parameters, state.parameters);
  assert.equal((await engine.metrics())[0].loss, rows[1].loss);
});

Deno.test("engine resumes bitwise and leaks no tensors", async () => {
  const backend = await TfjsBackend.open("wasm");
  const before = tf.memory().numTensors;
  {
    using first = new TfjsEngine(backend, engineOptions());
    using second = new TfjsEngine(backend, engineOptions());
    first.step(batches, hyperOf(1, bothGroups));
    second.importState(await first.exportState());
    const held = tf.memory().numTensors;
    for (let update = 2; update <= 4; update++) {
      first.step(batches, hyperOf(update, bothGroups));
      second.step(batches, hyperOf(update, bothGroups));
      await first.evaluate(batches[0]);
      await first.logits(batches[0].tokens);
      await first.gradients(batches[0]);
      assert.equal(tf.memory().numTensors, held);
    }
    assert.deepEqual(await second.exportState(), await first.exportState());
    assert.deepEqual(await second.metrics(), (await first.metrics()).slice(1));
  }
  assert.equal(tf.memory().numTensors, before);
});

Deno.test("engine evaluates, gives logits and gradients, and names bad input", async () => {
  const options = engineOptions();
  using engine = new TfjsEngine(await TfjsBackend.open("wasm"), options);
  const [batch] = batches;
  const gradients = await engine.gradients(batch);
  const evaluated = await engine.evaluate(batch);
  engine.step([batch], hyperOf(1, bothGroups));
  const [stepped] = await engine.metrics();
  assert.equal(evaluated.loss, stepped.loss);
  assert.deepEqual([...gradients.keys()], ["table", "head", "unused"]);
  assert.deepEqual([...gradients.get("unused")!], [0, 0]);
  assert(
    Math.abs(normOf([Float64Array.from(gradients.get("table")!)]) / stepped["grad/norm/body"] - 1) <
      1e-6,
  );

  const all = await engine.logits(batch.tokens);
  assert.equal(all.length, 8 * 5);
  assert.deepEqual(await engine.logits(batch.tokens, 6), all.subarray(30, 35).slice());
  assert.deepEqual(await engine.logits(batch.tokens.slice(4)), all.slice(20));
  await assert.rejects(async () => await engine.logits(batch.tokens.slice(3)), /sequences of 4/);
  const incomplete = { ...options, initial: new Map([...options.initial].slice(1)) };
  const backend = await TfjsBackend.open("wasm");
  assert.throws(
    () => new TfjsEngine(backend, incomplete),
    /parameter table: expected 15 values, got none/,
  );
});
