/** Random inputs of ops on an indexer and its teacher. */
import type { MlaAttentionDims } from "../../src/ops/attention/mla_attention.ts";
import { type IndexerAttributes, mlaTeacher } from "../../src/ops/indexer/teacher.ts";
import { type CheckInput, randomNormal } from "../check_op.ts";

/** Batch and tokens, then the attention's heads and widths, then the indexer's. */
export function indexerAttributes(
  [batch, seqLen]: [number, number],
  [heads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim]: [number, number, number, number],
  [indexHeads, dim]: [number, number],
  activation: "relu" | "none" = "relu",
): IndexerAttributes {
  return {
    batch,
    seqLen,
    indexer: { heads: indexHeads, dim, activation, scale: (indexHeads * dim) ** -0.5 },
    teacher: mlaTeacher({ heads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim }),
  };
}

/** The same indexer without activation. */
export function withoutActivation(attributes: IndexerAttributes): IndexerAttributes {
  return { ...attributes, indexer: { ...attributes.indexer, activation: "none" } };
}

/** The teacher's attention, as `mlaAttention` takes it. */
export function teacherDims({ batch, seqLen, teacher }: IndexerAttributes): MlaAttentionDims {
  const { dims: { heads, nope, rope, value }, scale } = teacher;
  const widths = { qkNopeHeadDim: nope, qkRopeHeadDim: rope, vHeadDim: value };
  return { batch, seqLen, heads, ...widths, scale };
}

/** Positions that each row selects: min(k, t + 1) of the t + 1 visible ones at random. */
export function randomSelection(
  { batch, seqLen }: Pick<IndexerAttributes, "batch" | "seqLen">,
  k: number,
): number[][] {
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
  { batch, seqLen, indexer, teacher }: IndexerAttributes,
  selection: number[][] | null = null,
  spread = 1.5,
): CheckInput[] {
  const { heads, nope, rope, value } = teacher.dims;
  const rows = batch * seqLen;
  const matrix = (cols: number, factor = 1): CheckInput & { values: Float32Array } => ({
    rows,
    cols,
    values: randomNormal(rows * cols).map((x) => x * factor),
  });
  const [q, kv, kPe] = [
    matrix(heads * (nope + rope), spread),
    matrix(heads * (nope + value)),
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
        const keyAt = (first + s) * kv.cols + h * (nope + value);
        for (let d = 0; d < nope; d++) dot += q.values[at + d] * kv.values[keyAt + d];
        for (let d = 0; d < rope; d++) {
          dot += q.values[at + nope + d] * kPe.values[(first + s) * rope + d];
        }
        sum += Math.exp(teacher.scale * dot);
      }
      lse[row * heads + h] = Math.log(sum);
    }
  }
  return [
    matrix(indexer.heads * indexer.dim),
    matrix(indexer.dim),
    matrix(indexer.heads),
    q,
    kv,
    kPe,
    { rows, cols: heads, values: lse },
  ];
}
