/**
 * The kernels of attention that a training step takes, as cases of `kernels.ts`.
 *
 * @module
 */
import {
  attentionForward,
  attentionGradKv,
  attentionGradQ,
  type AttentionSpec,
  planAttention,
} from "../kernels/attention/attention.ts";
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
  const [grad_o, perHead, shares] = [of(heads * value), of(heads), of(heads * rope)];
  const inputs = [q, kv, k_pe];
  const saved = { gradO: grad_o, lse: perHead, delta: perHead };
  const plan = (pass: "forward" | "gradQ" | "gradKv") => planAttention(pass, spec, capabilities);
  // About what random scores have, so that no weight is infinite.
  const lse = () =>
    randomValues(perHead).map((_, i) => Math.log(1 + Math.floor(i / heads) % seqLen));
  const read =
    () => [...inputs.map(randomValues), randomValues(grad_o), lse(), randomValues(perHead)];
  const forward = () => {
    const kernel = attentionForward(spec, plan("forward"), inputs, grad_o, perHead);
    return single(kernel, [...inputs.map(randomValues), randomValues(grad_o), lse()]);
  };
  const parts = planKept(spec, capabilities);
  if (!parts) {
    return [
      forward,
      () => {
        const kernel = attentionGradQ(spec, plan("gradQ"), inputs, saved, q);
        return single(kernel, [...read(), randomValues(q)]);
      },
      () => {
        const kernel = attentionGradKv(spec, plan("gradKv"), inputs, saved, [kv, shares]);
        return single(kernel, [...read(), randomValues(kv), randomValues(shares)]);
      },
    ];
  }
  const [units] = parts;
  const kept = layout(units.count * blockRows(spec.extent), BLOCK);
  const matrices = {
    gradV: { read: { grad_o }, written: { grad_kv: kv } },
    gradK: { read: { q }, written: { grad_kv: kv, grad_k_pe: shares } },
    gradQ: { read: { kv, k_pe }, written: { grad_q: q } },
  };
  const sums = (["gradV", "gradK", "gradQ"] as const).map((name) => () => {
    const operands = { weights: kept, ...matrices[name], accumulate: new Set<string>() };
    const { read, written } = operands;
    const all = [kept, ...Object.values(read), ...Object.values(written)];
    return single(attentionSum(SUMS[name], spec, units, operands), all.map(randomValues));
  });
  return [
    forward,
    () => {
      const operands = { inputs, ...saved, weights: kept, gradients: kept };
      const kernel = attentionWeights(spec, KEPT_TILE, units, operands);
      return single(kernel, [...read(), randomValues(kept), randomValues(kept)]);
    },
    ...sums,
  ];
}
