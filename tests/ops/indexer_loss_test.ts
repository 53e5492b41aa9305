/** The indexer's loss against its twin: both supports, both directions, both families of kernels. */
import assert from "node:assert/strict";
import { attentionTarget } from "../../src/kernels/indexer/teacher.ts";
import { indexerLossOp } from "../../src/ops/indexer/loss.ts";
import { matrixType, type TfMatrix } from "../../src/ops/op.ts";
import { TfjsBackend, type TfjsTensor } from "../../src/tfjs/backend.ts";
import { testGpu } from "../check_op.ts";
import { layout, runKernels } from "../run_kernel.ts";
import {
  indexerAttributes,
  indexerInputs,
  indicesOf,
  maskOf,
  randomSelection,
  withoutActivation,
} from "./indexer_case.ts";
import { checkLoss, lossOf } from "./indexer_loss_case.ts";

const odd = indexerAttributes([2, 37], [3, 5, 2, 3], [3, 5]);
const even = indexerAttributes([2, 70], [2, 8, 4, 8], [4, 8]);
const forward = { direction: "forward", weight: 1, gradient: true, form: "masked" } as const;

for (const software of [true, false]) {
  const capabilities = { software };
  const kind = software ? "software" : "GPU";

  Deno.test(`indexerLoss over all keys, kernels for ${kind}`, async () => {
    await checkLoss("odd", { ...odd, ...forward, weight: 0.7 }, null, false, { capabilities });
    await checkLoss("even", { ...even, ...forward }, null, false, { capabilities });
  });

  Deno.test(`indexerLoss over a selection, kernels for ${kind}`, async () => {
    await checkLoss("odd", { ...odd, ...forward }, 6, true, { capabilities });
    await checkLoss("even", { ...even, ...forward }, 9, true, { capabilities });
  });

  Deno.test(`indexerLoss of each head, kernels for ${kind}`, async () => {
    const each = { ...forward, klHeads: "each" } as const;
    const three = indexerAttributes([2, 37], [3, 5, 2, 3], [3, 5]);
    await checkLoss("odd", { ...three, ...each, weight: 0.7 }, null, false, { capabilities });
    const two = indexerAttributes([2, 70], [2, 8, 4, 8], [2, 8]);
    await checkLoss("even", { ...two, ...each }, 9, true, { capabilities });
    const chunks = { ...capabilities, maxBindingBytes: 4 * 900 };
    const narrow = indexerAttributes([2, 70], [2, 2, 2, 2], [2, 2]);
    await checkLoss("chunks", { ...narrow, ...each, direction: "reverse" }, 6, true, {
      capabilities: chunks,
    });
  });

  Deno.test(`indexerLoss with wide heads, kernels for ${kind}`, async () => {
    const wide = indexerAttributes([1, 69], [2, 32, 4, 8], [2, 36]);
    await checkLoss("wide", { ...wide, ...forward }, null, false, { capabilities });
    // Whole tiles: of 32 steps, and, with less workgroup memory, of 16.
    const whole = indexerAttributes([1, 72], [2, 64, 32, 4], [2, 32]);
    for (const workgroupBytes of [32_768, 16_384]) {
      await checkLoss("whole", { ...whole, ...forward }, 9, true, {
        capabilities: { ...capabilities, workgroupBytes },
      });
    }
  });

  Deno.test(`indexerLoss over several tiles, kernels for ${kind}`, async () => {
    const long = indexerAttributes([2, 150], [1, 4, 4, 4], [3, 8]);
    await checkLoss("long", { ...long, ...forward }, null, false, { capabilities });
    // Chunks of 40 queries.
    const chunks = { ...capabilities, maxBindingBytes: 4 * 6000 };
    await checkLoss("chunks", { ...long, ...forward }, 40, true, { capabilities: chunks });
  });

  Deno.test(`indexerLoss over many short sequences, kernels for ${kind}`, async () => {
    const short = indexerAttributes([90, 3], [1, 4, 4, 4], [3, 8]);
    await checkLoss("short", { ...short, ...forward }, null, false, { capabilities });
  });

  Deno.test(`indexerLoss by chunks, kernels for ${kind}`, async () => {
    const narrow = indexerAttributes([3, 70], [1, 2, 2, 2], [2, 2]);
    // Elements of a binding: of 70² scores, for chunks of 8 queries.
    const chunks = { ...capabilities, maxBindingBytes: 4 * 600 };
    await checkLoss("part", { ...narrow, ...forward }, null, false, { capabilities: chunks });
    await checkLoss("part", { ...narrow, ...forward }, 6, true, { capabilities: chunks });
    // Of 21² scores, for two sequences side by side.
    const two = { ...capabilities, maxBindingBytes: 4 * 1000 };
    const short = { ...narrow, seqLen: 21 };
    await checkLoss("two", { ...short, ...forward }, null, false, { capabilities: two });
  });
}

