/** The indexer's loss along lists: against its twin, against the masked form, and bit by bit. */
import assert from "node:assert/strict";
import { gatherGradientK } from "../../src/kernels/indexer/lists/gradient.ts";
import { SEGMENTS, startsCols } from "../../src/kernels/select/lists.ts";
import { indexerLossOp } from "../../src/ops/indexer/loss.ts";
import { matrixAt } from "../../src/ops/matrix.ts";
import type { Tensor } from "../../src/ops/op.ts";
import type { Capabilities } from "../../src/kernels/wgsl/device.ts";
import { indexTopk } from "../../src/ops/select/index.ts";
import { selectionMask } from "../../src/ops/select/mask.ts";
import { sparseMlaAttention } from "../../src/ops/attention/sparse_mla_attention.ts";
import { Graph, type GraphTensor } from "../../src/graph/graph.ts";
import { lower } from "../../src/graph/lower.ts";
import { assertClose, testGpu } from "../check_op.ts";
import { layout, runKernels } from "../run_kernel.ts";
import { runOp } from "../run_op.ts";
import {
  indexerAttributes,
  indexerInputs,
  indicesOf,
  maskOf,
  randomSelection,
  teacherDims,
  withoutActivation,
} from "./indexer_case.ts";
import { checkLoss, lossOf } from "./indexer_loss_case.ts";

const gathered = { direction: "forward", weight: 1, gradient: true, form: "gathered" } as const;
const odd = indexerAttributes([2, 37], [3, 5, 2, 3], [3, 5]);
const even = indexerAttributes([2, 70], [2, 8, 4, 8], [4, 8]);

const DEVICES: [string, Partial<Capabilities>][] = [
  ["software", { software: true }],
  ["GPU", { software: false }],
  ["GPU without subgroups", { software: false, subgroups: null }],
];

for (const [device, capabilities] of DEVICES) {
  const options = { capabilities };

  Deno.test(`indexerLoss along lists, kernels for ${device}`, async () => {
    await checkLoss("odd", { ...odd, ...gathered, weight: 0.7 }, 6, true, options);
    await checkLoss("even", { ...even, ...gathered }, 9, true, options);
    await checkLoss("dense teacher", { ...even, ...gathered }, 9, false, options);
  });

  Deno.test(`indexerLoss along lists, reverse and without activation, for ${device}`, async () => {
    const reverse = { ...gathered, direction: "reverse", weight: 0.3 } as const;
    await checkLoss("reverse", { ...odd, ...reverse }, 6, true, options);
    await checkLoss("reverse, dense teacher", { ...even, ...reverse }, 9, false, options);
    await checkLoss("none", { ...withoutActivation(odd), ...gathered }, 6, true, options);
  });

  Deno.test(`indexerLoss along lists of many heads and wide ones, for ${device}`, async () => {
    // Seven and seventeen `vec4`s: for eight lanes and for four.
    const many = indexerAttributes([1, 45], [5, 20, 8, 4], [9, 28]);
    await checkLoss("many", { ...many, ...gathered }, 7, true, options);
    const wide = indexerAttributes([1, 40], [1, 40, 28, 4], [1, 68]);
    await checkLoss("wide", { ...wide, ...gathered }, 33, true, options);
    const small = { capabilities: { ...capabilities, workgroupBytes: 2000 } };
    await checkLoss("little memory", { ...many, ...gathered }, 7, true, small);
  });

  Deno.test(`indexerLoss along lists of all keys and of few, for ${device}`, async () => {
    for (const k of [1, 37, 50]) {
      await checkLoss(`k = ${k}`, { ...odd, ...gathered }, k, true, options);
    }
    // Lists end early, and some keys are in none.
    const few = randomSelection(odd, 6).map((keys, row) => {
      const early = keys.filter((s) => s % 3 > 0).slice(0, 1 + row % 6);
      return early.length ? early : [0];
    });
    await checkLoss("few", { ...odd, ...gathered }, 6, false, options, few);
  });

  Deno.test(`indexerLoss along lists is the masked form, bit for bit each time, for ${device}`, async () => {
    const long = indexerAttributes([2, 300], [2, 8, 4, 8], [4, 16]);
    // Rows without keys count nothing.
    const selection = randomSelection(long, 40).map((keys, row) => row % 7 === 3 ? [] : keys);
    const inputs = [
      ...indexerInputs(long),
      maskOf(selection, long.seqLen),
      indicesOf(selection, 40),
    ].map((x) => ({ ...x, values: x.values! }));
    for (const direction of ["forward", "reverse"] as const) {
      const run = (form: "masked" | "gathered") => {
        const attributes = { ...long, ...gathered, direction, form };
        const all = (x: Tensor[]) => x[0].backend.apply(indexerLossOp, x, attributes);
        return runOp(inputs, all, capabilities);
      };
      const [masked, along] = [await run("masked"), await run("gathered")];
      masked.forEach((want, i) => assertClose(`${direction} ${i}`, along[i], want, 1e-5));
      assert.deepEqual(await run("gathered"), along);
    }
  });
}

