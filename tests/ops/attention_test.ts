/** Attention of all kinds against its twin, in every way a gradient may have to be written. */
import assert from "node:assert/strict";
import { attention, type AttentionDims, attentionOp } from "../../src/ops/attention/attention.ts";
import {
  mlaAttention,
  type MlaAttentionDims,
  mlaAttentionOp,
} from "../../src/ops/attention/mla_attention.ts";
import { matrixType } from "../../src/ops/op.ts";
import { type CheckInput, checkOp, type CheckOptions } from "../check_op.ts";

function checkAttention(
  name: string,
  dims: AttentionDims,
  [width, value]: [number, number],
  options: Partial<CheckOptions> = {},
): Promise<void> {
  const rows = dims.batch * dims.seqLen;
  const inputs: CheckInput[] = [
    { rows, cols: dims.heads * width },
    { rows, cols: dims.kvHeads * width },
    { rows, cols: dims.kvHeads * value },
  ];
  const apply: CheckOptions["apply"] = ([q, k, v]) => Object.values(attention(q, k, v, dims));
  return checkOp(name, { inputs, apply, ...options });
}

function mlaInputs(dims: MlaAttentionDims): CheckInput[] {
  const { batch, seqLen, heads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = dims;
  const rows = batch * seqLen;
  return [
    { rows, cols: heads * (qkNopeHeadDim + qkRopeHeadDim) },
    { rows, cols: heads * (qkNopeHeadDim + vHeadDim) },
    { rows, cols: qkRopeHeadDim },
  ];
}

function checkMla(
  name: string,
  dims: MlaAttentionDims,
  options: Partial<CheckOptions> = {},
): Promise<void> {
  return checkOp(name, {
    inputs: mlaInputs(dims),
    apply: ([q, kv, kPe]) => Object.values(mlaAttention(q, kv, kPe, dims)),
    ...options,
  });
}

const mla = (
  [batch, seqLen, heads]: [number, number, number],
  [qkNopeHeadDim, qkRopeHeadDim, vHeadDim]: [number, number, number],
): MlaAttentionDims => ({ batch, seqLen, heads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim });

/** Small tiles, which compile fast. */
const GPU = { software: false, workgroupBytes: 6000 };

Deno.test("attention, kernels for software", () =>
  checkAttention("GQA", { batch: 2, seqLen: 37, heads: 6, kvHeads: 2 }, [5, 3], {
    capabilities: { software: true },
  }));

Deno.test("mlaAttention, kernels for software", () =>
  checkMla("MLA", mla([2, 37, 2], [3, 2, 3]), { capabilities: { software: true } }));

Deno.test("mlaAttention, kernels for GPU", () =>
  checkMla("MLA", mla([2, 37, 2], [7, 2, 5]), { capabilities: GPU }));

/** The backward pass that keeps weights: it needs larger tiles. */
const KEEPS = { software: false, workgroupBytes: 32_768 };

Deno.test("attention, kept weights", async () => {
  const dims = { batch: 1, seqLen: 389, heads: 4, kvHeads: 2 };
  await checkAttention("GQA", dims, [5, 3], { capabilities: KEEPS });
});

Deno.test("mlaAttention, kept weights", async () => {
  // More sums than one round of workgroups.
  await checkMla("MLA", mla([6, 391, 6], [8, 4, 8]), { capabilities: KEEPS });
  await checkMla("whole tiles", mla([1, 512, 1], [32, 32, 32]), { capabilities: KEEPS });
  await checkMla("wide heads", mla([1, 386, 1], [100, 36, 132]), { capabilities: KEEPS });
});

Deno.test("attention keeps the weights of as many heads as fit", async () => {
  // Of one head 400 tokens have 10 blocks of 128 x 128 numbers: 655 360 bytes.
  for (const maxBindingBytes of [700_000, 2_000_000]) {
    const capabilities = { ...KEEPS, maxBindingBytes };
    await checkMla("MLA in parts", mla([2, 400, 3], [8, 4, 8]), { capabilities });
  }
});

Deno.test("attention with a scale of its own", () =>
  checkMla("MLA", { ...mla([1, 17, 2], [3, 2, 3]), scale: 1.5 }));

Deno.test("attention in a sliding window", async () => {
  await checkMla("MLA", { ...mla([2, 41, 1], [3, 2, 3]), window: 7 });
  const dims = { batch: 1, seqLen: 41, heads: 2, kvHeads: 1, window: 20 };
  await checkAttention("GQA", dims, [3, 3]);
});

Deno.test("attention gives the gradients that are wanted", async () => {
  const dims = mla([1, 9, 2], [3, 2, 3]);
  for (const wanted of [0, 1, 2]) {
    const inputs = mlaInputs(dims).map((x, i) => ({ ...x, gradient: i === wanted }));
    await checkMla(`MLA, gradient ${wanted} only`, dims, { inputs });
  }
});

Deno.test("attention splits its batch where a binding is too small", async () => {
  // 5 sequences of 16 rows of 12 columns are 3 840 bytes.
  const dims = mla([5, 16, 2], [3, 2, 3]);
  await checkMla("MLA in parts", dims, { capabilities: { maxBindingBytes: 3_000 } });
  await assert.rejects(
    checkMla("MLA", dims, { capabilities: { maxBindingBytes: 1_000 } }),
    { name: "RangeError", message: /^Cannot run attention over 16 tokens of 48 bytes/ },
  );
});

Deno.test("attention names shapes that do not fit", () => {
  const dims = { batch: 2, seqLen: 3, heads: 6, kvHeads: 2 };
  const types = (q: number, k: number, v: number, more: Partial<AttentionDims> = {}) =>
    attentionOp.types([matrixType(6, q), matrixType(6, k), matrixType(6, v)], { ...dims, ...more });
  assert.deepEqual(types(24, 8, 10), [matrixType(6, 30), matrixType(6, 6)]);
  assert.throws(() => types(24, 9, 10), /^RangeError: Cannot apply attention to 6x24, 6x9, 6x10/);
  assert.throws(() => types(24, 16, 12, { kvHeads: 4 }), /6 query heads cannot share 4 key heads/);
  assert.throws(() => types(24, 8, 10, { scale: -1 }), /scale is -1/);
  assert.throws(() => types(24, 8, 10, { window: 0 }), /window is 0, not a whole number above 0/);
  assert.throws(() => types(24, 8, 10, { batch: 3 }), /expected q \[9, 6 \* width\]/);
  const inputs = [matrixType(6, 24), matrixType(6, 24), matrixType(6, 5)];
  assert.throws(
    () => mlaAttentionOp.types(inputs, mla([2, 3, 2], [8, 4, 4])),
    /expected q \[6, 2 \* \(8 \+ 4\)\], kv \[6, 2 \* \(8 \+ 4\)\], kPe \[6, 4\]/,
  );
});
