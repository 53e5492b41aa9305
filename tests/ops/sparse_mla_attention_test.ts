/** Attention to selected keys, masked and gathered, against its twin and against dense attention. */
import assert from "node:assert/strict";
import { mlaAttention, type MlaAttentionDims } from "../../src/ops/attention/mla_attention.ts";
import { matrixType, type Storage, type Tensor } from "../../src/ops/op.ts";
import type { Capabilities } from "../../src/kernels/wgsl/device.ts";
import {
  sparseMlaAttention,
  type SparseMlaAttentionDims,
  sparseMlaAttentionOp,
} from "../../src/ops/attention/sparse_mla_attention.ts";
import { Graph, type GraphTensor } from "../../src/graph/graph.ts";
import { lower } from "../../src/graph/lower.ts";
import { matrixAt } from "../../src/ops/matrix.ts";
import { createStorageBuffer, Plan, SlotPool } from "../../src/webgpu/plan/plan.ts";
import { ReadBack } from "../../src/webgpu/device/read_back.ts";
import { type CheckInput, checkOp, type CheckOptions, randomNormal, testGpu } from "../check_op.ts";

/** The keys of the query at t, given some that were drawn at random. */
type Choose = (keys: number[], t: number) => number[];

/** For each query min(topk, t + 1) of its keys, or what `choose` makes of them. */
function select(
  { batch, seqLen, topk }: SparseMlaAttentionDims,
  choose: Choose = (keys) => keys,
): [CheckInput, CheckInput] {
  const rows = batch * seqLen;
  const words = Math.ceil(seqLen / 32);
  const indices = new Int32Array(rows * topk).fill(-1);
  const mask = new Int32Array(rows * words);
  for (let row = 0; row < rows; row++) {
    const keys = Array.from({ length: row % seqLen + 1 }, (_, s) => s);
    while (keys.length > topk) keys.splice(Math.floor(Math.random() * keys.length), 1);
    choose(keys, row % seqLen).forEach((key, i) => {
      indices[row * topk + i] = key;
      mask[row * words + (key >> 5)] |= 1 << (key & 31);
    });
  }
  return [
    { rows, cols: topk, dtype: "i32", values: indices },
    { rows, cols: words, dtype: "i32", values: mask },
  ];
}

function apply(
  [q, kv, kPe, indices, mask]: Tensor[],
  dims: SparseMlaAttentionDims,
): { o: Tensor; lse: Tensor } {
  const { o, lse } = sparseMlaAttention(q, kv, kPe, indices, mask, dims);
  return { o, lse };
}

const sparse = (
  [batch, seqLen, heads, topk]: [number, number, number, number],
  [qkNopeHeadDim, qkRopeHeadDim, vHeadDim]: [number, number, number],
): SparseMlaAttentionDims => ({
  batch,
  seqLen,
  heads,
  topk,
  qkNopeHeadDim,
  qkRopeHeadDim,
  vHeadDim,
});

