/**
 * Records what a plan dispatches, and the memory that it needs in between.
 *
 * @module
 */
import { addInto } from "../kernels/token/add.ts";
import { fill } from "../kernels/token/fill.ts";
import type { Kernel } from "../kernels/wgsl/kernel.ts";
import { matrixAt, rowsOf, unitsPerBinding } from "../ops/matrix.ts";
import { byRowsWithSink } from "../ops/sink.ts";
import type { Derivation, Dtype, Matrix, Recorder, Storage } from "../ops/op.ts";
import type { Capabilities } from "../kernels/wgsl/device.ts";

/** One kernel on its operands. */
export interface Dispatch {
  /** What it is for: an op, `… gradient`, or `optimizer`. */
  readonly op: string;
  readonly kernel: Kernel;
  readonly operands: readonly Matrix[];
}

/** The recorder of the forward pass, the backward pass and what follows them. */
export class PlanRecorder implements Recorder {
  readonly dispatches: Dispatch[] = [];
  readonly temporaries = new Set<Storage>();
  readonly kept = new Set<Storage>();
  /** Label of the node being recorded, for the storages it makes. */
  scope = "";
  readonly #derived = new Map<Derivation<unknown>, Map<Storage, Map<string, unknown>>>();

  constructor(readonly capabilities: Capabilities) {}

  dispatch(kernel: Kernel): void {
    const operands = kernel.operands as readonly Matrix[];
    if (!operands.every(({ storage }) => storage)) {
      throw new TypeError(`${kernel.label} was made for matrices without memory`);
    }
    this.dispatches.push({ op: this.scope, kernel, operands });
  }

  temporary(rows: number, cols: number, dtype: Dtype = "f32"): Matrix {
    const storage = { label: `${this.scope} ${rows}x${cols}`, size: rows * cols };
    this.temporaries.add(storage);
    return matrixAt(storage, 0, { rows, cols, dtype });
  }

  byRows(matrices: readonly Matrix[], body: (...parts: Matrix[]) => void): void {
    const { maxBindingBytes } = this.capabilities;
    const [{ rows }] = matrices;
    const most = unitsPerBinding(matrices, rows, maxBindingBytes);
    if (most < 1) {
      const bytes = 4 * Math.max(...matrices.map((m) => m.stride));
      throw new RangeError(
        `Cannot bind one row of ${bytes} bytes: the adapter's limit is ${maxBindingBytes}`,
      );
    }
    for (let start = 0; start < rows; start += most) {
      body(...matrices.map((m) => rowsOf(m, start, Math.min(most, rows - start))));
    }
  }

  derived<T>(source: Matrix, what: Derivation<T>, make: () => T): T {
    const ofKind = entry(this.#derived, what, () => new Map<Storage, Map<string, unknown>>());
    const ofStorage = entry(ofKind, source.storage, () => new Map<string, unknown>());
    return entry(ofStorage, keyOf(source), make) as T;
  }

  zero(m: Matrix): void {
    this.byRows([m], (part) => this.dispatch(fill({ x: part, value: 0 })));
  }

  /** `into = a + b`, or a copy of `a` where `b` is null. `into` may be `b`. */
  combine(into: Matrix, a: Matrix, b: Matrix | null): void {
    byRowsWithSink(
      this,
      [a],
      { into, add: b },
      ([a], sink) => this.dispatch(addInto({ a, ...sink })),
    );
  }
}

/** The value of a key, made if it is not there. */
function entry<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  if (!map.has(key)) map.set(key, make());
  return map.get(key)!;
}

/** Tells the matrices in a storage apart. */
function keyOf({ base, offset, rows, cols, stride }: Matrix): string {
  return [base, offset, rows, cols, stride].join(" ");
}
