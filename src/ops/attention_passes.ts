/**
 * What {@linkcode attention} and {@linkcode mlaAttention} have in common: recording the kernels
 * of both passes, batch by batch where matrices are larger than a binding.
 *
 * @module
 */
import { addInto } from "../kernels/add.ts";
import {
  attentionDelta,
  attentionForward,
  attentionGradKv,
  attentionGradQ,
  type AttentionPlan,
  type AttentionSpec,
  planAttention,
  type Saved,
  sumHeads,
} from "../kernels/attention.ts";
import type { Kernel } from "../kernels/kernel.ts";
import { chosenMatrices, recordSelection, type SelectedKeys } from "./attention_selection.ts";
import type { GradientRecorder, Matrix, Recorder } from "./op.ts";

export { twinHeads, twinOfAttention } from "./attention_twin.ts";

/**
 * Records the kernels of `[o, lse]`. Inputs as in `src/kernels/attention.ts`, without the matrices
 * of a selection.
 */
export function recordAttention(
  r: Recorder,
  whole: AttentionSpec,
  inputs: readonly Matrix[],
  outputs: readonly Matrix[],
  selected?: SelectedKeys,
): void {
  const chosen = chosenMatrices("forward", whole, selected);
  byBatch(r, whole, [...inputs, ...outputs, ...chosen], (spec, parts) => {
    const [o, lse, ...chosen] = parts.slice(inputs.length);
    const ins = [
      ...parts.slice(0, inputs.length),
      ...recordSelection(r, "forward", spec, chosen),
    ];
    const plan = planAttention("forward", spec, r.capabilities);
    r.dispatch(attentionForward(spec, plan, ins, o, lse), ...ins, o, lse);
  });
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
  const given = [...inputs, gradO, lse, delta];
  const run = (
    pass: "gradQ" | "gradKv",
    into: readonly Matrix[],
    make: (
      spec: AttentionSpec,
      plan: AttentionPlan,
      ins: readonly Matrix[],
      saved: Saved,
      into: readonly Matrix[],
    ) => Kernel,
  ) => {
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
  if (wantsQ) {
    const { into, accumulate } = target(r, 0, inputs[0]);
    run(
      "gradQ",
      [into],
      (spec, plan, ins, saved, [gradQ]) =>
        attentionGradQ(spec, plan, ins, saved, gradQ, accumulate),
    );
  }
  if (!wantsKv) return;
  const targets = inputs.slice(1).map((m, i) => target(r, i + 1, m));
  const shared = dims.rope > 0 ? targets.pop()! : null;
  const shares = shared && r.temporary(o.rows, dims.kvHeads * dims.rope);
  const into = [...targets.map((t) => t.into), ...shares ? [shares] : []];
  const adds = targets.map((t) => t.accumulate);
  run(
    "gradKv",
    into,
    (spec, plan, ins, saved, grads) => attentionGradKv(spec, plan, ins, saved, grads, adds),
  );
  if (shared && shares) {
    r.byRows([shares, shared.into], (shares, into) => {
      r.dispatch(sumHeads(shares, into, shared.accumulate), shares, into);
    });
  }
}

/** Where the gradient of an input goes. The kernels add in place or not at all. */
function target(
  r: GradientRecorder,
  input: number,
  { rows, cols }: Matrix,
): { into: Matrix; accumulate: boolean } {
  if (!r.wants(input)) return { into: r.temporary(rows, cols), accumulate: false };
  const { into, add } = r.sink(input);
  if (add !== null && add !== into) {
    r.byRows([add, into], (add, into) => {
      r.dispatch(addInto({ a: add, into, add: "none" }), add, into);
    });
  }
  return { into, accumulate: add !== null };
}

/** Elements between possible starts of a bound window (256 bytes). */
const WINDOW = 64;

/** Calls `body` with all sequences, or with as many at a time as fit into one binding each. */
export function byBatch<Spec extends Pick<AttentionSpec, "extent">>(
  { capabilities }: Recorder,
  spec: Spec,
  matrices: readonly Matrix[],
  body: (spec: Spec, parts: Matrix[]) => void,
): void {
  const { batch, seqLen } = spec.extent;
  const limit = capabilities.maxBindingBytes / 4;
  const whole = matrices.every((m) => m.offset + (m.rows - 1) * m.stride + m.cols <= limit);
  const widest = Math.max(...matrices.map((m) => m.stride));
  const most = whole ? batch : Math.floor((limit - WINDOW) / (widest * seqLen));
  if (most < 1) {
    throw new RangeError(
      `Cannot run attention over ${seqLen} tokens of ${widest * 4} bytes: a binding holds ` +
        `${capabilities.maxBindingBytes} bytes; lower seqLen or the model's width`,
    );
  }
  for (let start = 0; start < batch; start += most) {
    const count = Math.min(most, batch - start);
    const parts = matrices.map((m) => rowsFrom(m, start * seqLen, count * seqLen));
    body({ ...spec, extent: { batch: count, seqLen } }, parts);
  }
}

/** Rows `start … start + rows` of a matrix, with the window moved along. */
function rowsFrom(m: Matrix, start: number, rows: number): Matrix {
  const first = m.base + m.offset + start * m.stride;
  const base = start === 0 ? m.base : Math.floor(first / WINDOW) * WINDOW;
  return { ...m, base, offset: first - base, rows };
}

/** Throws unless the attributes describe heads and sequences. */
export function requireHeads(op: string, spec: AttentionSpec): void {
  const { dims, extent, scale, window, selection } = spec;
  const { heads, kvHeads, nope, rope, value } = dims;
  const counts = { heads, kvHeads, nope, value, batch: extent.batch, seqLen: extent.seqLen };
  const most = { window: window ?? 1, topk: selection?.topk ?? 1 };
  for (const [name, count] of Object.entries({ ...counts, rope: rope + 1, ...most })) {
    if (!Number.isInteger(count) || count < 1) {
      throw new RangeError(`Cannot apply ${op}: ${name} is ${count}, not a whole number above 0`);
    }
  }
  if (heads % kvHeads !== 0) {
    throw new RangeError(
      `Cannot apply ${op}: ${heads} query heads cannot share ${kvHeads} key heads evenly`,
    );
  }
  if (!(scale > 0 && Number.isFinite(scale))) {
    throw new RangeError(`Cannot apply ${op}: scale is ${scale}, not a number above 0`);
  }
}
