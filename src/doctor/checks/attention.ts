/** Attention, to all keys and to selected ones. */
import { attention } from "../../ops/attention/attention.ts";
import { mlaAttention } from "../../ops/attention/mla_attention.ts";
import { causalMosaAttentionOp } from "../../ops/attention/causal_mosa_attention.ts";
import { mosaAttentionOp } from "../../ops/attention/mosa_attention.ts";
import { sparseMlaAttention } from "../../ops/attention/sparse_mla_attention.ts";
import type { CaseInput, OpCase } from "../cases/check_case.ts";
import type { Random } from "../cases/random.ts";
import { listsOf, masksOf, randomSelection } from "./selections.ts";

const mla = { batch: 2, seqLen: 41, heads: 2, qkNopeHeadDim: 8, qkRopeHeadDim: 4, vHeadDim: 8 };
const mlaShape = `${mla.batch}x${mla.seqLen}, 2 heads of 8+4, 8`;

/** Long enough for GPUs to keep weights for the gradients. */
const long = { ...mla, batch: 1, seqLen: 389, heads: 1 };

/** Inputs of {@linkcode mlaAttention}. */
function mlaInputs(dims = mla): CaseInput[] {
  const rows = dims.batch * dims.seqLen;
  const { heads, qkNopeHeadDim: nope, qkRopeHeadDim: rope, vHeadDim } = dims;
  return [heads * (nope + rope), heads * (nope + vHeadDim), rope].map((cols) => ({ rows, cols }));
}

export function denseAttentionCases(): OpCase[] {
  const gqa = { batch: 2, seqLen: 37, heads: 6, kvHeads: 2 };
  const [q, k, v] = [30, 10, 6].map((cols) => ({ rows: 74, cols }));
  return [
    {
      ...{ name: "attention, grouped queries", shape: "2x37, 6 heads of 5, 3" },
      inputs: [q, k, v],
      apply: ([q, k, v]) => Object.values(attention(q, k, v, gqa)),
    },
    {
      ...{ name: "attention, window", shape: "2x37, 6 heads of 5, 3" },
      inputs: [q, k, v],
      apply: ([q, k, v]) => Object.values(attention(q, k, v, { ...gqa, window: 7 })),
    },
    {
      ...{ name: "mlaAttention", shape: mlaShape, inputs: mlaInputs() },
      apply: ([q, kv, kPe]) => Object.values(mlaAttention(q, kv, kPe, mla)),
    },
    {
      ...{ name: "mlaAttention, long", shape: "1x389, 1 head of 8+4, 8", inputs: mlaInputs(long) },
      apply: ([q, kv, kPe]) => Object.values(mlaAttention(q, kv, kPe, long)),
    },
  ];
}

export function sparseAttentionCases(random: Random): OpCase[] {
  const topk = 9;
  const mosa = { batch: 2, seqLen: 37, heads: 3, headDim: 5, vHeadDim: 3, topk: 11 };
  return [
    ...(["masked", "gathered"] as const).map((form): OpCase => {
      const selection = randomSelection(random, mla, topk);
      return {
        ...{ name: `sparseMlaAttention, ${form}`, shape: `${mlaShape}, ${topk} keys` },
        inputs: [...mlaInputs(), listsOf(selection, topk), masksOf(selection, mla.seqLen)],
        apply([q, kv, kPe, indices, mask]) {
          const sparse = { ...mla, topk, form };
          const { o, lse } = sparseMlaAttention(q, kv, kPe, indices, mask, sparse);
          return [o, lse];
        },
      };
    }),
    {
      ...{ name: "mosaAttention", shape: "2x37, 3 heads of 5, 3, 11 tokens" },
      inputs: [15, 15, 9, 3].map((cols) => ({ rows: 74, cols })),
      apply: (inputs) => inputs[0].backend.apply(mosaAttentionOp, inputs, mosa),
    },
    {
      ...{ name: "causalMosaAttention", shape: "2x37, 3 heads of 5, 3, 11 tokens" },
      inputs: [15, 15, 9, 3].map((cols) => ({ rows: 74, cols })),
      apply: (inputs) => inputs[0].backend.apply(causalMosaAttentionOp, inputs, mosa),
    },
  ];
}
