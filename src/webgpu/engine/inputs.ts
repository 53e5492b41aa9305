/**
 * What changes from step to step (tokens, targets, scalars), in one buffer written in one go.
 *
 * @module
 */
import type { Batch } from "../../data/dataset.ts";
import type { Matrix, Storage } from "../../ops/op.ts";
import { matrixAt } from "../../ops/matrix.ts";

/** Per-range numbers of the optimizer: see `kernels/step/adamw.ts`. */
const HYPER_SIZE = 8;

/** One step's content. */
export interface InputValues {
  batch?: Batch;
  /** A row of {@linkcode HYPER_SIZE} numbers for each trained range; none without an update. */
  hyper: readonly Float32Array[];
  /** Row of the metrics ring. */
  slot: number;
  inverseCount: number;
}

/** The input buffer's matrices. */
export interface InputLayout {
  readonly batch: number;
  readonly seqLen: number;
  readonly storage: Storage;
  readonly tokens: Matrix;
  readonly targets: Matrix;
  readonly positions: Matrix;
  readonly slot: Matrix;
  readonly inverseCount: Matrix;
  /** One row `[1, 8]` a range. */
  readonly hyper: readonly Matrix[];
  /** The buffer's content; the array is reused by the next call. */
  pack(values: InputValues): Float32Array<ArrayBuffer>;
}

/** `inverseCount` of `count` scored targets. */
export function inverseCount(count: number): number {
  return 1 / Math.max(count, 1);
}

/** Lays out the inputs of a plan. */
export function inputLayout(
  { batch, seqLen, ranges }: { batch: number; seqLen: number; ranges: number },
): InputLayout {
  const rows = batch * seqLen;
  const scalars = 3 * rows;
  const hyperStart = scalars + 2;
  const storage = { label: "inputs", size: hyperStart + ranges * HYPER_SIZE };
  const data = new Float32Array(storage.size);
  const ints = new Int32Array(data.buffer);
  for (let i = 0; i < rows; i++) ints[2 * rows + i] = i % seqLen;
  const ids = (start: number) => matrixAt(storage, start, { rows, cols: 1, dtype: "i32" });
  return {
    batch,
    seqLen,
    storage,
    tokens: ids(0),
    targets: ids(rows),
    positions: ids(2 * rows),
    slot: matrixAt(storage, scalars, { rows: 1, cols: 1, dtype: "i32" }),
    inverseCount: matrixAt(storage, scalars + 1, { rows: 1, cols: 1 }),
    hyper: Array.from(
      { length: ranges },
      (_, i) => matrixAt(storage, hyperStart + i * HYPER_SIZE, { rows: 1, cols: HYPER_SIZE }),
    ),
    pack({ batch, hyper, slot, inverseCount }) {
      if (batch) {
        if (batch.tokens.length !== rows) {
          throw new RangeError(
            `Cannot run a batch of ${batch.tokens.length} tokens: expected ${rows}`,
          );
        }
        ints.set(batch.tokens, 0);
        ints.set(batch.targets, rows);
      }
      ints[scalars] = slot;
      data[scalars + 1] = inverseCount;
      hyper.forEach((row, i) => data.set(row, hyperStart + i * HYPER_SIZE));
      return data;
    },
  };
}