Deno.test("attentionTarget sums to 1 over a selection, and is 0 elsewhere", async () => {
  const selection = randomSelection(even, 9);
  const inputs = indexerInputs(even, selection).slice(3);
  const arrays = [...inputs, maskOf(selection, even.seqLen)].map(({ values }) => values);
  const [q, kv, kPe, lse] = inputs.map(({ rows, cols }) => layout(rows, cols));
  const [rows, keys] = [even.batch * even.seqLen, even.seqLen];
  const mask = layout(rows, Math.ceil(keys / 32));
  const target = layout(rows, keys);
  const gpu = await testGpu();
  for (const software of [true, false]) {
    const kernel = attentionTarget({
      ...{ q, kv, kPe, lse, mask, target, firstRow: 0 },
      ...{ batch: even.batch, teacher: even.teacher },
      capabilities: { ...gpu.capabilities, software },
    });
    const all = [...arrays as Float32Array[], new Float32Array(rows * keys).fill(NaN)];
    const got = (await runKernels(gpu, all, [[kernel, 0, 1, 2, 3, 4, 5]])).arrays[5];
    selection.forEach((own, row) => {
      const p = got.subarray(row * keys, (row + 1) * keys);
      const sum = p.reduce((a, b) => a + b);
      assert(Math.abs(sum - 1) < 1e-5, `row ${row} sums to ${sum}`);
      p.forEach((x, s) => assert.equal(x > 0, own.includes(s), `row ${row}, key ${s}: ${x}`));
    });
  }
});

Deno.test("indexerLoss with a dense teacher, cut to the selection", () =>
  checkLoss("cut", { ...even, ...forward }, 9, false));

Deno.test("indexerLoss in the reverse direction", async () => {
  const reverse = { ...forward, direction: "reverse" } as const;
  await checkLoss("all keys", { ...odd, ...reverse }, null, false);
  await checkLoss("selection", { ...even, ...reverse, weight: 0.3 }, 9, true);
});

Deno.test("indexerLoss without activation", async () => {
  for (const software of [true, false]) {
    const options = { capabilities: { software } };
    await checkLoss("none", { ...withoutActivation(odd), ...forward }, null, false, options);
  }
});

Deno.test("indexerLoss gives the gradients that are wanted, and none if told so", async () => {
  const selection = randomSelection(odd, 6);
  for (const wanted of [0, 1, 2]) {
    const inputs = indexerInputs(odd, selection).map((x, i) => ({ ...x, gradient: i === wanted }));
    await checkLoss(`gradient ${wanted}`, { ...odd, ...forward }, null, false, { inputs });
  }
  const inputs = indexerInputs(odd).map((x) => ({ ...x, gradient: false }));
  await checkLoss("value", { ...odd, ...forward, gradient: false }, null, false, { inputs });
});

Deno.test("indexerLoss on wasm: the twin's value and gradients are finite and isolated", async () => {
  const backend = await TfjsBackend.open("wasm");
  const { tf } = backend;
  const selection = randomSelection(even, 9);
  const inputs = [
    ...indexerInputs(even, selection),
    maskOf(selection, even.seqLen),
    indicesOf(selection, 9),
  ];
  const tensors = inputs.map(({ values, rows, cols, dtype }) =>
    backend.tensor(values!, rows, cols, dtype)
  );
  for (const direction of ["forward", "reverse"] as const) {
    const attributes = { ...even, ...forward, direction };
    const gradients = tf.grads((...values) => {
      const given = values.map((x) => backend.wrap(x as TfMatrix));
      const kl = lossOf([...given, ...tensors.slice(7)], attributes) as TfjsTensor;
      return tf.sum(kl.value);
    })(tensors.slice(0, 7).map((x) => x.value));
    gradients.forEach((gradient, i) => {
      const norm = Math.hypot(...gradient.dataSync());
      if (i < 3) assert(norm > 0 && Number.isFinite(norm), `${direction}, gradient ${i}: ${norm}`);
      else assert.equal(norm, 0, `${direction}, gradient ${i}`);
    });
  }
});

Deno.test("indexerLoss names what does not fit", () => {
  const types = indexerInputs(odd).map(({ rows, cols }) => matrixType(rows, cols));
  const attributes = { ...odd, ...forward };
  assert.throws(() => indexerLossOp.types(types.slice(1), attributes), /indexerLoss.*kI 74x5/);
  assert.throws(
    () => indexerLossOp.types([...types, matrixType(74, 2)], attributes),
    /i32 mask/,
  );
  const [mask, indices] = [matrixType(74, 2, "i32"), matrixType(74, 6, "i32")];
  assert.equal(indexerLossOp.types([...types, mask, indices], attributes).length, 4);
  const { heads } = odd.teacher.dims;
  const withScores = (cols: number) => [...types, mask, indices, matrixType(74, cols)];
  assert.equal(indexerLossOp.types(withScores(heads * 6), attributes).length, 4);
  assert.throws(
    () => indexerLossOp.types(withScores(heads * 6 + 1), attributes),
    /expected scores \[74, 3 \* 6\] after the indices/,
  );
  const expected = /indexerLoss.*expected i32 indices \[74, topk\] after the mask/;
  for (const wrong of [[mask], [mask, matrixType(74, 6)], [mask, matrixType(37, 6, "i32")]]) {
    assert.throws(() => indexerLossOp.types([...types, ...wrong], attributes), expected);
  }
  const { indexer, teacher } = odd;
  const wrong: [Partial<typeof odd>, RegExp][] = [
    [{ indexer: { ...indexer, heads: 0 } }, /indexer\.heads is 0/],
    [{ indexer: { ...indexer, scale: -1 } }, /indexer\.scale is -1/],
    [{ teacher: { ...teacher, dims: { ...teacher.dims, value: 1.5 } } }, /teacher\.value is 1\.5/],
    [{ teacher: { ...teacher, scale: NaN } }, /teacher\.scale is NaN/],
  ];
  for (const [changes, expected] of wrong) {
    assert.throws(() => indexerLossOp.types(types, { ...attributes, ...changes }), expected);
  }
});
