/**
 * Better forms of three wasm kernels of tfjs-core 4.22. Its matrix product is fast (XNNPACK) only
 * for one pair of matrices, neither transposed, and else about fifteen times slower; its tiling,
 * which broadcasting selections and gradients of sums go through, takes about 40 ns an element;
 * its one-hot writes outside of the row for an index of -1.
 *
 * @module
 */
import type { DataType, KernelFunc, NamedAttrMap, TensorInfo } from "@tensorflow/tfjs-core";
import type { BackendWasm } from "@tensorflow/tfjs-backend-wasm";
import type { Tf } from "../ops/op.ts";

/** Multiplications below which setting up XNNPACK costs more than the slow loop. */
const SMALL_PRODUCT = 16_384;

/** Puts the better kernels in the place of tfjs-core's. Call it once, before the backend starts. */
export function replaceWasmKernels(tf: Tf): void {
  replace(tf, "BatchMatMul", (original) => fastMatMul(tf, original));
  replace(tf, "Tile", (original) => fastTile(tf, original));
  replace(tf, "OneHot", () => safeOneHot);
}

function replace(tf: Tf, name: string, make: (original: KernelFunc) => KernelFunc): void {
  const config = tf.getKernel(name, "wasm");
  tf.unregisterKernel(name, "wasm");
  tf.registerKernel({ ...config, kernelFunc: make(config.kernelFunc) });
}

/** Transposes first, then multiplies pair by pair. */
function fastMatMul(tf: Tf, original: KernelFunc): KernelFunc {
  return (args) => {
    const backend = args.backend as BackendWasm;
    const { transposeA, transposeB } = args.attrs as { transposeA: boolean; transposeB: boolean };
    const inputs = args.inputs as { a: TensorInfo; b: TensorInfo };
    const [batchA, batchB] = [batchOf(inputs.a.shape), batchOf(inputs.b.shape)];
    const [rows, inner] = matrixOf(inputs.a.shape, transposeA);
    const [, cols] = matrixOf(inputs.b.shape, transposeB);
    const size = rows * inner * cols;
    if (batchA !== batchB || size < SMALL_PRODUCT) return original(args);

    const a = transposeA ? swapLast(tf, backend, inputs.a) : inputs.a;
    const b = transposeB ? swapLast(tf, backend, inputs.b) : inputs.b;
    const multiply = (a: TensorInfo, b: TensorInfo) =>
      original({ backend, inputs: { a, b }, attrs: { transposeA: false, transposeB: false } });
    let out: TensorInfo;
    if (batchA === 1) out = multiply(a, b) as TensorInfo;
    else {
      out = backend.makeOutput([...a.shape.slice(0, -2), rows, cols], "float32");
      for (let i = 0; i < batchA; i++) {
        const left = matrixAt(backend, a, i, [1, rows, inner]);
        const right = matrixAt(backend, b, i, [1, inner, cols]);
        const product = multiply(left, right) as TensorInfo;
        backend.typedArrayFromHeap(out).set(backend.typedArrayFromHeap(product), i * rows * cols);
        for (const part of [left, right, product]) backend.disposeData(part.dataId);
      }
    }
    if (transposeA) backend.disposeData(a.dataId);
    if (transposeB) backend.disposeData(b.dataId);
    return out;
  };
}

/** Repeats axes of size 1 by adding zeros, which broadcasts fast. */
function fastTile(tf: Tf, original: KernelFunc): KernelFunc {
  return (args) => {
    const { x } = args.inputs as { x: TensorInfo };
    const { reps } = args.attrs as { reps: number[] };
    const backend = args.backend as BackendWasm;
    const broadcasts = reps.every((n, i) => n === 1 || x.shape[i] === 1);
    if (!broadcasts || (x.dtype !== "float32" && x.dtype !== "bool")) return original(args);
    const run = (name: string, inputs: Record<string, TensorInfo>, attrs: NamedAttrMap) =>
      tf.getKernel(name, "wasm").kernelFunc({ backend, inputs, attrs }) as TensorInfo;
    const float = run("Cast", { x }, { dtype: "float32" });
    const zeros = backend.makeOutput(x.shape.map((n, i) => n * reps[i]), "float32");
    backend.typedArrayFromHeap(zeros).fill(0);
    const sum = run("Add", { a: float, b: zeros }, {});
    const out = run("Cast", { x: sum }, { dtype: x.dtype });
    for (const part of [float, zeros, sum]) backend.disposeData(part.dataId);
    return out;
  };
}

/** Leaves the rows of indices outside of the range without a hit. */
function safeOneHot({ inputs, attrs, backend: owner }: Parameters<KernelFunc>[0]): TensorInfo {
  const backend = owner as BackendWasm;
  const { indices } = inputs as { indices: TensorInfo };
  const { depth, onValue, offValue, dtype } = attrs as {
    depth: number;
    onValue: number;
    offValue: number;
    dtype: DataType;
  };
  const out = backend.makeOutput([...indices.shape, depth], dtype);
  const values = backend.typedArrayFromHeap(out).fill(offValue);
  backend.typedArrayFromHeap(indices).forEach((index, i) => {
    if (index >= 0 && index < depth) values[i * depth + index] = onValue;
  });
  return out;
}

function swapLast(tf: Tf, backend: BackendWasm, x: TensorInfo): TensorInfo {
  const last = x.shape.length - 1;
  const perm = [...Array(last - 1).keys(), last, last - 1];
  return tf.getKernel("Transpose", "wasm").kernelFunc({
    backend,
    inputs: { x },
    attrs: { perm },
  }) as TensorInfo;
}

/** A copy of one matrix of a batch. */
function matrixAt(
  backend: BackendWasm,
  x: TensorInfo,
  index: number,
  shape: [number, number, number],
): TensorInfo {
  const size = shape[1] * shape[2];
  const out = backend.makeOutput(shape, "float32");
  const from = backend.typedArrayFromHeap(x).subarray(index * size, (index + 1) * size);
  backend.typedArrayFromHeap(out).set(from);
  return out;
}

function batchOf(shape: readonly number[]): number {
  return shape.slice(0, -2).reduce((product, n) => product * n, 1);
}

/** Rows and columns of the last two axes, after transposing. */
function matrixOf(shape: readonly number[], transposed: boolean): [number, number] {
  const [rows, cols] = shape.slice(-2);
  return transposed ? [cols, rows] : [rows, cols];
}
