/**
 * Going through the sequences of a batch, as many at a time as the adapter can bind.
 *
 * @module
 */
import { mapValues } from "../kernels/wgsl/operand.ts";
import { rowsOf, unitsPerBinding } from "./matrix.ts";
import type { Matrix, Recorder } from "./op.ts";

/** Sequences: of any number of rows each, which may differ from matrix to matrix. */
interface HasExtent {
  readonly extent: { readonly batch: number; readonly seqLen: number };
}

/**
 * Calls `body` with the rows of all sequences, or with as many at a time as fit into one binding
 * each, and a `spec` of that many.
 *
 * @throws {RangeError} if one sequence does not fit
 */
export function byBatch<
  Spec extends HasExtent,
  Rows extends Readonly<Record<string, Readonly<Record<string, Matrix>>>>,
>(
  { capabilities }: Recorder,
  spec: Spec,
  rows: Rows,
  body: (spec: Spec, parts: Rows) => void,
): void {
  const { batch } = spec.extent;
  const matrices = Object.values(rows).flatMap((named) => Object.values(named));
  const most = unitsPerBinding(matrices, batch, capabilities.maxBindingBytes);
  if (most < 1) {
    const sizeOf = (m: Matrix) => m.stride * m.rows;
    const largest = matrices.reduce((a, b) => sizeOf(b) > sizeOf(a) ? b : a);
    throw new RangeError(
      `Cannot run attention over ${largest.rows / batch} tokens of ${
        largest.stride * 4
      } bytes: a ` +
        `binding holds ${capabilities.maxBindingBytes} bytes; lower seqLen or the model's width`,
    );
  }
  for (let start = 0; start < batch; start += most) {
    const count = Math.min(most, batch - start);
    const part = (m: Matrix) => {
      const rows = count * m.rows / batch;
      return start === 0 ? { ...m, rows } : rowsOf(m, start * m.rows / batch, rows);
    };
    const parts = mapValues(rows, (named) => mapValues(named, part)) as Rows;
    body({ ...spec, extent: { ...spec.extent, batch: count } }, parts);
  }
}
