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

/** The parts of the rows whose windows all fit into one binding, as `[start, rows]`. */
export function rowParts(matrices: readonly Matrix[], maxBindingBytes: number): [number, number][] {
  const rows = matrices[0].rows;
  if (matrices.every((m) => windowSize(m) * 4 <= maxBindingBytes)) return [[0, rows]];
  const widest = Math.max(...matrices.map((m) => m.stride));
  const part = Math.floor((maxBindingBytes / 4 - WINDOW_ALIGNMENT) / widest);
  if (part < 1) {
    throw new RangeError(
      `Cannot bind one row of ${widest * 4} bytes: the adapter's limit is ${maxBindingBytes}`,
    );
  }
  const parts: [number, number][] = [];
  for (let start = 0; start < rows; start += part) {
    parts.push([start, Math.min(part, rows - start)]);
  }
  return parts;
}
