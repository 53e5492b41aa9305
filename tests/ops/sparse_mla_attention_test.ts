/** Attention to selected keys, masked and gathered, against its twin and against dense attention. */
import assert from "node:assert/strict";
import { mlaAttention, type MlaAttentionDims } from "../../src/ops/mla_attention.ts";
import { matrixType } from "../../src/ops/op.ts";
import {
  sparseMlaAttention,
  type SparseMlaAttentionDims,
  sparseMlaAttentionOp,
} from "../../src/ops/sparse_mla_attention.ts";
import { type CheckInput, checkOp, type CheckOptions, randomNormal } from "../check_op.ts";

const FORMS = ["masked", "gathered"] as const;

/** For each query min(topk, t + 1) of its keys, or what `choose` makes of them. */
function select(
  { batch, seqLen, topk }: SparseMlaAttentionDims,
  choose = (keys: number[], _row: number) => keys,
): [CheckInput, CheckInput] {
  const rows = batch * seqLen;
  const words = Math.ceil(seqLen / 32);
  const indices = new Int32Array(rows * topk).fill(-1);
  const mask = new Int32Array(rows * words);
  for (let row = 0; row < rows; row++) {
    const keys = Array.from({ length: row % seqLen + 1 }, (_, s) => s);
    while (keys.length > topk) keys.splice(Math.floor(Math.random() * keys.length), 1);
    choose(keys, row).forEach((key, i) => {
      indices[row * topk + i] = key;
      mask[row * words + (key >> 5)] |= 1 << (key & 31);
    });
  }
  return [
    { rows, cols: topk, dtype: "i32", values: indices },
    { rows, cols: words, dtype: "i32", values: mask },
  ];
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

function check(
  name: string,
  dims: SparseMlaAttentionDims,
  options: Partial<CheckOptions> = {},
): Promise<void> {
  return checkOp(name, {
    inputs: [...denseInputs(dims), ...select(dims)],
    apply: ([q, kv, kPe, indices, mask]) =>
      Object.values(sparseMlaAttention(q, kv, kPe, indices, mask, dims)),
    ...options,
  });
}

for (const software of [true, false]) {
  const capabilities = { software };
  const kind = software ? "software" : "GPU";
  for (const form of FORMS) {
    Deno.test(`sparseMlaAttention, ${form}, kernels for ${kind}`, async () => {
      await check(`${form}`, { ...sparse([2, 75, 2, 9], [8, 4, 8]), form }, { capabilities });
      const odd = { ...sparse([1, 37, 3, 5], [3, 2, 5]), form };
      await check(`${form}, odd widths`, odd, { capabilities });
    });
  }
}
