/**
 * What the passes of attention read of a selection of keys, recorded.
 *
 * @module
 */
import type {
  AttentionSpec,
  Extent,
  Named,
  SelectionForm,
} from "../../kernels/attention/attention.ts";
import { gathersByDefault, type PassName } from "../../kernels/attention/tuning.ts";
import {
  countQueries,
  listQueries,
  maskWords,
  scanStarts,
  selectionBlocks,
  startsCols,
} from "../../kernels/select/lists.ts";
import {
  canListByRows,
  countQueriesByRows,
  listQueriesByRows,
} from "../../kernels/select/lists_by_rows.ts";
import { Derivation, type Matrix, type Recorder } from "../op.ts";

/** A selection of keys as the ops get it. */
export type SelectedKeys = {
  readonly indices: Matrix;
  readonly mask: Matrix;
};

/** How a selection is read: as asked for, or by default as is fastest. */
export function formOf(
  form: SelectionForm | "auto" | undefined,
  seqLen: number,
  topk: number,
): SelectionForm {
  if (form !== undefined && form !== "auto") return form;
  return gathersByDefault(seqLen, topk) ? "gathered" : "masked";
}

/** Of a selection what has a row for each query, and a pass reads, or makes from it what it reads. */
export function selectedRows(
  pass: PassName,
  { selection }: AttentionSpec,
  selected: SelectedKeys | undefined,
): Partial<SelectedKeys> {
  if (!selection || !selected) return {};
  const { mask, indices } = selected;
  if (selection.form === "masked") return { mask };
  return pass === "gradKv" ? { mask, indices } : { indices };
}

const blocksOfMask = new Derivation<Matrix>("blocks");

const listsOfMask = new Derivation<{ starts: Matrix; queries: Matrix }>("lists");

/** Records the kernels that make what a pass reads of {@linkcode selectedRows}, and returns it. */
export function recordSelection(
  r: Recorder,
  pass: PassName,
  { selection, extent }: AttentionSpec,
  { mask, indices }: Partial<SelectedKeys>,
): Named<Matrix> {
  if (selection?.form === "masked" && mask) return { mask, blocks: recordBlocks(r, extent, mask) };
  if (pass === "gradKv" && mask && indices) return { ...recordLists(r, extent, { mask, indices }) };
  return indices ? { indices } : {};
}

/** Records which blocks of a mask have a bit set; see `selectionBlocks`. */
function recordBlocks(r: Recorder, { batch, seqLen }: Extent, mask: Matrix): Matrix {
  return r.derived(mask, blocksOfMask, () => {
    const words = maskWords(seqLen);
    const blocks = r.temporary(batch * words, words, "i32");
    r.dispatch(selectionBlocks(mask, blocks, seqLen));
    return blocks;
  });
}

/**
 * Records the kernels that list the queries of each key, and returns `starts` and `queries`; see
 * `listQueries`. All who read the same selection share them.
 */
export function recordLists(
  r: Recorder,
  { batch, seqLen }: Extent,
  { mask, indices }: SelectedKeys,
): { starts: Matrix; queries: Matrix } {
  return r.derived(mask, listsOfMask, () => {
    const starts = r.temporary(batch, startsCols(seqLen), "i32");
    const queries = r.temporary(batch * seqLen, Math.min(indices.cols, seqLen), "i32");
    if (r.capabilities.software && canListByRows(seqLen, indices.cols)) {
      const next = r.temporary(batch, startsCols(seqLen), "i32");
      const list = listQueriesByRows(indices, starts, next, queries, seqLen);
      r.dispatch(countQueriesByRows(indices, starts, seqLen));
      r.dispatch(scanStarts(starts));
      r.dispatch(list);
    } else {
      r.dispatch(countQueries(mask, starts, seqLen));
      r.dispatch(scanStarts(starts));
      r.dispatch(listQueries(mask, starts, queries, seqLen));
    }
    return { starts, queries };
  });
}
