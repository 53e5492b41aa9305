/**
 * What the passes of attention read of a selection of keys, recorded.
 *
 * @module
 */
import type { AttentionSpec } from "../kernels/attention.ts";
import type { PassName } from "../kernels/attention_tuning.ts";
import {
  countQueries,
  listQueries,
  maskWords,
  scanStarts,
  selectionBlocks,
  startsCols,
} from "../kernels/selection_lists.ts";
import {
  canListByRows,
  countQueriesByRows,
  listQueriesByRows,
} from "../kernels/selection_lists_by_rows.ts";
import type { Matrix, Recorder } from "./op.ts";

/** A selection of keys as the ops get it. */
export interface SelectedKeys {
  readonly indices: Matrix;
  readonly mask: Matrix;
}

function listsByRows({ capabilities }: Recorder, seqLen: number, topk: number): boolean {
  return capabilities.software && canListByRows(seqLen, topk);
}

/** The row-wise matrices of a selection that a pass reads, and scratch memory for their like. */
export function chosenMatrices(
  r: Recorder,
  pass: PassName,
  { selection, extent: { batch, seqLen } }: AttentionSpec,
  selected: SelectedKeys | undefined,
): Matrix[] {
  if (!selection || !selected) return [];
  if (selection.form === "masked") return [selected.mask];
  if (pass !== "gradKv") return [selected.indices];
  const most = Math.min(selection.topk, seqLen);
  const { mask, indices } = selected;
  const source = listsByRows(r, seqLen, selection.topk) ? indices : mask;
  return [source, r.temporary(batch * seqLen, most, "i32")];
}

/** Records the kernels that make what a pass reads of a selection, and returns it. */
export function recordSelection(
  r: Recorder,
  pass: PassName,
  { selection, extent: { batch, seqLen } }: AttentionSpec,
  [chosen, queries]: readonly Matrix[],
): Matrix[] {
  if (!selection) return [];
  if (selection.form === "masked") {
    const words = maskWords(seqLen);
    const blocks = r.temporary(batch * words, words, "i32");
    r.dispatch(selectionBlocks(chosen, blocks, seqLen), chosen, blocks);
    return [chosen, blocks];
  }
  if (pass !== "gradKv") return [chosen];
  const starts = r.temporary(batch, startsCols(seqLen), "i32");
  if (listsByRows(r, seqLen, selection.topk)) {
    const next = r.temporary(batch, startsCols(seqLen), "i32");
    const list = listQueriesByRows(chosen, starts, next, queries, seqLen);
    r.dispatch(countQueriesByRows(chosen, starts, seqLen), chosen, starts);
    r.dispatch(scanStarts(starts), starts);
    r.dispatch(list, chosen, starts, next, queries);
  } else {
    r.dispatch(countQueries(chosen, starts, seqLen), chosen, starts);
    r.dispatch(scanStarts(starts), starts);
    r.dispatch(listQueries(chosen, starts, queries, seqLen), chosen, starts, queries);
  }
  return [starts, queries];
}
