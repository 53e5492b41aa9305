/**
 * Heads of attention as operands of products.
 *
 * @module
 */
import { columnRuns, headColumns, type HeadDims, type HeadTensor } from "./heads.ts";
import type { Source, Tile } from "../product/tile_loop.ts";

/** Whose head it is. */
export interface HeadRows {
  /** WGSL of the matrix row of a line, an existing one. */
  row(line: string): string;
  /** WGSL of the head; it may depend on `k`. */
  readonly head: string;
}

/** Steps of k that a head takes: whole tiles of them. */
export function headSteps(
  tensor: HeadTensor,
  dims: HeadDims,
  { depth }: Pick<Tile, "depth">,
): number {
  return Math.ceil(4 * headColumns(tensor, dims) / depth) * depth;
}

/** Columns of a head along k, or of one head after another, every {@linkcode headSteps}. */
export function headAlongK(
  tensor: HeadTensor,
  dims: HeadDims,
  aligned: boolean,
  tile: Pick<Tile, "depth">,
  { row, head }: HeadRows,
): Source {
  const columns = headColumns(tensor, dims);
  const runs = columnRuns(tensor, dims, aligned);
  const whole = runs.every((run) => 4 * run.columns % tile.depth === 0);
  const steps = headSteps(tensor, dims, tile);
  const columnAt = (step: string) => `(k % ${steps}u + ${step}) / 4u`;
  return {
    alongK: true,
    parts: whole ? runs.map((run) => 4 * run.columns) : undefined,
    before: (id, line) => [`let ${id}Row = ${row(line)};`],
    read(id, step, part) {
      if (!whole) {
        return `load_${tensor}(${id}Row, ${head}, min(${columnAt(step)}, ${columns - 1}u))`;
      }
      const { load, origin } = runs[part];
      return `${load}(${id}Row, ${head}, ${columnAt(step)} - ${origin}u)`;
    },
    finish: whole
      ? undefined
      : (id, step) => `select(vec4f(), ${id}, ${columnAt(step)} < ${columns}u)`,
  };
}
