import assert from "node:assert/strict";
import type { Tensor as TfTensor } from "@tensorflow/tfjs-core";
import { matrixType, type Op, requireShapes, type Tensor } from "../src/ops/op.ts";
import { TfjsBackend } from "../src/tfjs/backend.ts";
import { centralDifferences, tensor64, useFloat64, values64 } from "./float64_backend.ts";
import { type Input, largestDifference, valuesFor } from "./tfjs_values.ts";

const tf = useFloat64();

/** Weighs the elements of an output unevenly, so that every element's gradient matters. */
function weigh(output: TfTensor): TfTensor {
  const weights = Float32Array.from({ length: output.size }, (_, i) => Math.sin(3 * i + 1) + 1.2);
  return tf.sum(tf.mul(output, tf.tensor(weights, output.shape)));
}

type Case = [string, (...inputs: TfTensor[]) => TfTensor, Input[]];

const rows = (values: number[], shape: number[]) => tf.tensor(values, shape, "int32");
const positive = { shape: [3, 4], low: 0.7, high: 2 };
const [a, b, cube] = [[3, 4], [3, 4], [2, 3, 4]];

/** Every kernel with a gradient, alone where tfjs-core allows it. */
const cases: Case[] = [
  ["abs", tf.abs, [a]],
  ["add broadcast", tf.add, [cube, [3, 1]]],
  ["addN", (...x) => tf.addN(x), [a, b, a]],
  ["cast", (x) => tf.cast(x, "float32"), [a]],
  ["clip", (x) => tf.clipByValue(x, -0.7, 0.6), [a]],
  ["clone", tf.clone, [a]],
  ["concat", (...x) => tf.concat(x, -1), [a, [3, 2]]],
  ["cos", tf.cos, [a]],
  ["cumsum", (x) => tf.cumsum(x, 1, true), [cube]],
  ["div broadcast", tf.div, [cube, { shape: [4], low: 0.7, high: 2 }]],
  ["div by row", tf.div, [[4], { shape: [3, 1], low: 0.7, high: 2 }]],
  ["exp", tf.exp, [a]],
  ["expandDims", (x) => tf.expandDims(x, -1), [a]],
  ["expm1", tf.expm1, [a]],
  ["floor is flat", (x) => tf.mul(x, tf.floor(x)), [a]],
  ["gather", (x) => tf.gather(x, rows([2, 0, 2, 2, 1], [5])), [a]],
  ["gather axis 1", (x) => tf.gather(x, rows([2, 0, 2, 1, 1, 2], [2, 3]), 1), [cube]],
  ["gather batched", (x) => tf.gather(x, rows([1, 0, 1, 1, 0, 0, 0, 1], [4, 2]), 2, 1), [[
    4,
    3,
    2,
    2,
  ]]],
  ["gatherND", (x) => tf.gatherND(x, rows([1, 0, 1, 1, 1, 0], [3, 2])), [[2, 2, 3]]],
  ["log", tf.log, [positive]],
  ["log1p", tf.log1p, [positive]],
  ["logSoftmax", (x) => tf.logSoftmax(x), [cube]],
  ["logSumExp", (x) => tf.logSumExp(x, 1, true), [cube]],
  ["mask from values", (x) => tf.mul(x, tf.cast(tf.greater(x, 0.1), "float32")), [a]],
  ["matMul", (x, y) => tf.matMul(x, y), [a, [4, 2]]],
  ["matMul tn", (x, y) => tf.matMul(x, y, true), [a, [3, 2]]],
  ["matMul nt", (x, y) => tf.matMul(x, y, false, true), [a, [2, 4]]],
  ["matMul tt", (x, y) => tf.matMul(x, y, true, true), [a, [2, 3]]],
  ["matMul batched nt", (x, y) => tf.matMul(x, y, false, true), [cube, [2, 5, 4]]],
  ["matMul broadcast", (x, y) => tf.matMul(x, y), [[2, 2, 3, 4], [2, 4, 3]]],
  ["matMul one to many", (x, y) => tf.matMul(x, y, true), [[1, 4, 3], [2, 4, 2]]],
  ["max", (x) => tf.max(x, 1), [cube]],
  ["maximum broadcast", (x, y) => tf.maximum(x, y), [cube, [4]]],
  ["mean", (x) => tf.mean(x, [0, 2]), [cube]],
  ["mean kept", (x) => tf.mean(x, -1, true), [cube]],
  ["min", (x) => tf.min(x, [0, 1], true), [cube]],
  ["minimum", (x, y) => tf.minimum(x, y), [a, b]],
  ["mul broadcast", tf.mul, [[3, 1], [2, 1, 4]]],
  ["mul self", (x) => tf.mul(x, x), [a]],
  ["neg", tf.neg, [a]],
  ["pad", (x) => tf.pad(x, [[1, 0], [0, 2]], 0.5), [a]],
  ["pow", tf.pow, [positive, b]],
  ["pow by number", (x) => tf.pow(x, 3), [a]],
  ["reciprocal", tf.reciprocal, [positive]],
  ["relu", tf.relu, [a]],
  ["reshape", (x) => tf.reshape(x, [2, -1]), [a]],
  ["reverse", (x) => tf.reverse(x, [0, 2]), [cube]],
  ["rsqrt", tf.rsqrt, [positive]],
  ["scatterND", (x) => tf.scatterND(rows([1, 0, 0, 1, 1, 0, 1, 1], [4, 2]), x, [2, 2, 3]), [[
    4,
    3,
  ]]],
  ["sigmoid", tf.sigmoid, [a]],
  ["sin", tf.sin, [a]],
  ["slice", (x) => tf.slice(x, [0, 1, 1], [-1, 2, 2]), [cube]],
  ["softmax", (x) => tf.softmax(x), [cube]],
  ["softplus", tf.softplus, [a]],
  ["split", (x) => tf.sub(...tf.split(x, 2, -1) as [TfTensor, TfTensor]), [cube]],
  ["split, one part", (x) => tf.split(x, [1, 3], 1)[1], [a]],
  ["sqrt", tf.sqrt, [positive]],
  ["square", tf.square, [a]],
  ["squaredDifference", tf.squaredDifference, [cube, [3, 1]]],
  ["stack", (...x) => tf.stack(x, 1), [a, b]],
  ["sub broadcast", tf.sub, [[4], cube]],
  ["sum", (x) => tf.sum(x), [cube]],
  ["sum axis", (x) => tf.sum(x, [1], true), [cube]],
  ["tanh", tf.tanh, [a]],
  ["tile", (x) => tf.tile(x, [2, 1, 3]), [cube]],
  ["broadcastTo", (x) => tf.broadcastTo(x, [2, 3, 4]), [[3, 1]]],
  ["topk", (x) => tf.topk(x, 2).values, [cube]],
  ["transpose", (x) => tf.transpose(x, [2, 0, 1]), [cube]],
  ["unstack", (x) => tf.mul(tf.unstack(x, 1)[2], tf.unstack(x, 1)[0]), [cube]],
  ["where", (x, y) => tf.where(tf.greater(y, 0.1), x, y), [[1, 4], b]],
];