Deno.test("the teacher of the scores that attention leaves is that of the lists", async () => {
  const dims = indexerAttributes([2, 75], [3, 8, 4, 8], [2, 8]);
  const selection = randomSelection(dims, 9).map((keys, row) => row % 7 === 3 ? [] : keys);
  const lists = [maskOf(selection, dims.seqLen), indicesOf(selection, 9)];
  const inputs = [...indexerInputs(dims, selection), ...lists].map((x) => ({
    ...x,
    values: x.values!,
  }));
  const run = async (hands: boolean, capabilities: Partial<Capabilities>) => {
    const labels: string[] = [];
    const all = (x: Tensor[]) => {
      const [q, kv, kPe, , mask, indices] = x.slice(3);
      const form = "gathered" as const;
      const attend = () =>
        sparseMlaAttention(q, kv, kPe, indices, mask, { ...teacherDims(dims), topk: 9, form });
      const { lse, scores } = hands ? attend() : { lse: x[6], scores: undefined };
      const given = [...x.slice(0, 6), lse, mask, indices, ...scores ? [scores] : []];
      return x[0].backend.apply(indexerLossOp, given, { ...dims, ...gathered });
    };
    const outputs = await runOp(inputs, all, capabilities, labels);
    const teachers = labels.filter((label) =>
      /^index_(target_of_scores|gather_target)/.test(label)
    );
    return { outputs, teacher: teachers[0].split(" ")[0] };
  };
  const apart = await run(false, { software: false });
  assert.equal(apart.teacher, "index_gather_target");
  // Software leaves no scores, nor does a GPU that cannot bind all of them.
  for (
    const [capabilities, teacher] of [
      [{ software: false }, "index_target_of_scores"],
      [{ software: false, maxBindingBytes: 16_000 }, "index_gather_target"],
      [{ software: true }, "index_gather_target"],
    ] as const
  ) {
    const handed = await run(true, capabilities);
    assert.equal(handed.teacher, teacher);
    apart.outputs.forEach((want, i) => assertClose(`output ${i}`, handed.outputs[i], want, 1e-5));
  }
});

Deno.test("indexerLoss along lists goes through sequences where a binding is too small", async () => {
  const narrow = indexerAttributes([5, 21], [1, 2, 2, 2], [2, 2]);
  for (const software of [true, false]) {
    const capabilities = { software, maxBindingBytes: 4 * 400 };
    await checkLoss("two", { ...narrow, ...gathered }, 6, true, { capabilities });
    const tiny = { capabilities: { software, maxBindingBytes: 4 * 100 } };
    await assert.rejects(
      checkLoss("none", { ...narrow, ...gathered }, 6, true, tiny),
      /over 21 tokens of 24 bytes: a binding holds 400 bytes; lower seqLen/,
    );
  }
});

Deno.test("indexerLoss over a selection takes the form that is faster by default", async () => {
  const { form: _, ...auto } = gathered;
  const gpu = await testGpu();
  const labels = (k: number) => {
    const selection = randomSelection(odd, k);
    const inputs = [...indexerInputs(odd), maskOf(selection, 37), indicesOf(selection, k)];
    const graph = new Graph();
    const leaves = inputs.map(({ rows, cols, dtype }) => {
      const storage = { label: "input", size: rows * cols };
      return graph.leaf(matrixAt(storage, 0, { rows, cols, dtype }), { trained: false });
    });
    const loss = lossOf(leaves, { ...odd, ...auto }) as GraphTensor;
    const { dispatches } = lower(graph, { capabilities: gpu.capabilities, keep: [loss] });
    return dispatches.map(({ kernel }) => kernel.label).join();
  };
  assert.match(labels(4), /index_gather_grad_k/);
  assert.match(labels(5), /index_gradient_k/);
  assert.doesNotMatch(labels(5), /index_gather/);
});

