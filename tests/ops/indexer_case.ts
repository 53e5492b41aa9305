/** Random inputs of ops on an indexer and its teacher. */
import type { IndexerDims } from "../../src/ops/indexer/teacher.ts";
import { type CheckInput, randomNormal } from "../check_op.ts";

/** Batch and tokens, then the attention's heads and widths, then the indexer's. */
export function indexerDims(
  [batch, seqLen]: [number, number],
  [heads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim]: [number, number, number, number],
  [indexHeads, indexHeadDim]: [number, number],
  activation: "relu" | "none" = "relu",
): IndexerDims {
  return {
    batch,
    seqLen,
    indexHeads,
    indexHeadDim,
    activation,
    indexScale: (indexHeads * indexHeadDim) ** -0.5,
    heads,
    qkNopeHeadDim,
    qkRopeHeadDim,
    vHeadDim,
    scale: (qkNopeHeadDim + qkRopeHeadDim) ** -0.5,
  };
}

/** Positions that each row selects: min(k, t + 1) of the t + 1 visible ones at random. */
export function randomSelection({ batch, seqLen }: IndexerDims, k: number): number[][] {
  return Array.from(
    { length: batch * seqLen },
    (_, row) =>
      Array.from({ length: row % seqLen + 1 }, (_, s) => ({ s, order: Math.random() }))
        .sort((a, b) => a.order - b.order).slice(0, k).map(({ s }) => s),
  );
}

/** A selection as bits: bit s % 32 of word s / 32. */
export function maskOf(selection: number[][], seqLen: number): CheckInput {
  const words = Math.ceil(seqLen / 32);
  const values = new Int32Array(selection.length * words);
  selection.forEach((keys, row) => {
    for (const s of keys) values[row * words + (s >> 5)] |= 1 << (s & 31);
  });
  return { rows: selection.length, cols: words, dtype: "i32", values };
}

/** A selection as lists of `topk` positions: ascending, then -1. */
export function indicesOf(selection: number[][], topk: number): CheckInput {
  const values = new Int32Array(selection.length * topk).fill(-1);
  selection.forEach((keys, row) => values.set(keys.toSorted((a, b) => a - b), row * topk));
  return { rows: selection.length, cols: topk, dtype: "i32", values };
}

/**
 * Inputs qI, kI, w, q, kv, kPe, lse. The teacher's scores spread by about `spread`; `lse` is of
 * attention restricted to `selection`, if given.
 */
export function indexerInputs(
  dims: IndexerDims,
  selection: number[][] | null = null,
  spread = 1.5,
): CheckInput[] {
  const { batch, seqLen, heads, qkNopeHeadDim: nope, qkRopeHeadDim: rope, vHeadDim } = dims;
  const rows = batch * seqLen;
  const matrix = (cols: number, factor = 1): CheckInput & { values: Float32Array } => ({
    rows,
    cols,
    values: randomNormal(rows * cols).map((x) => x * factor),
  });
  const [q, kv, kPe] = [
    matrix(heads * (nope + rope), spread),
    matrix(heads * (nope + vHeadDim)),
    matrix(rope),
  ];
  const lse = new Float32Array(rows * heads);
  for (let row = 0; row < rows; row++) {
    const first = row - row % seqLen;
    const keys = selection?.[row] ?? Array.from({ length: row - first + 1 }, (_, s) => s);
    for (let h = 0; h < heads; h++) {
      let sum = 0;
      for (const s of keys) {
        let dot = 0;
        const at = row * q.cols + h * (nope + rope);
        const keyAt = (first + s) * kv.cols + h * (nope + vHeadDim);
        for (let d = 0; d < nope; d++) dot += q.values[at + d] * kv.values[keyAt + d];
        for (let d = 0; d < rope; d++) {
          dot += q.values[at + nope + d] * kPe.values[(first + s) * rope + d];
        }
        sum += Math.exp(dims.scale * dot);
      }
      lse[row * heads + h] = Math.log(sum);
    }
  }
  return [
    matrix(dims.indexHeads * dims.indexHeadDim),
    matrix(dims.indexHeadDim),
    matrix(dims.indexHeads),
    q,
    kv,
    kPe,
    { rows, cols: heads, values: lse },
  ];
}
