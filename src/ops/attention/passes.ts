/**
 * What {@linkcode attention} and {@linkcode mlaAttention} have in common: recording the kernels
 * of the forward pass, batch by batch where matrices are larger than a binding.
 *
 * @module
 */
import {
  attentionPass,
  type AttentionSpec,
  type Named,
  planAttention,
} from "../../kernels/attention/attention.ts";
import { mapValues } from "../../kernels/wgsl/operand.ts";
import { recordSelection, type SelectedKeys, selectedRows } from "./selection.ts";
import { recordListedScores } from "./listed_scores.ts";
import type { Matrix, Recorder } from "../op.ts";

export { twinHeads, twinOfAttention } from "./twin.ts";

/** What attention leaves: its output, and the logarithm of each row's sum of exponentials. */
export type AttentionOutputs = { readonly o: Matrix; readonly lse: Matrix };

/**
 * Records the kernels of `[o, lse]`. Inputs as in `src/kernels/attention/attention.ts`, without the matrices
 * of a selection.
 */
export function recordAttention(
  r: Recorder,
  whole: AttentionSpec,
  inputs: Named<Matrix>,
  outputs: AttentionOutputs,
  selected?: SelectedKeys,
): void {
  const rows = { inputs, outputs, chosen: selectedRows("forward", whole, selected) };
  byBatch(r, whole, rows, (spec, { inputs, outputs, chosen }) => {
    const read = { ...inputs, ...recordSelection(r, "forward", spec, chosen) };
    const plan = planAttention("forward", spec, r.capabilities);
    const scores = "gather" in plan ? recordListedScores(r, spec, read, outputs.lse) : null;
    const written = mapValues(
      { ...outputs, ...scores ? { scores } : {} },
      (into) => ({ into, add: null }),
    );
    r.dispatch(attentionPass("forward", spec, plan, { read, written }));
  });
}

/** Elements between possible starts of a bound window (256 bytes). */
const WINDOW = 64;

/** Calls `body` with the rows of all sequences, or with as many at a time as fit into one binding each. */
export function byBatch<
  Spec extends Pick<AttentionSpec, "extent">,
  Rows extends Readonly<Record<string, Named<Matrix>>>,
>(
  { capabilities }: Recorder,
  spec: Spec,
  rows: Rows,
  body: (spec: Spec, parts: Rows) => void,
): void {
  const { batch, seqLen } = spec.extent;
  const matrices = Object.values(rows).flatMap((named) => Object.values(named));
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
    const part = (m: Matrix) => rowsFrom(m, start * seqLen, count * seqLen);
    const parts = mapValues(rows, (named) => mapValues(named, part)) as Rows;
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