Deno.test("indexerLoss along lists without gradients", async () => {
  const selection = randomSelection(odd, 4);
  const inputs = [...indexerInputs(odd, selection), maskOf(selection, 37), indicesOf(selection, 4)];
  const attributes = { ...odd, ...gathered, gradient: false };
  const untrained = inputs.map((x) => ({ ...x, gradient: false }));
  await checkLoss("value", attributes, 4, true, { inputs: untrained });
});

Deno.test("gatherGradientK sums over a list that is too long for one loop of llvmpipe", async () => {
  const [seqLen, heads, dim] = [40_000, 65, 1];
  const random = (count: number) => Float32Array.from({ length: count }, () => Math.random() + 0.5);
  const matrices = [
    ...[layout(seqLen, heads * dim), layout(seqLen, dim), layout(seqLen, heads)],
    ...[layout(1, startsCols(seqLen)), layout(seqLen, 1), layout(seqLen, 1), layout(seqLen, dim)],
  ];
  const [q, k, w, starts, queries, listed, gradK] = matrices;
  const gpu = await testGpu();
  const kernel = gatherGradientK(
    {
      ...{ q, k, w, seqLen },
      indexer: { heads, dim, activation: "relu", scale: 1 },
      capabilities: { ...gpu.capabilities, software: true },
    },
    { starts, queries, listed },
    gradK,
  );
  // All queries selected key 0 alone, whose gradient is the sum of G[t] w[t, j] q[t, j].
  const [qs, ws, gs] = [q, w, listed].map(({ rows, cols }) => random(rows * cols));
  const begins = new Uint32Array(starts.cols).fill(seqLen);
  begins.fill(0, 0, SEGMENTS);
  const all = Int32Array.from({ length: seqLen }, (_, t) => t);
  const given = [qs, random(seqLen), ws, begins, all, gs, new Float32Array(seqLen).fill(NaN)];
  const { arrays } = await runKernels(gpu, given, [[kernel, ...given.keys()]]);
  const want = new Float64Array(seqLen);
  qs.forEach((x, i) => want[0] += gs[Math.floor(i / heads)] * ws[i] * x);
  assertClose("gradient of the keys", arrays[6], want, 1e-5);
});

Deno.test("selection, attention and loss share scores, lists and blocks", async () => {
  const { capabilities } = await testGpu();
  const [rows, topk] = [even.batch * even.seqLen, 9];
  const makers: Record<string, string> = { gathered: "list_queries", masked: "selection_blocks" };
  for (const [form, maker] of Object.entries(makers)) {
    const graph = new Graph();
    const leaf = (cols: number) => {
      const storage = { label: "input", size: rows * cols };
      return graph.leaf(matrixAt(storage, 0, { rows, cols }), { trained: true });
    };
    const { indexer, teacher: { dims: { heads, nope, rope, value } } } = even;
    const [q, kv, kPe] = [heads * (nope + rope), heads * (nope + value), rope].map(leaf);
    const [qI, kI, w] = [indexer.heads * indexer.dim, indexer.dim, indexer.heads].map(leaf);
    const indices = indexTopk(qI, kI, w, { ...even, topk });
    const mask = selectionMask(indices, even);
    const how = { topk, form: form as "gathered" | "masked" };
    const sparse = { ...teacherDims(even), ...how };
    const { o, lse } = sparseMlaAttention(q, kv, kPe, indices, mask, sparse);
    const inputs = [qI, kI, w, q, kv, kPe, lse, mask, indices];
    const kl = lossOf(inputs, { ...even, ...gathered, form: how.form });
    const cotangent = matrixAt({ label: "dO", size: rows * o.cols }, 0, { rows, cols: o.cols });
    const { dispatches } = lower(graph, {
      capabilities: { ...capabilities, software: false },
      losses: [{ tensor: kl as GraphTensor, weight: 1 }],
      cotangents: [{ tensor: o as GraphTensor, matrix: cotangent }],
    });
    for (const name of ["index_scores", maker]) {
      const made = dispatches.filter(({ kernel }) => kernel.label.startsWith(name));
      assert.equal(made.length, 1, `${form}: ${name}`);
    }
  }
});
