/**
 * Recording the backward pass of {@linkcode attention} and {@linkcode mlaAttention}: by passes that
 * compute the weights of attention again, or by products with weights that are kept.
 *
 * @module
 */
import { addInto } from "../../kernels/token/add.ts";
import {
  attentionDelta,
  attentionGradKv,
  attentionGradQ,
  type AttentionPlan,
  type AttentionSpec,
  planAttention,
  type Saved,
  sumHeads,
} from "../../kernels/attention/attention.ts";
import { buffersOf } from "../../kernels/attention/heads.ts";
import { BLOCK, blockRows } from "../../kernels/attention/blocks.ts";
import { inputNames } from "../../kernels/attention/pass.ts";
import { attentionSum, SUMS } from "../../kernels/attention/sums.ts";
import { KEPT_TILE, planKept } from "../../kernels/attention/tuning.ts";
import { attentionWeights } from "../../kernels/attention/weights.ts";
import type { Kernel } from "../../kernels/wgsl/kernel.ts";
import { byBatch } from "./passes.ts";
import { chosenMatrices, recordSelection, type SelectedKeys } from "./selection.ts";
import type { GradientRecorder, Matrix } from "../op.ts";

/** Where a gradient goes. */
interface Target {
  readonly into: Matrix;
  /** Whether it is added to what is there. */
  readonly accumulate: boolean;
}

/** What the kernels of a backward pass read and write. */
interface Backward {
  readonly r: GradientRecorder;
  readonly whole: AttentionSpec;
  /** As in `src/kernels/attention/attention.ts`, without the matrices of a selection. */
  readonly inputs: readonly Matrix[];
  readonly selected: SelectedKeys | undefined;
  readonly gradO: Matrix;
  readonly lse: Matrix;
  readonly delta: Matrix;
  /** For the queries, or null if nobody wants it. */
  readonly q: Target | null;
  /** For the other inputs, but for a shared key its heads' shares; empty if nobody wants them. */
  readonly kv: readonly Target[];
}

/** Records the kernels of the gradients of the wanted inputs. */
export function recordAttentionGradient(
  r: GradientRecorder,
  whole: AttentionSpec,
  inputs: readonly Matrix[],
  [o, lse]: readonly Matrix[],
  selected?: SelectedKeys,
): void {
  const { dims } = whole;
  const wantsQ = r.wants(0);
  const wantsKv = inputs.some((_, i) => i > 0 && r.wants(i));
  if (!wantsQ && !wantsKv) return;
  const gradO = r.gradient(0);
  const delta = r.temporary(o.rows, dims.heads);
  byBatch(r, whole, [o, gradO, delta], (spec, [o, gradO, delta]) => {
    r.dispatch(attentionDelta(spec, o, gradO, delta), o, gradO, delta);
  });
  const q = wantsQ ? target(r, 0, inputs[0]) : null;
  const kv = wantsKv ? inputs.slice(1).map((m, i) => target(r, i + 1, m)) : [];
  const shared = dims.rope > 0 ? kv.pop() : undefined;
  if (shared) {
    kv.push({ into: r.temporary(o.rows, dims.kvHeads * dims.rope), accumulate: false });
  }
  const backward = { r, whole, inputs, selected, gradO, lse, delta, q, kv };
  if (!recordKept(backward)) recordPasses(backward);
  if (shared) {
    r.byRows([kv[kv.length - 1].into, shared.into], (shares, into) => {
      r.dispatch(sumHeads(shares, into, shared.accumulate), shares, into);
    });
  }
}

/** Where the gradient of an input goes. The kernels add in place or not at all. */
function target(r: GradientRecorder, input: number, { rows, cols }: Matrix): Target {
  if (!r.wants(input)) return { into: r.temporary(rows, cols), accumulate: false };
  const { into, add } = r.sink(input);
  if (add !== null && add !== into) {
    r.byRows([add, into], (add, into) => {
      r.dispatch(addInto({ a: add, into, add: null }), add, into);
    });
  }
  return { into, accumulate: add !== null };
}

