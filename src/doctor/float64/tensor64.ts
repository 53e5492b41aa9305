/**
 * A tensor in float64 that remembers how it was made, so that gradients can flow back.
 *
 * @module
 */

/** Element types, as tfjs-core names them. All of them are kept as float64. */
export type Dtype64 = "float32" | "int32" | "bool";

/** From the gradient of a tensor to those of its parents; null where none flows. */
export type Pull = (gradient: Float64Array) => (Float64Array | null)[];

/** How a tensor was made of others. */
export interface Origin {
  readonly parents: readonly Tensor64[];
  readonly pull: Pull;
}

let made = 0;

/** Numbers with a shape, row-major. Has the fields of a tfjs-core tensor that twins look at. */
export class Tensor64 {
  /** Tensors are numbered as they are made: parents come before what is made of them. */
  readonly number = made++;
  readonly size: number;
  /** Null for constants, and for leaves. */
  readonly origin: Origin | null;
  /** Whether anything upstream is a leaf whose gradient is wanted. */
  readonly isTracked: boolean;

  constructor(
    readonly values: Float64Array,
    readonly shape: readonly number[],
    readonly dtype: Dtype64 = "float32",
    origin: Origin | "leaf" | null = null,
  ) {
    this.size = sizeOf(shape);
    if (values.length !== this.size) {
      throw new RangeError(`Cannot shape ${values.length} values as [${shape}]`);
    }
    this.isTracked = origin === "leaf" || !!origin?.parents.some((p) => p.isTracked);
    this.origin = this.isTracked && origin !== "leaf" ? origin : null;
  }

  get rank(): number {
    return this.shape.length;
  }

  /** The values themselves, not a copy. */
  dataSync(): Float64Array {
    return this.values;
  }
}

/** Elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, n) => product * n, 1);
}

/** Row-major strides of a shape, in elements. */
export function stridesOf(shape: readonly number[]): number[] {
  return shape.map((_, i) => sizeOf(shape.slice(i + 1)));
}

/** A number as a constant of no dimension; a tensor as it is. */
export function tensorOf(x: Tensor64 | number): Tensor64 {
  return typeof x === "number" ? new Tensor64(Float64Array.of(x), []) : x;
}

/**
 * Reverse-mode differentiation.
 *
 * @param roots tensors with the gradient of the objective with respect to them
 * @param leaves what it is differentiated by
 * @returns for each leaf the gradient of the objective; zeros where nothing flows
 */
export function gradients(
  roots: readonly { tensor: Tensor64; gradient: ArrayLike<number> }[],
  leaves: readonly Tensor64[],
): Float64Array[] {
  const sums = new Map<Tensor64, Float64Array>();
  const give = (tensor: Tensor64, gradient: ArrayLike<number>) => {
    if (!tensor.isTracked) return;
    const sum = sums.get(tensor);
    if (!sum) sums.set(tensor, Float64Array.from(gradient));
    else for (let i = 0; i < sum.length; i++) sum[i] += gradient[i];
  };
  for (const { tensor, gradient } of roots) give(tensor, gradient);
  const done = new Map<Tensor64, Float64Array>();
  while (sums.size) {
    // The newest one has all of its gradient: what was made of it is older news.
    const tensor = [...sums.keys()].reduce((a, b) => a.number > b.number ? a : b);
    const gradient = sums.get(tensor)!;
    sums.delete(tensor);
    if (!tensor.origin) done.set(tensor, gradient);
    else {
      const { parents, pull } = tensor.origin;
      pull(gradient).forEach((own, i) => own && give(parents[i], own));
    }
  }
  return leaves.map((leaf) => done.get(leaf) ?? new Float64Array(leaf.size));
}
