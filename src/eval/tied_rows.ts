/**
 * Where two implementations may select different keys and both be right: at a query whose k-th and
 * next largest index scores are equal. What one token then attends to changes its own output, in
 * later layers that of all tokens after it, and whatever is made from those.
 *
 * @module
 */

/** A layer's selection here, and there. A row is a query; R = batch · seqLen of them. */
export interface ComparedSelection {
  /** `[R, seqLen]`: ours; of each row those of the keys up to its own position are read. */
  readonly scores: ArrayLike<number>;
  /** i32 `[R, k]`: ours, ascending, then -1. */
  readonly ours: ArrayLike<number>;
  /** The same of the other implementation; null where it does not tell. */
  readonly theirs: ArrayLike<number> | null;
}

/** Whether a row is not to be compared, row by row. */
export type LeftOut = readonly boolean[];

/** What ties leave to be compared. */
export interface TiedRows {
  /** Rows, over all layers, where a key is selected and another of the same score is not. */
  readonly tied: number;
  /** Those of them where the other implementation selects other ones, or does not tell. */
  readonly other: number;
  /** By layer: rows whose scores are made from what a layer before selected otherwise. */
  readonly scores: readonly LeftOut[];
  /** By layer: those, and rows that select otherwise. */
  readonly selections: readonly LeftOut[];
  /** Rows whose logits are made from one of these. */
  readonly logits: LeftOut;
}

/**
 * The rows of each layer that are not to be compared, as equal scores were ordered by another rule.
 * Only a selection that has all keys above the k-th largest score, and else keys of that score, passes
 * for that: any other difference is left to be seen.
 *
 * @param layers the layers' selections, from the first on; at least one
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { tiedRows } from "./tied_rows.ts";
 *
 * // The third of three tokens sees the scores 0, 1, 0, and selects two keys.
 * const scores = [1, 9, 9, 1, 0, 9, 0, 1, 0];
 * const [ours, theirs] = [[0, -1, 0, 1, 0, 1], [0, -1, 0, 1, 1, 2]];
 * const { tied, other, logits } = tiedRows([{ scores, ours, theirs }], 3);
 * assert.deepEqual([tied, other, logits], [1, 1, [false, false, true]]);
 * ```
 */
export function tiedRows(layers: readonly ComparedSelection[], seqLen: number): TiedRows {
  const rows = layers[0].scores.length / seqLen;
  const sizes = { seqLen, k: layers[0].ours.length / rows };
  let reached: LeftOut = new Array(rows).fill(false);
  let tied = 0, other = 0;
  const scores: LeftOut[] = [], selections: LeftOut[] = [];
  for (const layer of layers) {
    const own = reached.map((isReached, row) => {
      if (isReached || !isTied(layer, row, sizes)) return isReached;
      tied++;
      const isOther = isOtherwise(layer, row, sizes);
      other += Number(isOther);
      return isOther;
    });
    scores.push(reached);
    selections.push(own);
    reached = andLater(own, seqLen);
  }
  return { tied, other, scores, selections, logits: selections.at(-1)! };
}

interface Sizes {
  readonly seqLen: number;
  readonly k: number;
}

/** These rows, and those of later tokens of the same sequences. */
function andLater(rows: LeftOut, seqLen: number): LeftOut {
  let isReached = false;
  return rows.map((isOwn, row) => isReached = isOwn || row % seqLen > 0 && isReached);
}

/** What a row sees: its scores, and the least of the k largest. */
function seen({ scores }: ComparedSelection, row: number, { seqLen, k }: Sizes) {
  const own = Array.from({ length: row % seqLen + 1 }, (_, s) => scores[row * seqLen + s]);
  return { own, threshold: own.toSorted((a, b) => b - a)[Math.min(k, own.length) - 1] };
}

/** Whether a key is selected and another of the same score is not. */
function isTied(layer: ComparedSelection, row: number, sizes: Sizes): boolean {
  const { own, threshold } = seen(layer, row, sizes);
  return own.filter((score) => score >= threshold).length > sizes.k;
}

/** Whether the others select other keys here, but as good ones; also where they do not tell. */
function isOtherwise(layer: ComparedSelection, row: number, sizes: Sizes): boolean {
  const { ours, theirs } = layer;
  if (!theirs) return true;
  const { k } = sizes;
  const keysOf = (list: ArrayLike<number>) =>
    Array.from({ length: k }, (_, i) => list[row * k + i]);
  const [own, others] = [keysOf(ours), keysOf(theirs)];
  if (own.every((s, i) => s === others[i])) return false;
  const { own: scores, threshold } = seen(layer, row, sizes);
  const above = [...scores.keys()].filter((s) => scores[s] > threshold);
  return others.every((s, i) => scores[s] >= threshold && (i === 0 || s > others[i - 1])) &&
    above.every((s) => others.includes(s));
}
