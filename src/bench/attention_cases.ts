/**
 * The kernels of attention that a training step takes, as cases of `kernels.ts`.
 *
 * @module
 */
import {
  attentionPass,
  type AttentionSpec,
  planAttention,
} from "../kernels/attention/attention.ts";
import type { PassOperands } from "../kernels/attention/pass.ts";
import type { Kernel } from "../kernels/wgsl/kernel.ts";
import type { Layout } from "../kernels/wgsl/operand.ts";
import { BLOCK, blockRows } from "../kernels/attention/blocks.ts";
import { attentionSum, SUMS } from "../kernels/attention/sums.ts";
import { KEPT_TILE, planKept } from "../kernels/attention/tuning.ts";
import { attentionWeights } from "../kernels/attention/weights.ts";
import type { Capabilities } from "../kernels/wgsl/device.ts";
import { type Case, randomValues, single, type Sizes } from "./kernel_case.ts";
import { layout } from "./run_kernels.ts";

/** The forward pass, and the backward pass as it runs on this device. */
export function attentionCases(
  { batch, seqLen, heads, nope, rope, value }: Sizes,
  capabilities: Capabilities,
): (() => Case)[] {
  const spec: AttentionSpec = {
    dims: { heads, kvHeads: heads, nope, rope, value, packed: true },
    extent: { batch, seqLen },
    scale: (nope + rope) ** -0.5,
  };
  const of = (cols: number) => layout(batch * seqLen, cols);
  const [q, kv, k_pe] = [of(heads * (nope + rope)), of(heads * (nope + value)), of(rope)];
  const [grad_o, lse, delta, shares] = [of(heads * value), of(heads), of(heads), of(heads * rope)];
  const inputs = { q, kv, k_pe };
  const read = { ...inputs, grad_o, lse, delta };
  const to = (into: Layout) => ({ into, add: null });
  // About what random scores have, so that no weight is infinite.
  const valuesOf = (m: Layout) =>
    randomValues(m).map((x, i) => m === lse ? Math.log(1 + Math.floor(i / heads) % seqLen) : x);
  const caseOf = (kernel: Kernel) => single(kernel, kernel.operands.map(valuesOf));
  const pass = (name: "forward" | "gradQ" | "gradKv", operands: PassOperands) => () =>
    caseOf(attentionPass(name, spec, planAttention(name, spec, capabilities), operands));
  const forward = pass("forward", {
    read: inputs,
    written: { o: to(of(grad_o.cols)), lse: to(lse) },
  });
  const gradKv = { grad_kv: to(of(kv.cols)), grad_k_pe: to(shares) };
  const gradQ = { grad_q: to(of(q.cols)) };
  const parts = planKept(spec, capabilities);
  if (!parts) {
    return [
      forward,
      pass("gradQ", { read, written: gradQ }),
      pass("gradKv", { read, written: gradKv }),
    ];
  }
  const [units] = parts;
  const kept = () => layout(units.count * blockRows(spec.extent), BLOCK);
  const sums = {
    gradV: { read: { grad_o }, written: { grad_kv: gradKv.grad_kv } },
    gradK: { read: { q }, written: gradKv },
    gradQ: { read: { kv, k_pe }, written: gradQ },
  };
  return [
    forward,
    () => {
      const operands = { read, weights: kept(), gradients: kept() };
      return caseOf(attentionWeights(spec, KEPT_TILE, units, operands));
    },
    ...(["gradV", "gradK", "gradQ"] as const).map((name) => () =>
      caseOf(attentionSum(SUMS[name], spec, units, { weights: kept(), ...sums[name] }))
    ),
  ];
}