/** Gradients of a case on the current backend. */
function gradientsOf(f: Case[1], inputs: TfTensor[]): Float64Array[] {
  let gradients: Float64Array[] = [];
  tf.tidy(() => {
    gradients = tf.grads((...x) => weigh(f(...x)))(inputs).map(values64);
  });
  return gradients;
}

Deno.test("gradients agree with central differences in float64", () => {
  for (const [name, f, specs] of cases) {
    const inputs = valuesFor(specs).map(({ values, shape }) => tensor64(values, shape));
    const differences = centralDifferences((...x) => weigh(f(...x)), inputs);
    for (const [i, gradient] of gradientsOf(f, inputs).entries()) {
      const error = largestDifference(gradient, differences[i]);
      assert(error < 1e-8, `${name}, input ${i}: off by ${error} at ${values64(inputs[i])}`);
    }
  }
});

Deno.test("gradients on wasm agree with float64", async () => {
  const wasm = await TfjsBackend.open("wasm");
  for (const [name, f, specs] of cases) {
    const inputs = valuesFor(specs);
    useFloat64();
    const want = gradientsOf(f, inputs.map(({ values, shape }) => tensor64(values, shape)));
    wasm.activate();
    const got = gradientsOf(f, inputs.map(({ values, shape }) => tf.tensor(values, shape)));
    for (const [i, gradient] of got.entries()) {
      const error = largestDifference(gradient, want[i]);
      assert(error < 1e-4, `${name}, input ${i}: off by ${error} at ${inputs[i].values}`);
    }
  }
});

