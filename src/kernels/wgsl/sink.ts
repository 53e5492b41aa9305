/**
 * Writing a gradient: alone, added to what is there, or added to another matrix. One notion for
 * all kernels, so that the sum of several gradients costs no pass of its own.
 *
 * @module
 */
import { at } from "./layout_units.ts";
import { type Layout, type Operand, read, update, type Width, write } from "./operand.ts";

/** Where a kernel writes a result. */
export interface Sink<M extends Layout = Layout> {
  /** The matrix to write, all of it. */
  readonly into: M;
  /** What is added: nothing, another matrix, or, where it is `into` itself, what that holds. */
  readonly add: M | null;
}

/** All matrices of a sink. */
export function sinkMatrices<M extends Layout>({ into, add }: Sink<M>): M[] {
  return add === null || add === into ? [into] : [into, add];
}

/** Parts of a kernel that writes to a sink. */
export interface SinkParts {
  /** To be put last: `name`, and `name_add` if another matrix is added. */
  readonly operands: Record<string, Operand>;
  /** WGSL statement that stores a value at a row and a column unit. */
  store(row: string, col: string, value: string): string;
}

/**
 * Operands and the store statement for `sink` under the WGSL name `name`.
 *
 * @param view its matrices as the kernel is to see them, if not as they are
 */
export function sinkParts(
  name: string,
  { into, add }: Sink,
  width: Width,
  view: (m: Layout) => Layout = (m) => m,
): SinkParts {
  const inPlace = add === into;
  const operands = { [name]: (inPlace ? update : write)(into, width, view(into)) };
  if (add && !inPlace) operands[`${name}_add`] = read(add, width, view(add));
  return {
    operands,
    store(row, col, value) {
      const target = at(name, row, col);
      if (add === null) return `${target} = ${value};`;
      return `${target} = ${inPlace ? target : at(`${name}_add`, row, col)} + ${value};`;
    },
  };
}
