/**
 * Matrices in device memory and their sub-matrices.
 *
 * @module
 */
import type { Dtype, Matrix, Storage } from "./op.ts";

/** Elements between possible starts of a bound window: 256 bytes, WebGPU's alignment. */
export const WINDOW_ALIGNMENT = 64;

/** The matrix whose element (0, 0) is element `start` of `storage`. */
export function matrixAt(
  storage: Storage,
  start: number,
  shape: { rows: number; cols: number; stride?: number; dtype?: Dtype },
): Matrix {
  const base = Math.floor(start / WINDOW_ALIGNMENT) * WINDOW_ALIGNMENT;
  const { rows, cols, stride = cols, dtype = "f32" } = shape;
  return { storage, base, offset: start - base, rows, cols, stride, dtype };
}

/** Columns `start … start + cols` of a matrix. */
export function columnsOf(m: Matrix, start: number, cols: number): Matrix {
  return { ...m, offset: m.offset + start, cols };
}

/** Rows `start … start + rows` of a matrix, with the window moved along. */
export function rowsOf(m: Matrix, start: number, rows: number): Matrix {
  if (start === 0 && rows === m.rows) return m;
  return matrixAt(m.storage, m.base + m.offset + start * m.stride, { ...m, rows });
}

/** Elements from the window's start to the end of the last row. */
export function windowSize(m: Matrix): number {
  return m.offset + (m.rows - 1) * m.stride + m.cols;
}

/**
 * How many units of rows, such as the sequences of a batch, fit into one binding of each matrix: all
 * of them where that is so, 0 where none does.
 *
 * @param units that the rows of every matrix consist of
 */
export function unitsPerBinding(
  matrices: readonly Matrix[],
  units: number,
  maxBindingBytes: number,
): number {
  const limit = maxBindingBytes / 4;
  if (matrices.every((m) => windowSize(m) <= limit)) return units;
  const largest = Math.max(...matrices.map((m) => m.stride * m.rows / units));
  return Math.floor((limit - WINDOW_ALIGNMENT) / largest);
}
