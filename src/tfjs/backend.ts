/**
 * The backend `tfjs`: runs an op's naive twin at once, on tfjs-core. It is what `device=cpu`
 * trains on (wasm) and, in float64, the truth that tests compare kernels with.
 *
 * tfjs-core keeps one current backend for the whole process. Every call here makes its own
 * current first, so two of them can be used in turn; a tensor belongs to the one that made it.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import { UserError } from "../errors.ts";
import type { Backend, Dtype, Op, Tensor, TensorType, Tf, TfMatrix } from "../ops/op.ts";
import { registerGradients } from "./gradients.ts";
import { replaceWasmKernels } from "./wasm_kernels.ts";

/**
 * Where twins run: on tfjs-core's WebAssembly kernels, or on a backend "float64" that the caller
 * has registered with tfjs-core (the tests have one).
 */
export type TfjsKind = "wasm" | "float64";

/** A matrix with its tfjs-core tensor. */
export interface TfjsTensor extends Tensor {
  readonly backend: TfjsBackend;
  readonly value: TfMatrix;
}

/** Values of f32 matrices: float32, or float64 on the backend of that name. */
export type Floats = Float32Array | Float64Array;

/**
 * Applies ops eagerly.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { add } from "../ops/token/add.ts";
 * import { TfjsBackend } from "./backend.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const x = backend.tensor([1, 2, 3, 4], 2, 2);
 * assert.deepEqual([...backend.read(add(x, x))], [2, 4, 6, 8]);
 * ```
 */
export class TfjsBackend implements Backend {
  private constructor(readonly tf: Tf, readonly kind: TfjsKind) {}

  /**
   * Loads tfjs-core and makes one of its backends ready.
   *
   * @throws {UserError} if the npm packages cannot be loaded
   * @throws {RangeError} if no backend "float64" is registered
   */
  static async open(kind: TfjsKind): Promise<TfjsBackend> {
    const tf = await loadTf(kind);
    if (!tf.engine().registryFactory[kind]) {
      throw new RangeError(`Cannot open tfjs ${kind}: register that backend with tfjs-core first`);
    }
    if (!await tf.setBackend(kind)) {
      throw new UserError(`Cannot start tfjs ${kind}: its initialisation failed`);
    }
    registerGradients(tf);
    return new TfjsBackend(tf, kind);
  }

  /** Makes this backend tfjs-core's current one. */
  activate(): void {
    // Once initialised, a backend becomes current before this call returns.
    if (this.tf.getBackend() !== this.kind) void this.tf.setBackend(this.kind);
  }

  apply<A>(op: Op<A>, inputs: readonly Tensor[], attributes: A): TfjsTensor[] {
    this.activate();
    const types = op.types(inputs, attributes);
    const values = inputs.map((input, i) => {
      if (isTfjsTensor(input) && input.backend.kind === this.kind) return input.value;
      throw new RangeError(
        `Cannot apply ${op.name} on tfjs ${this.kind}: input ${i} belongs to another backend`,
      );
    });
    const outputs = this.tf.tidy(() => op.twin(this.tf, values, attributes));
    return types.map((type, i) => {
      const wrapped = outputs[i] && this.wrap(outputs[i], type.dtype);
      if (wrapped?.rows !== type.rows || wrapped.cols !== type.cols) {
        throw new Error(
          `Twin of ${op.name}: output ${i} is [${
            outputs[i]?.shape
          }], not ${type.rows}x${type.cols}`,
        );
      }
      return wrapped;
    });
  }

  /**
   * A `[rows, cols]` matrix of these values, row-major.
   *
   * @throws {RangeError} if their number is not rows · cols
   */
  tensor(values: ArrayLike<number>, rows: number, cols: number, dtype: Dtype = "f32"): TfjsTensor {
    if (values.length !== rows * cols) {
      throw new RangeError(`Cannot make ${rows}x${cols} of ${values.length} values`);
    }
    this.activate();
    const own = dtype === "i32" ? Int32Array.from(values) : this.floats(values);
    // The engine hands float64 values on as they are; only its type does not know them.
    const value = this.tf.engine().makeTensor(
      own as Float32Array,
      [rows, cols],
      dtype === "i32" ? "int32" : "float32",
    );
    return this.wrap(value as TfMatrix, dtype);
  }

  /** A tfjs-core tensor as a matrix; its memory stays the caller's. */
  wrap(value: TfMatrix, dtype: Dtype = "f32"): TfjsTensor {
    const [rows, cols] = value.shape;
    return { rows, cols, dtype, backend: this, value };
  }

  /** The values of a matrix, row-major, copied. */
  read(tensor: Tensor): Floats | Int32Array {
    if (!isTfjsTensor(tensor)) throw new RangeError("Cannot read a tensor of another backend");
    const values = tensor.value.dataSync() as Floats | Int32Array;
    return values.slice();
  }

  /** An array of this backend's precision, copied from `values`. */
  floats(values: ArrayLike<number>): Floats {
    return this.kind === "float64" ? Float64Array.from(values) : Float32Array.from(values);
  }

  /** Zeros of this backend's precision. */
  zeros(type: Pick<TensorType, "rows" | "cols">): Floats {
    const size = type.rows * type.cols;
    return this.kind === "float64" ? new Float64Array(size) : new Float32Array(size);
  }
}

function isTfjsTensor(tensor: Tensor): tensor is TfjsTensor {
  return tensor.backend instanceof TfjsBackend;
}

/** Loads the packages. They are imported here and nowhere else outside tests. */
async function loadTf(kind: TfjsKind): Promise<Tf> {
  try {
    const tf = await import("@tensorflow/tfjs-core");
    if (kind === "wasm" && !tf.findBackend("wasm")) {
      const { setWasmPaths } = await import("@tensorflow/tfjs-backend-wasm");
      const entry = import.meta.resolve("@tensorflow/tfjs-backend-wasm");
      // The binaries lie beside the package's entry; under Node's rules they are read as files.
      setWasmPaths(fileURLToPath(new URL("./", entry)));
      replaceWasmKernels(tf);
    }
    return tf;
  } catch (cause) {
    throw new UserError(
      "Cannot load @tensorflow/tfjs-core from npm: run `deno install` once with network access",
      { cause },
    );
  }
}
