/** Gradients of the naive twins against central differences, in float64. */
import type { Tensor } from "../../src/ops/op.ts";
import { add } from "../../src/ops/token/add.ts";
import { attention } from "../../src/ops/attention/attention.ts";
import { columns } from "../../src/ops/token/columns.ts";
import { crossEntropy } from "../../src/ops/token/cross_entropy.ts";
import { embedding } from "../../src/ops/token/embedding.ts";
import { gelu } from "../../src/ops/token/gelu.ts";
import { layerNorm } from "../../src/ops/token/layer_norm.ts";
import { linear } from "../../src/ops/token/linear.ts";
import { mlaAttention } from "../../src/ops/attention/mla_attention.ts";
import { causalMosaAttention } from "../../src/ops/attention/causal_mosa_attention.ts";
import { mosaAttention } from "../../src/ops/attention/mosa_attention.ts";
import { rmsNorm } from "../../src/ops/token/rms_norm.ts";
import { rope } from "../../src/ops/token/rope.ts";
import { sparseMlaAttention } from "../../src/ops/attention/sparse_mla_attention.ts";
import { swiglu } from "../../src/ops/token/swiglu.ts";
import { TfjsBackend, type TfjsTensor } from "../../src/tfjs/backend.ts";
import { assertClose, randomNormal } from "../check_op.ts";
import { centralDifferences, tensor64, values64 } from "../float64_backend.ts";

interface TwinCase {
  name: string;
  /** Shapes of the inputs that are differentiated. */
  shapes: [rows: number, cols: number][];
  /** `ids` makes an i32 matrix, a column by default. */
  apply: (inputs: Tensor[], ids: (values: number[], cols?: number) => Tensor) => Tensor;
}

const spec = { seqLen: 3, heads: 2, headDim: 7, start: 1, dims: 4, theta: 50 };

const mla = { batch: 1, seqLen: 4, heads: 2, qkNopeHeadDim: 3, qkRopeHeadDim: 2, vHeadDim: 2 };
const mlaShapes: [number, number][] = [[4, 10], [4, 10], [4, 2]];

const CASES: TwinCase[] = [
  {
    name: "linear",
    shapes: [[3, 4], [2, 4], [3, 4], [3, 5]],
    apply: ([x, a, b, residual]) => linear(x, [a, b], residual),
  },
  {
    name: "attention",
    shapes: [[8, 12], [8, 6], [8, 6]],
    apply: ([q, k, v]) => attention(q, k, v, { batch: 2, seqLen: 4, heads: 4, kvHeads: 2 }).o,
  },
  {
    name: "attention with a window",
    shapes: [[5, 6], [5, 6], [5, 6]],
    apply: ([q, k, v]) =>
      attention(q, k, v, { batch: 1, seqLen: 5, heads: 2, kvHeads: 2, window: 2 }).o,
  },
  {
    name: "mlaAttention",
    shapes: mlaShapes,
    apply: ([q, kv, kPe]) => mlaAttention(q, kv, kPe, mla).o,
  },
  {
    name: "sparseMlaAttention",
    shapes: mlaShapes,
    apply: ([q, kv, kPe], ids) => {
      const indices = ids([0, -1, 0, 1, 1, 2, 0, 3], 2);
      const mask = ids([1, 3, 6, 9]);
      return sparseMlaAttention(q, kv, kPe, indices, mask, { ...mla, topk: 2 }).o;
    },
  },
  {
    name: "mosaAttention",
    shapes: [[5, 6], [5, 6], [5, 4], [5, 2]],
    apply: ([q, k, v, router]) =>
      mosaAttention(q, k, v, router, {
        ...{ batch: 1, seqLen: 5, heads: 2, headDim: 3, vHeadDim: 2 },
        topk: 3,
      }),
  },
  {
    name: "causalMosaAttention",
    shapes: [[5, 6], [5, 6], [5, 4], [5, 2]],
    apply: ([q, k, v, router]) =>
      causalMosaAttention(q, k, v, router, {
        ...{ batch: 1, seqLen: 5, heads: 2, headDim: 3, vHeadDim: 2 },
        topk: 2,
      }),
  },
  { name: "add", shapes: [[3, 4], [3, 4]], apply: ([a, b]) => add(a, b) },
  { name: "columns", shapes: [[3, 6]], apply: ([x]) => columns(x, 2, 3) },
  { name: "gelu", shapes: [[3, 5]], apply: ([x]) => gelu(x) },
  { name: "swiglu", shapes: [[3, 10]], apply: ([x]) => swiglu(x) },
  { name: "rmsNorm", shapes: [[3, 5], [1, 5]], apply: ([x, w]) => rmsNorm(x, w, 0.1) },
  {
    name: "layerNorm",
    shapes: [[3, 5], [1, 5], [1, 5]],
    apply: ([x, w, b]) => layerNorm(x, w, b, 0.1),
  },
  {
    name: "rope interleaved",
    shapes: [[6, 14]],
    apply: ([x]) => rope(x, { ...spec, layout: "interleaved" }),
  },
  {
    name: "rope halfSplit",
    shapes: [[6, 14]],
    apply: ([x]) => rope(x, { ...spec, layout: "halfSplit" }),
  },
  {
    name: "embedding",
    shapes: [[4, 3]],
    apply: ([table], ids) => embedding(ids([2, 0, 2, 3, 2]), table),
  },
  {
    name: "crossEntropy",
    shapes: [[4, 5], [1, 1]],
    apply: ([x, inverseCount], ids) => crossEntropy(x, ids([1, -1, 4, 0]), inverseCount).loss,
  },
];

for (const { name, shapes, apply } of CASES) {
  Deno.test(`twin of ${name}`, async () => {
    const backend = await TfjsBackend.open("float64");
    const { tf } = backend;
    backend.activate();
    const ids = (values: number[], cols = 1) =>
      backend.wrap(tf.tensor2d(values, [values.length / cols, cols], "int32"), "i32");
    const run = (tensors: unknown[]) =>
      (apply(tensors.map((t) => backend.wrap(t as never, "f32")), ids) as TfjsTensor).value;
    const inputs = shapes.map(([rows, cols]) => tensor64(randomNormal(rows * cols), [rows, cols]));
    const first = run(inputs);
    const cotangent = tensor64(randomNormal(first.size), first.shape);
    const objective = (...t: unknown[]) => tf.sum(tf.mul(run(t), cotangent)) as never;
    const gradients = tf.grads(objective)(inputs);
    for (const [i, differences] of centralDifferences(objective, inputs).entries()) {
      assertClose(`${name} input ${i}`, values64(gradients[i]), differences, 1e-8);
    }
  });
}
