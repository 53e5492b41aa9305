/**
 * What a kernel works on: its operands by the names that they have in WGSL. Bindings, uniforms and
 * the bytes that are moved follow from them.
 *
 * @module
 */

/** How a kernel uses one of its buffers. */
export type Access = "read" | "read_write";

/** Element types of a storage buffer. */
export type Element = "f32" | "i32" | "u32" | "vec4f" | "atomic<u32>";

/** Elements of a unit; kernels that work in units count columns, offsets and strides in them. */
export type Width = 1 | 4;

/**
 * Where a matrix lies inside the buffer window that is bound for it. `offset` and `stride` count
 * elements: element (r, c) is at `offset + r * stride + c`.
 */
export interface Layout {
  /** Rows of the matrix. */
  readonly rows: number;
  /** Columns of the matrix. */
  readonly cols: number;
  /** Element of the window at which row 0 begins. */
  readonly offset: number;
  /** Elements from a row to the next; at least `cols`. */
  readonly stride: number;
}

/** A matrix that a kernel reads, writes or both. */
export interface Operand {
  /** The matrix itself, whose memory a dispatch binds. */
  readonly matrix: Layout;
  /** Where the kernel finds its elements, counted in those of `element`s if it works in units. */
  readonly offset: number;
  /** From a row to the next, counted likewise. */
  readonly stride: number;
  /** What is declared in WGSL. */
  readonly access: Access;
  /** WGSL type of an element. */
  readonly element: Element;
  /** Bytes that are moved, at the least. */
  readonly bytes: number;
}

/**
 * A matrix that is read.
 *
 * @param type WGSL type of its elements, or the width of the units in which they are counted
 * @param view the matrix as the kernel is to see it, if not as it is
 */
export function read(matrix: Layout, type: Element | Width = "f32", view = matrix): Operand {
  return operand(matrix, { access: "read", type, view, times: 1 });
}

/** A matrix that is written; see {@linkcode read}. */
export function write(matrix: Layout, type: Element | Width = "f32", view = matrix): Operand {
  return operand(matrix, { access: "read_write", type, view, times: 1 });
}

/** A matrix that is read and written; see {@linkcode read}. */
export function update(matrix: Layout, type: Element | Width = "f32", view = matrix): Operand {
  return operand(matrix, { access: "read_write", type, view, times: 2 });
}

/** {@linkcode read} of every matrix of a record. */
export function readAll(
  matrices: Readonly<Record<string, Layout>>,
  type?: Element | Width,
): Record<string, Operand> {
  return mapValues(matrices, (m) => read(m, type));
}

/** The record with `change` made to its values. */
export function mapValues<A, B>(
  record: Readonly<Record<string, A>>,
  change: (value: A, name: string) => B,
): Record<string, B> {
  return Object.fromEntries(Object.entries(record).map(([name, a]) => [name, change(a, name)]));
}

function operand(
  matrix: Layout,
  { access, type, view, times }: {
    access: Access;
    type: Element | Width;
    view: Layout;
    times: number;
  },
): Operand {
  const [element, width] = typeof type === "number" ? [unitType(type), type] : [type, 1];
  return {
    matrix,
    offset: view.offset / width,
    stride: view.stride / width,
    access,
    element,
    bytes: 4 * times * matrix.rows * matrix.cols,
  };
}

/** WGSL type of a unit. */
export function unitType(width: Width): "f32" | "vec4f" {
  return width === 4 ? "vec4f" : "f32";
}

/** `offset` and `stride` uniforms of each operand: `x` gives `x_offset`, `x_stride`. */
export function layoutUniforms(
  operands: Record<string, Pick<Operand, "offset" | "stride">>,
): Record<string, number> {
  const out: Record<string, number> = {};
  for (const [name, { offset, stride }] of Object.entries(operands)) {
    out[`${name}_offset`] = offset;
    out[`${name}_stride`] = stride;
  }
  return out;
}
