/**
 * What the passes of attention read of a selection of keys, recorded.
 *
 * @module
 */
import type { AttentionSpec, Extent, SelectionForm } from "../kernels/attention.ts";
import { gathersByDefault, type PassName } from "../kernels/attention_tuning.ts";
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

/** How a selection is read: as asked for, or by default as is fastest. */
export function formOf(
  form: SelectionForm | "auto" | undefined,
  seqLen: number,
  topk: number,
): SelectionForm {
  if (form !== undefined && form !== "auto") return form;
  return gathersByDefault(seqLen, topk) ? "gathered" : "masked";
}

function listsByRows({ capabilities }: Recorder, seqLen: number, topk: number): boolean {
  return capabilities.software && canListByRows(seqLen, topk);
}

/** The row-wise matrices of a selection that a pass reads, and scratch memory for their like. */
export function chosenMatrices(
  r: Recorder,
  pass: PassName,
  { selection, extent }: AttentionSpec,
  selected: SelectedKeys | undefined,
): Matrix[] {
  if (!selection || !selected) return [];
  if (selection.form === "masked") return [selected.mask];
  if (pass !== "gradKv") return [selected.indices];
  return listMatrices(r, extent, selected);
}

/** What lists of queries are made from, and memory for them: the rows of {@linkcode recordLists}. */
export function listMatrices(
  r: Recorder,
  { batch, seqLen }: Extent,
  { mask, indices }: SelectedKeys,
): [source: Matrix, queries: Matrix] {
  const source = listsByRows(r, seqLen, indices.cols) ? indices : mask;
  return [source, r.temporary(batch * seqLen, Math.min(indices.cols, seqLen), "i32")];
}

/** Records the kernels that make what a pass reads of a selection, and returns it. */
export function recordSelection(
  r: Recorder,
  pass: PassName,
  { selection, extent }: AttentionSpec,
  [chosen, queries]: readonly Matrix[],
): Matrix[] {
  if (!selection) return [];
  if (selection.form === "masked") {
    const { batch, seqLen } = extent;
    const words = maskWords(seqLen);
    const blocks = r.temporary(batch * words, words, "i32");
    r.dispatch(selectionBlocks(chosen, blocks, seqLen), chosen, blocks);
    return [chosen, blocks];
  }
  if (pass !== "gradKv") return [chosen];
  return recordLists(r, extent, selection.topk, [chosen, queries]);
}

/**
 * Records the kernels that list the queries of each key, and returns `starts` and `queries`; see
 * `listQueries`.
 */
export function recordLists(
  r: Recorder,
  { batch, seqLen }: Extent,
  topk: number,
  [source, queries]: readonly Matrix[],
): [starts: Matrix, queries: Matrix] {
  const starts = r.temporary(batch, startsCols(seqLen), "i32");
  if (listsByRows(r, seqLen, topk)) {
    const next = r.temporary(batch, startsCols(seqLen), "i32");
    const list = listQueriesByRows(source, starts, next, queries, seqLen);
    r.dispatch(countQueriesByRows(source, starts, seqLen), source, starts);
    r.dispatch(scanStarts(starts), starts);
    r.dispatch(list, source, starts, next, queries);
  } else {
    r.dispatch(countQueries(source, starts, seqLen), source, starts);
    r.dispatch(scanStarts(starts), starts);
    r.dispatch(listQueries(source, starts, queries, seqLen), source, starts, queries);
  }
  return [starts, queries];
}