/** Records a pass for the queries and one for keys and values. */
function recordPasses({ r, whole, inputs, selected, gradO, lse, delta, q, kv }: Backward): void {
  const given = [...inputs, gradO, lse, delta];
  const run = (
    pass: "gradQ" | "gradKv",
    targets: readonly Target[],
    make: (
      spec: AttentionSpec,
      plan: AttentionPlan,
      ins: readonly Matrix[],
      saved: Saved,
      into: readonly Matrix[],
    ) => Kernel,
  ) => {
    const into = targets.map((t) => t.into);
    const chosen = chosenMatrices(pass, whole, selected);
    byBatch(r, whole, [...given, ...into, ...chosen], (spec, parts) => {
      const [gradO, lse, delta] = parts.slice(inputs.length);
      const grads = parts.slice(given.length, given.length + into.length);
      const ins = [
        ...parts.slice(0, inputs.length),
        ...recordSelection(r, pass, spec, parts.slice(given.length + into.length)),
      ];
      const plan = planAttention(pass, spec, r.capabilities);
      const kernel = make(spec, plan, ins, { gradO, lse, delta }, grads);
      r.dispatch(kernel, ...ins, gradO, lse, delta, ...grads);
    });
  };
  if (q) {
    run(
      "gradQ",
      [q],
      (spec, plan, ins, saved, [into]) =>
        attentionGradQ(spec, plan, ins, saved, into, q.accumulate),
    );
  }
  if (kv.length > 0) {
    const adds = kv.map((t) => t.accumulate);
    run(
      "gradKv",
      kv,
      (spec, plan, ins, saved, into) => attentionGradKv(spec, plan, ins, saved, into, adds),
    );
  }
}

/** Records products with kept weights, if that is how this runs best. */
function recordKept(
  { r, whole, inputs, selected, gradO, lse, delta, q, kv }: Backward,
): boolean {
  if (!q || kv.length === 0 || planKept(whole, r.capabilities) === null) return false;
  const { dims } = whole;
  const names = inputNames(dims);
  const targets = [q, ...kv];
  const accumulate = new Set(
    names.filter((_, i) => targets[i].accumulate).map((name) => `grad_${name}`),
  );
  const masks = selected ? [selected.mask] : [];
  const matrices = [...inputs, gradO, lse, delta, ...targets.map((t) => t.into), ...masks];
  byBatch(r, whole, matrices, (spec, parts) => {
    const ins = parts.slice(0, inputs.length);
    const [gradO, lse, delta, ...rest] = parts.slice(inputs.length);
    const mask = rest[targets.length];
    const matrix: Record<string, Matrix> = { grad_o: gradO };
    names.forEach((name, i) => {
      matrix[name] = ins[i];
      matrix[`grad_${name}`] = rest[i];
    });
    // Not null: fewer sequences need no more room.
    const heads = planKept(spec, r.capabilities)!;
    const rows = heads[0].count * dims.heads / dims.kvHeads * blockRows(spec.extent);
    const weights = r.temporary(rows, BLOCK);
    const gradients = r.temporary(rows, BLOCK);
    for (const units of heads) {
      const operands = { inputs: ins, gradO, lse, delta, mask, weights, gradients };
      const chosen = mask ? [mask] : [];
      r.dispatch(
        attentionWeights(spec, KEPT_TILE, units, operands),
        ...[...ins, gradO, lse, delta, ...chosen, weights, gradients],
      );
      for (const sum of Object.values(SUMS)) {
        const kept = sum === SUMS.gradV ? weights : gradients;
        const named = (tensor: string) =>
          Object.fromEntries(buffersOf(tensor, dims).map((name) => [name, matrix[name]]));
        const [read, written] = [named(sum.of), named(sum.into)];
        r.dispatch(
          attentionSum(sum, spec, units, { weights: kept, read, written, accumulate }),
          ...[kept, ...Object.values(read), ...Object.values(written)],
        );
      }
    }
  });
  return true;
}
