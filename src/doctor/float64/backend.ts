/**
 * Applies ops by their naive twins in float64, at once.
 *
 * @module
 */
import type { Backend, Dtype, Op, Tensor, TensorType, TfMatrix } from "../../ops/op.ts";
import { float64Tf } from "./namespace.ts";
import { Tensor64 } from "./tensor64.ts";

/** A matrix of the reference. */
export interface Matrix64 extends Tensor {
  readonly value: Tensor64;
}

/**
 * The reference that kernels are compared with.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { add } from "../../ops/token/add.ts";
 * import { Float64Backend, matrixValues } from "./backend.ts";
 *
 * const x = new Float64Backend().matrix({ rows: 1, cols: 2, dtype: "f32" }, [1, 2], false);
 * assert.deepEqual([...matrixValues(add(x, x))], [2, 4]);
 * ```
 */
export class Float64Backend implements Backend {
  /** A matrix of these values, row-major; `isLeaf` if its gradient is wanted. */
  matrix(type: TensorType, values: ArrayLike<number>, isLeaf: boolean): Matrix64 {
    const { rows, cols, dtype } = type;
    const kind = dtype === "i32" ? "int32" : "float32";
    const own = Float64Array.from(values);
    return this.#wrap(new Tensor64(own, [rows, cols], kind, isLeaf ? "leaf" : null), dtype);
  }

  apply<A>(op: Op<A>, inputs: readonly Tensor[], attributes: A): Matrix64[] {
    const types = op.types(inputs, attributes);
    const values = inputs.map((x) => (x as Matrix64).value as unknown as TfMatrix);
    const outputs = op.twin(float64Tf, values, attributes) as unknown as Tensor64[];
    return types.map(({ dtype }, i) => this.#wrap(outputs[i], dtype));
  }

  #wrap(value: Tensor64, dtype: Dtype): Matrix64 {
    const [rows, cols] = value.shape;
    return { rows, cols, dtype, backend: this, value };
  }
}

/** The values of a matrix of this backend, row-major. */
export function matrixValues(tensor: Tensor): Float64Array {
  return (tensor as Matrix64).value.values;
}
