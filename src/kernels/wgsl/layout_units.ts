/**
 * Kernels whose code is the same for single elements and for `vec4`s: they count columns, offsets
 * and strides in *units* of 1 or 4 elements.
 *
 * @module
 */
import { isVec4 } from "./kernel.ts";
import type { Layout, Width } from "./operand.ts";

/** 4 if every row of every matrix can be read as whole `vec4`s, else 1. */
export function widthOf(...matrices: readonly Layout[]): Width {
  return matrices.every(isVec4) ? 4 : 1;
}

/** `matrix` with cols, offset and stride counted in units of `width` elements. */
export function inUnits(matrix: Layout, width: Width): Layout {
  return {
    rows: matrix.rows,
    cols: matrix.cols / width,
    offset: matrix.offset / width,
    stride: matrix.stride / width,
  };
}

/** {@linkcode inUnits} of every matrix of a record. */
export function allInUnits(matrices: Record<string, Layout>, width: Width): Record<string, Layout> {
  return Object.fromEntries(
    Object.entries(matrices).map(([name, m]) => [name, inUnits(m, width)]),
  );
}

/** WGSL of the index of (row, column unit) in the matrix `name`. */
export function at(name: string, row: string, col: string): string {
  return `${name}[u.${name}_offset + ${row} * u.${name}_stride + ${col}]`;
}

/** WGSL of the sum of a unit's elements. */
export function sumOfUnit(width: Width, value: string): string {
  return width === 4 ? `dot(${value}, vec4f(1.0))` : value;
}
