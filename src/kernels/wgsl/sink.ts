/**
 * Writing a gradient: alone, added to what is there, or added to another matrix. One notion for
 * all kernels, so that the sum of several gradients costs no pass of its own.
 *
 * @module
 */
import { type BufferSpec, bytesOf, type Layout, layoutUniforms } from "./kernel.ts";
import { at, inUnits, unitType, type Width } from "./layout_units.ts";

/** Where a kernel writes a result. */
export interface Sink {
  readonly into: Layout;
  /** `"none"`: write. `"inPlace"`: add to what `into` holds. A layout: write that matrix + result. */
  readonly add: Layout | "inPlace" | "none";
}

/** All matrices of a sink. */
export function sinkLayouts(sink: Sink): Layout[] {
  return typeof sink.add === "string" ? [sink.into] : [sink.into, sink.add];
}

/** The sink with another view of its matrices. */
export function mapSink({ into, add }: Sink, view: (m: Layout) => Layout): Sink {
  return { into: view(into), add: typeof add === "string" ? add : view(add) };
}

/** Bytes moved by writing to a sink. */
export function sinkBytes(sink: Sink): number {
  return bytesOf(sink.into) * (sink.add === "none" ? 1 : 2);
}

/** Parts of a kernel that writes to a sink. */
export interface SinkParts {
  /** To be put last: `name`, and `name_add` if another matrix is added. */
  readonly buffers: Record<string, BufferSpec>;
  readonly uniforms: Record<string, number>;
  /** WGSL statement that stores a value at a row and a column unit. */
  store(row: string, col: string, value: string): string;
}

/** Buffers, uniforms and the store statement for `sink` under the WGSL name `name`. */
export function sinkParts(name: string, sink: Sink, width: Width): SinkParts {
  const type = unitType(width);
  const buffers: Record<string, BufferSpec> = { [name]: `read_write ${type}` };
  const layouts: Record<string, Layout> = { [name]: inUnits(sink.into, width) };
  const { add } = sink;
  if (typeof add !== "string") {
    buffers[`${name}_add`] = `read ${type}`;
    layouts[`${name}_add`] = inUnits(add, width);
  }
  return {
    buffers,
    uniforms: layoutUniforms(layouts),
    store(row, col, value) {
      const target = at(name, row, col);
      if (add === "none") return `${target} = ${value};`;
      return `${target} = ${add === "inPlace" ? target : at(`${name}_add`, row, col)} + ${value};`;
    },
  };
}
