/**
 * Chunks of queries: what has a number per query and key is never in memory as a whole.
 *
 * @module
 */
import { rowsOf, unitsPerBinding } from "./matrix.ts";
import type { Matrix, Recorder } from "./op.ts";

/** Most bytes of a matrix [queries, keys] of a chunk. */
const CHUNK_BYTES = 32 * 2 ** 20;

/** Either consecutive queries of one sequence, or all of several sequences. */
export interface QueryChunk {
  /** Sequences side by side. */
  readonly batch: number;
  /** Position of the first query in its sequence: 0 where there are several sequences. */
  readonly firstRow: number;
  /** Queries per sequence. */
  readonly rows: number;
  /** They see keys at positions 0 … keys − 1. */
  readonly keys: number;
  /** Whether these sequences have not been visited before. */
  readonly isFirst: boolean;
  /** Rows of the queries in a matrix with a row per token. */
  queriesOf(m: Matrix): Matrix;
  /** Rows of the keys. */
  keysOf(m: Matrix): Matrix;
}

/**
 * Calls `body` for chunks that cover every sequence. The last chunk of a sequence comes first: it
 * sees all keys, so it can write what the others add to. `body` also gets `scratch` matrices
 * [batch · rows, keys], whose memory all chunks share.
 *
 * @param matrices what will be bound by chunks: limits the number of sequences side by side
 * @throws {RangeError} if one row of scores, or the tokens of one sequence, do not fit a binding
 */
export function byQueryChunks(
  r: Recorder,
  { batch, seqLen }: { batch: number; seqLen: number },
  matrices: readonly Matrix[],
  scratch: number,
  body: (chunk: QueryChunk, ...scratch: Matrix[]) => void,
): void {
  const { maxBindingBytes } = r.capabilities;
  const sequences = unitsPerBinding(matrices, batch, maxBindingBytes);
  const most = Math.floor(Math.min(CHUNK_BYTES, maxBindingBytes) / 4 / seqLen);
  if (most < 1 || sequences < 1) {
    const widest = Math.max(...matrices.map((m) => m.stride));
    throw new RangeError(
      `Cannot go through sequences of ${seqLen} tokens, ${widest * 4} bytes each: a binding ` +
        `holds ${maxBindingBytes} bytes; lower seqLen or the model's width`,
    );
  }
  const rows = Math.ceil(seqLen / Math.ceil(seqLen / most));
  const side = Math.max(1, Math.min(batch, sequences, Math.floor(most / seqLen)));
  const shared = Array.from({ length: scratch }, () => r.temporary(side * rows, seqLen));
  for (let b = 0; b < batch; b += side) {
    const count = Math.min(side, batch - b);
    for (let i = Math.ceil(seqLen / rows) - 1, isFirst = true; i >= 0; i--, isFirst = false) {
      const firstRow = i * rows;
      const keys = Math.min(firstRow + rows, seqLen);
      const own = keys - firstRow;
      const chunk: QueryChunk = {
        batch: count,
        firstRow,
        rows: own,
        keys,
        isFirst,
        queriesOf: (m) => rowsOf(m, b * seqLen + firstRow, count * own),
        keysOf: (m) => rowsOf(m, b * seqLen, count * keys),
      };
      body(chunk, ...shared.map((m) => ({ ...m, rows: count * own, cols: keys })));
    }
  }
}
