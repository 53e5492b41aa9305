/**
 * Causal attention, flash style: scores are streamed and never stored, the forward pass saves the
 * natural logarithm of each row's sum of exponentials, and the backward pass recomputes the
 * weights from it (Dao et al., FlashAttention-2, arXiv:2307.08691): once for some heads at a time,
 * kept for all gradients (`weights.ts`), or, by the kernels here, in a pass for the
 * queries and one for keys and values. Sums have a fixed order and there are no atomics.
 *
 * Matrices have one row per token. Inputs come in this order: `q [rows, heads * (nope + rope)]`;
 * keys `[rows, kvHeads * nope]` and values `[rows, kvHeads * value]`, or, packed, both in one
 * matrix `[rows, kvHeads * (nope + value)]`; with `rope > 0` the shared key `[rows, rope]`. With a
 * selection the inputs of a pass end with its matrices: `mask [rows, ceil(seqLen / 32)]` and its
 * `blocks`, or `indices [rows, topk]`, or, for the gradients of keys and values, `starts` and
 * `queries` (see `src/kernels/select/lists.ts`).
 *
 * @module
 */
import {
  type AttentionSpec,
  inputNames,
  type Operands,
  type Pass,
  type PassCode,
  PASSES,
  passKernel,
  selectionNames,
} from "./pass.ts";
import { gatherCode } from "./lists.ts";
import { rowCode } from "./rows.ts";
import { tileCode } from "./tiles.ts";
import type { AttentionPlan } from "./tuning.ts";
import { bytesOf, foldGrid, isVec4, type Kernel, makeKernel } from "../wgsl/kernel.ts";
import { type Layout, layoutUniforms } from "../wgsl/operand.ts";

export type { Extent, HeadDims } from "./heads.ts";
export type { AttentionSpec, SelectionForm, SelectionSpec } from "./pass.ts";
export { type AttentionPlan, planAttention } from "./tuning.ts";

function generate(
  pass: Pass,
  spec: AttentionSpec,
  plan: AttentionPlan,
  aligned: boolean,
  keepsScores = false,
): PassCode {
  if ("gather" in plan) return gatherCode(pass, spec, plan.gather, aligned, keepsScores);
  return "tile" in plan
    ? tileCode(pass, spec, plan.tile, aligned)
    : rowCode(pass, spec, plan.rows, aligned);
}

function operands(
  read: readonly (readonly [string, Layout])[],
  written: readonly (readonly [string, Layout])[],
): Operands {
  return Object.fromEntries([
    ...read.map(([name, layout]) => [name, { layout, write: false }]),
    ...written.map(([name, layout]) => [name, { layout, write: true }]),
  ]);
}

function named(names: readonly string[], layouts: readonly Layout[]): [string, Layout][] {
  if (names.length !== layouts.length) {
    throw new RangeError(
      `Cannot run attention on ${layouts.length} matrices: expected ${names.join(", ")}`,
    );
  }
  return names.map((name, i) => [name, layouts[i]]);
}

/** What the backward passes read besides the inputs. */
export interface Saved {
  readonly gradO: Layout;
  readonly lse: Layout;
  readonly delta: Layout;
}

function savedNames({ gradO, lse, delta }: Saved): [string, Layout][] {
  return [["grad_o", gradO], ["lse", lse], ["delta", delta]];
}

/**
 * Outputs of attention: `o [rows, heads * value]` and `lse [rows, heads]`, and from a `gather` plan,
 * if wanted, the `scores [rows, heads * topk]` of {@linkcode gatherCode}.
 * Bindings: the inputs, `o`, `lse`, `scores` if they are wanted.
 */
export function attentionForward(
  spec: AttentionSpec,
  plan: AttentionPlan,
  inputs: readonly Layout[],
  o: Layout,
  lse: Layout,
  scores?: Layout,
): Kernel {
  const read = named(
    [...inputNames(spec.dims), ...selectionNames(PASSES.forward, spec.selection)],
    inputs,
  );
  return passKernel(
    PASSES.forward,
    spec,
    operands(read, [["o", o], ["lse", lse], ...scores ? [["scores", scores] as const] : []]),
    new Set(),
    (aligned) => generate(PASSES.forward, spec, plan, aligned, scores !== undefined),
  );
}