Deno.test("replaced wasm kernels agree with float64 and free their scratch", async () => {
  const wasm = await TfjsBackend.open("wasm");
  const shapes: [number[], number[], boolean, boolean][] = [
    [[33, 41], [41, 29], false, false],
    [[33, 41], [29, 41], false, true],
    [[41, 33], [41, 29], true, false],
    [[3, 33, 41], [3, 29, 41], false, true],
    [[2, 3, 41, 33], [2, 3, 29, 41], true, true],
    [[3, 33, 41], [1, 41, 29], false, false],
    [[2, 3], [3, 2], true, true],
  ];
  for (const [shapeA, shapeB, transposeA, transposeB] of shapes) {
    const [a, b] = valuesFor([shapeA, shapeB]);
    useFloat64();
    const want = values64(
      tf.matMul(tensor64(a.values, shapeA), tensor64(b.values, shapeB), transposeA, transposeB),
    );
    wasm.activate();
    const [x, y] = [tf.tensor(a.values, shapeA), tf.tensor(b.values, shapeB)];
    const held = tf.backend().numDataIds();
    const product = tf.matMul(x, y, transposeA, transposeB);
    assert(largestDifference(product.dataSync(), want) < 1e-4, `${shapeA} by ${shapeB}`);
    product.dispose();
    assert.equal(tf.backend().numDataIds(), held);
  }
  const flags = tf.broadcastTo(tf.tensor2d([[1], [0]], [2, 1], "bool"), [2, 2]);
  assert.equal(flags.dtype, "bool");
  assert.deepEqual([...flags.dataSync()], [1, 1, 0, 0]);
  assert.deepEqual([...tf.tile(tf.tensor1d([1, 2]), [2]).dataSync()], [1, 2, 1, 2]);
  const hot = tf.oneHot(tf.tensor1d([1, -1, 2, 0], "int32"), 2);
  assert.deepEqual([...hot.dataSync()], [0, 1, 0, 0, 0, 0, 1, 0]);
});

Deno.test("softmax cross-entropy is exact in float64", () => {
  const [logits, weight] = valuesFor([[5, 7], [7, 7]]).map(({ values, shape }) =>
    tensor64(values, shape)
  );
  const targets = tf.tensor1d([3, 0, 6, 6, 1], "int32");
  const loss = (x: TfTensor, w: TfTensor) => {
    const picked = tf.mul(tf.logSoftmax(tf.matMul(x, w)), tf.oneHot(targets, 7));
    return tf.neg(tf.div(tf.sum(picked), 5));
  };
  const gradients = tf.grads(loss)([logits, weight]).map(values64);
  centralDifferences(loss, [logits, weight]).forEach((differences, i) => {
    const error = largestDifference(gradients[i], differences);
    assert(error < 1e-9, `input ${i}: off by ${error}`);
  });
});

Deno.test("float64 tensors keep their digits", () => {
  const third = tensor64([1 / 3, 2 / 3], [1, 2]);
  assert.deepEqual([...values64(tf.neg(third))], [-1 / 3, -2 / 3]);
  assert.deepEqual([...values64(tf.matMul(third, third, false, true))], [5 / 9]);
  assert.throws(() => tensor64([1], [2]), RangeError);
});

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

function apply(op: Op<Record<never, never>>, ...inputs: Tensor[]): Tensor {
  return inputs[0].backend.apply(op, inputs, {})[0];
}

Deno.test("backend checks shapes and owners before it runs a twin", async () => {
  const wasm = await TfjsBackend.open("wasm");
  const float64 = await TfjsBackend.open("float64");
  const x = wasm.tensor([1, 2, 3, 4], 2, 2);
  assert.deepEqual([...wasm.read(apply(linear, x, x))], [5, 11, 11, 25]);
  assert.throws(() => apply(linear, x, wasm.tensor([1, 2, 3], 1, 3)), {
    name: "RangeError",
    message: "Cannot apply linear to 2x2, 1x3: expected equal columns",
  });
  assert.throws(() => apply(linear, x, float64.tensor([1, 2], 1, 2)), /another backend/);
  assert.throws(() => wasm.tensor([1, 2, 3], 2, 2), RangeError);
  const liar = { ...linear, types: () => [matrixType(2, 3)] };
  assert.throws(() => apply(liar, x, x), /Twin of linear: output 0 is \[2,2\], not 2x3/);
});
