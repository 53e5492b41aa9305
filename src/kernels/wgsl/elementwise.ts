/**
 * How elementwise kernels spread over a grid: one invocation per unit, one pipeline for all shapes.
 *
 * @module
 */
import { foldGrid } from "./kernel.ts";
import { widthOf } from "./layout_units.ts";
import type { Layout, Width } from "./operand.ts";

const WORKGROUP = 256;
/** Units in one row of a folded flat range: 2^12 workgroups. */
const RUN = 2 ** 20;

/** The common parts of an elementwise kernel. */
export interface Spread {
  readonly workgroup: number;
  readonly grid: [number, number, number];
  /** `cols`, `units` and `shift`, used by the prelude. */
  readonly uniforms: Record<string, number>;
  /** WGSL that declares `row` and `col` (in units) and returns where there is no element. */
  readonly prelude: string;
}

/**
 * Spreads `rows * cols` units over workgroups; of the last row only what makes `units` in all.
 * Narrow rows share a workgroup. No division: rows are found by a shift.
 */
export function spread(rows: number, cols: number, units: number = rows * cols): Spread {
  let shift = 0;
  while (shift < 8 && 2 ** shift < cols) shift++;
  const [y, z] = foldGrid(Math.ceil(rows / (WORKGROUP >> shift)));
  return {
    workgroup: WORKGROUP,
    grid: [Math.ceil(cols / 2 ** shift), y, z],
    uniforms: { cols, units, shift },
    prelude: `
  let row = (wid.y + wid.z * groups.y) * (${WORKGROUP}u >> u.shift) + (lane >> u.shift);
  let col = (wid.x << u.shift) + (lane & ((1u << u.shift) - 1u));
  if (col >= u.cols || row * u.cols + col >= u.units) { return; }`,
  };
}

/** A walk over the elements of equally shaped matrices. */
export interface Walk {
  readonly width: Width;
  readonly spread: Spread;
  /** A matrix as the kernel is to see it, with `row` and `col` of the prelude. */
  view(matrix: Layout): Layout;
}

/**
 * Walks over matrices of one shape. If each lies in one piece, shape does not matter: they are
 * taken as one long row, so that odd and narrow rows leave no invocation idle.
 */
export function walk(...matrices: readonly Layout[]): Walk {
  const { rows, cols } = matrices[0];
  const count = rows * cols;
  if (!matrices.every((m) => m.rows === 1 || m.stride === m.cols)) {
    const width = widthOf(...matrices);
    return { width, spread: spread(rows, cols / width), view: (m) => m };
  }
  const width = widthOf(...matrices.map((m) => ({ ...m, rows: 1, cols: count, stride: count })));
  const units = count / width;
  return {
    width,
    spread: units <= RUN ? spread(1, units) : spread(Math.ceil(units / RUN), RUN, units),
    view: ({ offset }) => ({ rows: 1, cols: count, offset, stride: RUN * width }),
  };
}