function denseInputs(dims: Omit<MlaAttentionDims, "window">): CheckInput[] {
  const { batch, seqLen, heads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = dims;
  const rows = batch * seqLen;
  return [
    { rows, cols: heads * (qkNopeHeadDim + qkRopeHeadDim) },
    { rows, cols: heads * (qkNopeHeadDim + vHeadDim) },
    { rows, cols: qkRopeHeadDim },
  ];
}

/** Small tiles, which compile fast and leave tiles to skip in short sequences. */
const GPU = { software: false, workgroupBytes: 6000 };

/** Devices, and widths of heads that are whole `vec4`s or not. */
const DEVICES: [string, Partial<Capabilities>, [number, number, number]][] = [
  ["software", { software: true }, [8, 4, 8]],
  ["GPU", GPU, [7, 2, 5]],
  ["GPU without subgroups", { ...GPU, subgroups: null }, [24, 12, 20]],
];

function check(
  name: string,
  dims: SparseMlaAttentionDims,
  choose?: Choose,
  options: Partial<CheckOptions> = {},
): Promise<void> {
  return checkOp(name, {
    inputs: [...denseInputs(dims), ...select(dims, choose)],
    apply: (x) => Object.values(apply(x, dims)),
    ...options,
  });
}

for (const [device, capabilities, widths] of DEVICES) {
  for (const form of ["masked", "gathered"] as const) {
    if (form === "masked" && capabilities.subgroups === null) continue;
    const dims = (shape: [number, number, number, number]) => ({ ...sparse(shape, widths), form });

    Deno.test(`sparseMlaAttention, ${form}, kernels for ${device}`, async () => {
      await check("random keys", dims([2, 75, 2, 9]), undefined, { capabilities });
      // The first keys and the last ones: most tiles are empty.
      const local: Choose = (_, t) =>
        [0, 1, t - 2, t - 1, t].filter((s, i) => s >= 0 && (i < 2 || s > 1));
      await check("local keys", dims([1, 140, 2, 5]), (k, t) => t < 3 ? k : local(k, t), {
        capabilities,
      });
    });

    Deno.test(`sparseMlaAttention, ${form}, of nothing, for ${device}`, async () => {
      const some = dims([1, 41, 2, 3]);
      const only = { apply: (x: Tensor[]) => [apply(x, some).o], capabilities };
      await check("rows without keys", some, (keys, t) => t % 5 === 3 ? [] : keys, only);
      await check("no keys", some, () => [], only);
    });

    Deno.test(`sparseMlaAttention, ${form}, of all keys is dense, for ${device}`, async () => {
      for (const topk of [33, 50]) {
        const all = dims([1, 33, 2, topk]);
        await check("all keys", all, undefined, {
          // The twin is that of dense attention.
          apply: (x) =>
            Object.values("value" in x[0] ? mlaAttention(x[0], x[1], x[2], all) : apply(x, all)),
          capabilities,
        });
      }
    });

    Deno.test(`sparseMlaAttention, ${form}, gives the same bits again, for ${device}`, async () => {
      const some = dims([1, 67, 2, 7]);
      const inputs = [...denseInputs(some), ...select(some)].map((x) => ({
        ...x,
        values: x.values ?? randomNormal(x.rows * x.cols),
      }));
      const first = await bitsOf(inputs, some, capabilities);
      assert(first.every((bits) => bits.some((x) => x !== 0)));
      assert.deepEqual(await bitsOf(inputs, some, capabilities), first);
    });
  }
}

Deno.test("sparseMlaAttention, masked, kept weights", async () => {
  const capabilities = { software: false, workgroupBytes: 32_768 };
  const some = { ...sparse([2, 390, 2, 60], [8, 4, 8]), form: "masked" as const };
  await check("random keys", some, undefined, { capabilities });
  const only = { apply: (x: Tensor[]) => [apply(x, some).o], capabilities };
  await check("rows without keys", some, (keys, t) => t % 5 === 3 ? [] : keys, only);
  const inputs = [...denseInputs(some), ...select(some)].map((x) => ({
    ...x,
    values: x.values ?? randomNormal(x.rows * x.cols),
  }));
  assert.deepEqual(
    await bitsOf(inputs, some, capabilities),
    await bitsOf(inputs, some, capabilities),
  );
});

/** Bits of the outputs and of the gradients of the float inputs, for the cotangent q. */
async function bitsOf(
  inputs: (CheckInput & { values: ArrayLike<number> })[],
  dims: SparseMlaAttentionDims,
  capabilities: Partial<Capabilities>,
): Promise<Uint32Array[]> {
  const gpu = await testGpu();
  const fixed = new Map<Storage, GPUBuffer>();
  const place = ({ rows, cols, dtype = "f32", values }: typeof inputs[0]) => {
    const storage = { label: "test", size: rows * cols };
    const data = dtype === "i32" ? Int32Array.from(values) : Float32Array.from(values);
    const buffer = createStorageBuffer(gpu, "test", storage.size);
    gpu.device.queue.writeBuffer(buffer, 0, data);
    fixed.set(storage, buffer);
    return matrixAt(storage, 0, { rows, cols, dtype });
  };
  const graph = new Graph();
  const leaves = inputs.map((x) => graph.leaf(place(x), { trained: x.dtype !== "i32" }));
  const { o, lse } = apply(leaves, dims) as { o: GraphTensor; lse: GraphTensor };
  const cotangent = randomNormal(o.rows * o.cols).fill(0.5);
  const program = lower(graph, {
    capabilities: { ...gpu.capabilities, ...capabilities },
    cotangents: [{ tensor: o, matrix: place({ rows: o.rows, cols: o.cols, values: cotangent }) }],
    keep: [o, lse],
  });
  const pool = new SlotPool(gpu);
  const plan = new Plan(gpu, program, fixed, pool);
  pool.poison();
  plan.submit();
  const results = [o, lse].map((x) => program.locate(x))
    .concat(leaves.slice(0, 3).map((x) => program.gradient(x)));
  const bits: Uint32Array[] = [];
  for (const m of results) {
    const reader = new ReadBack(gpu, m.rows * m.cols * 4);
    const bytes = await reader.read(
      plan.buffer(m.storage),
      (m.base + m.offset) * 4,
      m.rows * m.cols * 4,
    );
    bits.push(new Uint32Array(bytes));
    reader.destroy();
  }
  await gpu.settle();
  plan.destroy();
  pool.destroy();
  for (const buffer of fixed.values()) buffer.destroy();
  return bits;
}

Deno.test("sparseMlaAttention, masked, tiles of several words", () =>
  check("masked", { ...sparse([1, 150, 1, 20], [3, 1, 3]), form: "masked" }, undefined, {
    capabilities: { software: false },
  }));

Deno.test("sparseMlaAttention splits its batch where a binding is too small", async () => {
  for (const form of ["masked", "gathered"] as const) {
    const dims = { ...sparse([5, 16, 2, 4], [8, 4, 8]), form };
    await check(form, dims, undefined, { capabilities: { maxBindingBytes: 6000 } });
  }
});

Deno.test("sparseMlaAttention names shapes that do not fit", () => {
  const dims = sparse([1, 40, 2, 4], [8, 4, 8]);
  const types = (topk: number, words: number, more: Partial<SparseMlaAttentionDims> = {}) =>
    sparseMlaAttentionOp.types([
      ...denseInputs(dims).map((x) => matrixType(x.rows, x.cols)),
      matrixType(40, topk, "i32"),
      matrixType(40, words, "i32"),
    ], { ...dims, ...more });
  const outputs = [matrixType(40, 16), matrixType(40, 2)];
  assert.deepEqual(types(4, 2, { form: "masked" }), outputs);
  // Along lists, which is the faster form here, it leaves its scores, too.
  assert.deepEqual(types(4, 2), [...outputs, matrixType(40, 8)]);
  assert.throws(() => types(5, 2), /expected i32 indices \[40, 4\] and mask \[40, 2\]/);
  assert.throws(() => types(4, 1), /Cannot apply sparseMlaAttention to 40x24/);
  assert.throws(() => types(4, 2, { heads: 3 }), /expected q \[40, 3 \* \(8 \+ 4\)\]/);
  assert.throws(() => types(4, 2, { topk: 0.5 }), /topk is 0.5, not a whole number above 0/);
});
