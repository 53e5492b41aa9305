/**
 * A tfjs-core backend in float64, so that naive twins are exact oracles: their outputs, and their
 * gradients through `registerGradients`, carry about 15 digits. Plain loops, for small shapes.
 *
 * A tensor of dtype "float32" holds a Float64Array here. tfjs-core rounds numbers that it turns
 * into tensors itself (`tf.tensor`, the 0.1 in `tf.mul(x, 0.1)`) to float32, as a GPU kernel does
 * with its constants; {@linkcode tensor64} makes tensors without rounding.
 *
 * Importing this module registers the backend, so that `TfjsBackend.open("float64")` finds it.
 *
 * @module
 */
import * as tf from "@tensorflow/tfjs-core";
import { registerGradients } from "../src/tfjs/gradients.ts";
import type { Values } from "./float64_blocks.ts";
import { float64Kernels } from "./float64_kernels.ts";

/** What tfjs-core writes to a backend. */
type Written = Parameters<tf.KernelBackend["write"]>[0];

interface Entry {
  values: Values;
  references: number;
}

class Float64Backend extends tf.KernelBackend {
  #entries = new tf.DataStorage<Entry>(this, tf.engine());

  override write(values: Written, shape: number[], dtype: tf.DataType): object {
    const dataId = {};
    this.move(dataId, values, shape, dtype, 1);
    return dataId;
  }

  override move(
    dataId: object,
    values: Written,
    _shape: number[],
    dtype: tf.DataType,
    references: number,
  ): void {
    const wanted = dtype === "float32" ? Float64Array : dtype === "int32" ? Int32Array : Uint8Array;
    const own = values instanceof wanted ? values : wanted.from(values as ArrayLike<number>);
    this.#entries.set(dataId, { values: own, references });
  }

  override readSync(dataId: object): tf.backend_util.TypedArray {
    // tfjs-core's type of a read knows no Float64Array, but hands it on as it is.
    return this.#entries.get(dataId).values as tf.backend_util.TypedArray;
  }

  override read(dataId: object): Promise<tf.backend_util.TypedArray> {
    return Promise.resolve(this.readSync(dataId));
  }

  override disposeData(dataId: object, force = false): boolean {
    if (!this.#entries.has(dataId)) return true;
    const entry = this.#entries.get(dataId);
    entry.references--;
    if (!force && entry.references > 0) return false;
    this.#entries.delete(dataId);
    return true;
  }

  override incRef(dataId: object): void {
    this.#entries.get(dataId).references++;
  }

  override refCount(dataId: object): number {
    return this.#entries.has(dataId) ? this.#entries.get(dataId).references : 0;
  }

  override numDataIds(): number {
    return this.#entries.numDataIds();
  }

  override memory(): { unreliable: boolean } {
    return { unreliable: false };
  }

  override floatPrecision(): 32 {
    return 32;
  }

  override dispose(): void {}
}

tf.registerBackend("float64", () => new Float64Backend());
for (const config of float64Kernels()) tf.registerKernel(config);
registerGradients(tf);

/** Makes "float64" tfjs-core's current backend and returns tfjs-core. */
export function useFloat64(): typeof tf {
  // It starts synchronously, so it is current when this call returns.
  if (tf.getBackend() !== "float64") void tf.setBackend("float64");
  return tf;
}

/** A tensor on the backend "float64", its values not rounded. */
export function tensor64(values: ArrayLike<number>, shape: number[]): tf.Tensor {
  useFloat64();
  const size = shape.reduce((product, n) => product * n, 1);
  if (values.length !== size) {
    throw new RangeError(`Cannot shape ${values.length} values as [${shape}]: it takes ${size}`);
  }
  // The engine stores what the backend gets; only its type insists on float32.
  const own = Float64Array.from(values) as unknown as tf.backend_util.TypedArray;
  return tf.engine().makeTensor(own, shape, "float32");
}

/** The values of a tensor of the backend "float64", copied. */
export function values64(tensor: tf.Tensor): Float64Array {
  return Float64Array.from(tensor.dataSync());
}

/**
 * Slopes of the sum of `f` by central differences, one array for each input:
 * (f(x + step) - f(x - step)) / (2 step), element by element. In float64 a step of 1e-5 leaves an
 * error of about 1e-10 for smooth functions of size 1.
 */
export function centralDifferences(
  f: (...inputs: tf.Tensor[]) => tf.Tensor,
  inputs: readonly tf.Tensor[],
  step = 1e-5,
): Float64Array[] {
  const values = inputs.map(values64);
  const total = () =>
    tf.tidy(() => {
      const output = f(...values.map((v, i) => tensor64(v, inputs[i].shape)));
      return values64(output).reduce((sum, v) => sum + v, 0);
    });
  return values.map((v) =>
    v.map((_, i, all) => {
      const x = v[i];
      all[i] = x + step;
      const above = total();
      all[i] = x - step;
      const below = total();
      all[i] = x;
      return (above - below) / (2 * step);
    })
  );
}
