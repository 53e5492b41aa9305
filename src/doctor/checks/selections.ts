/** Random selections of keys, as the inputs of ops. */
import type { CaseInput } from "../cases/check_case.ts";
import type { Random } from "../cases/random.ts";

/** For each query min(k, t + 1) of the positions that it sees, ascending. */
export function randomSelection(
  random: Random,
  { batch, seqLen }: { batch: number; seqLen: number },
  k: number,
): number[][] {
  return Array.from(
    { length: batch * seqLen },
    (_, row) =>
      Array.from({ length: row % seqLen + 1 }, (_, s) => ({ s, order: random.uniform() }))
        .sort((a, b) => a.order - b.order).slice(0, k).map(({ s }) => s).sort((a, b) => a - b),
  );
}

/** A selection as lists of `topk` positions: ascending, then -1. */
export function listsOf(selection: readonly number[][], topk: number): CaseInput {
  const values = new Int32Array(selection.length * topk).fill(-1);
  selection.forEach((keys, row) => values.set(keys, row * topk));
  return { rows: selection.length, cols: topk, dtype: "i32", values };
}

/** A selection as bits: bit s % 32 of word s / 32. */
export function masksOf(selection: readonly number[][], seqLen: number): CaseInput {
  const words = Math.ceil(seqLen / 32);
  const values = new Int32Array(selection.length * words);
  selection.forEach((keys, row) => {
    for (const s of keys) values[row * words + (s >> 5)] |= 1 << (s & 31);
  });
  return { rows: selection.length, cols: words, dtype: "i32", values };
}