/**
 * Gradient of the queries. `delta [rows, heads]` is from {@linkcode attentionDelta}.
 * Bindings: the inputs, `gradO`, `lse`, `delta`, `gradQ`.
 */
export function attentionGradQ(
  spec: AttentionSpec,
  plan: AttentionPlan,
  inputs: readonly Layout[],
  saved: Saved,
  gradQ: Layout,
  accumulate = false,
): Kernel {
  const read = [
    ...named(
      [...inputNames(spec.dims), ...selectionNames(PASSES.gradQ, spec.selection)],
      inputs,
    ),
    ...savedNames(saved),
  ];
  return passKernel(
    PASSES.gradQ,
    spec,
    operands(read, [["grad_q", gradQ]]),
    new Set(accumulate ? ["grad_q"] : []),
    (aligned) => generate(PASSES.gradQ, spec, plan, aligned),
  );
}

/**
 * Gradients of keys and values, in the matrices that the inputs have: two, or one if packed; then
 * the shares of the key heads in the gradient of the shared key, `[rows, kvHeads * rope]`, for
 * {@linkcode sumHeads}. `accumulate` tells for each of these matrices whether it is added to.
 * Bindings: the inputs, `gradO`, `lse`, `delta`, the gradients.
 */
export function attentionGradKv(
  spec: AttentionSpec,
  plan: AttentionPlan,
  inputs: readonly Layout[],
  saved: Saved,
  grads: readonly Layout[],
  accumulate: readonly boolean[] = [],
): Kernel {
  const read = [
    ...named(
      [...inputNames(spec.dims), ...selectionNames(PASSES.gradKv, spec.selection)],
      inputs,
    ),
    ...savedNames(saved),
  ];
  const names = inputNames(spec.dims).slice(1).map((name) => `grad_${name}`);
  return passKernel(
    PASSES.gradKv,
    spec,
    operands(read, named(names, grads)),
    new Set(names.filter((_, i) => accumulate[i])),
    (aligned) => generate(PASSES.gradKv, spec, plan, aligned),
  );
}

/**
 * `delta[r, h]`, the product of head h of `o` with its gradient, which the softmax takes off
 * every weight's gradient. Bindings: `o`, `gradO`, `delta`.
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
  const type = unit === 4 ? "read vec4f" : "read";
  return makeKernel({
    name: "attention_delta",
    shape: `${rows}x${heads}`,
    buffers: { o: type, grad_o: type, delta: "read_write" },
    uniforms: { count: rows * heads, ...layoutUniforms({ o, grad_o: gradO, delta }) },
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
    bytes: bytesOf(o, gradO, delta),
  });
}

/**
 * Sum over key heads: `out [rows, width]` of `shares [rows, heads * width]`, added to what is
 * there if `accumulate`. Bindings: `shares`, `out`.
 */
export function sumHeads(shares: Layout, out: Layout, accumulate = false): Kernel {
  const { rows, cols } = out;
  const heads = shares.cols / cols;
  if (!Number.isInteger(heads) || shares.rows !== rows) {
    throw new RangeError(
      `Cannot sum heads of ${shares.rows}x${shares.cols} into ${rows}x${cols}: sizes don't divide`,
    );
  }
  return makeKernel({
    name: "sum_heads",
    shape: `${rows}x${heads}x${cols}`,
    buffers: { shares: "read", result: "read_write" },
    uniforms: { rows, cols, heads, ...layoutUniforms({ shares, result: out }) },
    workgroup: 64,
    grid: foldGrid(Math.ceil(rows * cols / 64)),
    iterations: heads,
    body: `
let i = (wid.x + wid.y * groups.x) * 64u + lane;
let row = i / u.cols;
let col = i % u.cols;
if (row >= u.rows) { return; }
let at = u.result_offset + row * u.result_stride + col;
var sum = ${accumulate ? "result[at]" : "0.0"};
for (var h = 0u; h < u.heads; h++) {
  sum += shares[u.shares_offset + row * u.shares_stride + h * u.cols + col];
}
result[at] = sum;`,
    flops: rows * cols * heads,
    bytes: bytesOf(shares, out),
  });
}
