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
import { leavesScores } from "./listed_scores.ts";
import { byBatch } from "../by_batch.ts";
import type { Matrix, Recorder } from "../op.ts";

export { twinHeads, twinOfAttention } from "./twin.ts";

/** What attention leaves: its output, and the logarithm of each row's sum of exponentials. */
export type AttentionOutputs = { readonly o: Matrix; readonly lse: Matrix };

/**
 * Records the kernels of `o`, `lse` and, if `leavesScores`, `scores`. Inputs as in
 * `src/kernels/attention/attention.ts`, without the matrices of a selection.
 */
export function recordAttention(
  r: Recorder,
  whole: AttentionSpec,
  inputs: Named<Matrix>,
  { o, lse, scores }: AttentionOutputs & { readonly scores?: Matrix },
  selected?: SelectedKeys,
): void {
  const outputs = { o, lse, ...scores && leavesScores(whole, r.capabilities) && { scores } };
  const rows = { inputs, outputs, chosen: selectedRows("forward", whole, selected) };
  byBatch(r, whole, rows, (spec, { inputs, outputs, chosen }) => {
    const read = { ...inputs, ...recordSelection(r, "forward", spec, chosen) };
    const plan = planAttention("forward", spec, r.capabilities);
    const written = mapValues(outputs, (into) => ({ into, add: null }));
    r.dispatch(attentionPass("forward", spec, plan, { read, written }));
  });
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
