/** Gradients of the naive twins against central differences, in float64. */
import type { Tensor } from "../../src/ops/op.ts";
import { add } from "../../src/ops/add.ts";
import { columns } from "../../src/ops/columns.ts";
import { crossEntropy } from "../../src/ops/cross_entropy.ts";
import { embedding } from "../../src/ops/embedding.ts";
import { gelu } from "../../src/ops/gelu.ts";
import { layerNorm } from "../../src/ops/layer_norm.ts";
import { rmsNorm } from "../../src/ops/rms_norm.ts";
import { rope } from "../../src/ops/rope.ts";
import { swiglu } from "../../src/ops/swiglu.ts";
import { TfjsBackend, type TfjsTensor } from "../../src/tfjs/backend.ts";
import { assertClose, randomNormal } from "../check_op.ts";
import { centralDifferences, tensor64, values64 } from "../float64_backend.ts";

interface TwinCase {
  name: string;
  /** Shapes of the inputs that are differentiated. */
  shapes: [rows: number, cols: number][];
  /** `ids` makes an i32 column. */
  apply: (inputs: Tensor[], ids: (values: number[]) => Tensor) => Tensor;
}

const spec = { seqLen: 3, heads: 2, headDim: 7, start: 1, dims: 4, theta: 50 };

const CASES: TwinCase[] = [
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
    const ids = (values: number[]) =>
      backend.wrap(tf.tensor2d(values, [values.length, 1], "int32"), "i32");
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
