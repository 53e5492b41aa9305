/**
 * Causal attention, flash style: scores are streamed and never stored, the forward pass saves the
 * natural logarithm of each row's sum of exponentials, and the backward pass recomputes the
 * weights from it (Dao et al., FlashAttention-2, arXiv:2307.08691): once for some heads at a time,
 * kept for all gradients (`weights.ts`), or, by the kernels here, in a pass for the
 * queries and one for keys and values. Sums have a fixed order and there are no atomics.
 *
 * Matrices have one row per token, and names. Inputs are `q [rows, heads * (nope + rope)]`; keys
 * `k [rows, kvHeads * nope]` and values `v [rows, kvHeads * value]`, or, packed, both in one matrix
 * `kv [rows, kvHeads * (nope + value)]`; with `rope > 0` the shared key `k_pe [rows, rope]`. Of a
 * selection a pass reads `mask [rows, ceil(seqLen / 32)]` and its `blocks`, or `indices [rows,
 * topk]`, or, for the gradients of keys and values, `starts` and `queries` (see
 * `src/kernels/select/lists.ts`).
 *
 * @module
 */
import {
  type AttentionSpec,
  type Pass,
  type PassCode,
  PASSES,
  passKernel,
  type PassOperands,
} from "./pass.ts";
import { gatherCode } from "./lists.ts";
import { rowCode } from "./rows.ts";
import { tileCode } from "./tiles.ts";
import type { AttentionPlan } from "./tuning.ts";
import { foldGrid, isVec4, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { type Layout, layoutUniforms, read, update, write } from "../wgsl/operand.ts";
import type { Sink } from "../wgsl/sink.ts";

export type { Extent, HeadDims } from "./heads.ts";
export type { AttentionSpec, Named, SelectionForm, SelectionSpec } from "./pass.ts";
export { type AttentionPlan, planAttention } from "./tuning.ts";

function generate(
  pass: Pass,
  spec: AttentionSpec,
  plan: AttentionPlan,
  aligned: boolean,
  keepsScores: boolean,
): PassCode {
  if ("gather" in plan) return gatherCode(pass, spec, plan.gather, aligned, keepsScores);
  return "tile" in plan
    ? tileCode(pass, spec, plan.tile, aligned)
    : rowCode(pass, spec, plan.rows, aligned);
}

/**
 * A pass of attention. `forward` writes `o [rows, heads * value]`, `lse [rows, heads]` and, from a
 * `gather` plan if wanted, the `scores [rows, heads * topk]` of {@linkcode gatherCode}; `gradQ` writes
 * `grad_q`. `gradKv` writes the gradients of keys and values in the matrices that the inputs have,
 * and with `rope > 0` the shares of the key heads in that of the shared key,
 * `grad_k_pe [rows, kvHeads * rope]`, for {@linkcode sumHeads}.
 */
export function attentionPass(
  name: keyof typeof PASSES,
  spec: AttentionSpec,
  plan: AttentionPlan,
  operands: PassOperands,
): Kernel {
  const pass = PASSES[name];
  const keepsScores = "scores" in operands.written;
  return passKernel(
    pass,
    spec,
    operands,
    (aligned) => generate(pass, spec, plan, aligned, keepsScores),
  );
}

/**
 * `delta[r, h]`, the product of head h of `o` with its gradient, which the softmax takes off
 * every weight's gradient.
 */
export function attentionDelta(
  { dims, extent: { batch, seqLen } }: AttentionSpec,
  o: Layout,
  gradO: Layout,
  delta: Layout,
): Kernel {
  const rows = batch * seqLen;
  const { heads, value } = dims;
  const unit = value % 4 === 0 && isVec4(o) && isVec4(gradO) ? 4 : 1;
  const type = unit === 4 ? "vec4f" : "f32";
  const operands = { o: read(o, type), grad_o: read(gradO, type), delta: write(delta) };
  return makeKernel({
    name: "attention_delta",
    shape: `${rows}x${heads}`,
    operands,
    uniforms: { count: rows * heads, ...layoutUniforms(operands) },
    workgroup: 64,
    grid: foldGrid(Math.ceil(rows * heads / 64)),
    iterations: value / unit,
    body: `
let i = (wid.x + wid.y * groups.x) * 64u + lane;
if (i >= u.count) { return; }
let row = i / ${heads}u;
let head = i % ${heads}u;
let at = (u.o_offset + row * u.o_stride) / ${unit}u + head * ${value / unit}u;
let grad_at = (u.grad_o_offset + row * u.grad_o_stride) / ${unit}u + head * ${value / unit}u;
var sum = 0.0;
for (var c = 0u; c < ${value / unit}u; c++) {
  sum += ${unit === 4 ? "dot(o[at + c], grad_o[grad_at + c])" : "o[at + c] * grad_o[grad_at + c]"};
}
delta[u.delta_offset + row * u.delta_stride + head] = sum;`,
    flops: 2 * rows * heads * value,
  });
}

/**
 * Sum over key heads: `out [rows, width]` of `shares [rows, heads * width]`, added to what is
 * there where that is what the sink says.
 */
export function sumHeads(shares: Layout, { into, add }: Sink): Kernel {
  const { rows, cols } = into;
  const heads = shares.cols / cols;
  if (!Number.isInteger(heads) || shares.rows !== rows) {
    throw new RangeError(
      `Cannot sum heads of ${shares.rows}x${shares.cols} into ${rows}x${cols}: sizes don't divide`,
    );
  }
  const operands = { shares: read(shares), result: (add ? update : write)(into) };
  return makeKernel({
    name: "sum_heads",
    shape: `${rows}x${heads}x${cols}`,
    operands,
    uniforms: { rows, cols, heads, ...layoutUniforms(operands) },
    workgroup: 64,
    grid: foldGrid(Math.ceil(rows * cols / 64)),
    iterations: heads,
    body: `
let i = (wid.x + wid.y * groups.x) * 64u + lane;
let row = i / u.cols;
let col = i % u.cols;
if (row >= u.rows) { return; }
let at = u.result_offset + row * u.result_stride + col;
var sum = ${add ? "result[at]" : "0.0"};
for (var h = 0u; h < u.heads; h++) {
  sum += shares[u.shares_offset + row * u.shares_stride + h * u.cols + col];
}
result[at] = sum;`,
    flops: rows * cols * heads,
  });
}
