/**
 * Parameters in one flat buffer, ordered so that each optimizer group is one range.
 *
 * @module
 */
import type { ParameterSpec } from "../../engine.ts";
import type { Matrix, Storage } from "../../ops/op.ts";
import { matrixAt } from "../../ops/matrix.ts";

/** A run of the arena that the optimizer treats alike. */
export interface ArenaRange {
  readonly group: string;
  readonly decay: boolean;
  readonly start: number;
  readonly end: number;
}

/** Where each parameter lies in any buffer with this layout (weights, gradients, moments). */
export class ArenaLayout {
  /** Elements. */
  readonly size: number;
  readonly ranges: readonly ArenaRange[];
  readonly starts: ReadonlyMap<string, number>;

  constructor(readonly parameters: readonly ParameterSpec[]) {
    const ranges: ArenaRange[] = [];
    const starts = new Map<string, number>();
    let end = 0;
    for (const group of new Set(parameters.map((p) => p.group))) {
      for (const decay of [true, false]) {
        const members = parameters.filter((p) => p.group === group && p.decay === decay);
        if (!members.length) continue;
        const start = end;
        for (const { name, rows, cols } of members) {
          starts.set(name, end);
          // Whole vec4s: kernels read them aligned, and weights stay neighbours.
          end += Math.ceil(rows * cols / 4) * 4;
        }
        ranges.push({ group, decay, start, end });
      }
    }
    this.size = end;
    this.ranges = ranges;
    this.starts = starts;
  }

  /** The matrix of a parameter in a storage with this layout. */
  matrix(storage: Storage, { name, rows, cols }: ParameterSpec): Matrix {
    return matrixAt(storage, this.starts.get(name)!, { rows, cols });
  }

  /** Start and end of all ranges of a group, which follow each other. */
  groupSpan(group: string): { start: number; end: number } {
    const own = this.ranges.filter((r) => r.group === group);
    return { start: own[0].start, end: own[own.length - 1].end };
  }

  /** Lays out values by name; padding is zero. */
  pack(values: ReadonlyMap<string, Float32Array>): Float32Array<ArrayBuffer> {
    const flat = new Float32Array(this.size);
    for (const { name, rows, cols } of this.parameters) {
      const data = values.get(name);
      if (data?.length !== rows * cols) {
        throw new RangeError(
          `Cannot load ${name}: expected ${rows * cols} values, got ${data?.length ?? "none"}`,
        );
      }
      flat.set(data, this.starts.get(name)!);
    }
    return flat;
  }

  /** The inverse of {@linkcode pack}. */
  unpack(flat: Float32Array): Map<string, Float32Array> {
    return new Map(this.parameters.map(({ name, rows, cols }) => {
      const start = this.starts.get(name)!;
      return [name, flat.slice(start, start + rows * cols)];
    }));
  }
}
