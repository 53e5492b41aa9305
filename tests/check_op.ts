/**
 * Compares an op's kernels with its naive twin: outputs and the gradient of every input, into
 * NaN-filled memory, in every way a gradient may have to be written.
 */
import assert from "node:assert/strict";
import type { Dtype, Matrix, Storage, Tensor } from "../src/ops/op.ts";
import type { Capabilities } from "../src/kernels/wgsl/device.ts";
import { Gpu } from "../src/webgpu/device/device.ts";
import { Graph } from "../src/graph/graph.ts";
import { lower } from "../src/graph/lower.ts";
import { matrixAt } from "../src/ops/matrix.ts";
import { createStorageBuffer, Plan, SlotPool } from "../src/webgpu/plan/plan.ts";
import { ReadBack } from "../src/webgpu/device/read_back.ts";
import { TfjsBackend, type TfjsTensor } from "../src/tfjs/backend.ts";
import { tensor64, values64 } from "./float64_backend.ts";

/** One input of the op under test. */
export interface CheckInput {
  rows: number;
  cols: number;
  dtype?: Dtype;
  /** Default: standard normal numbers. */
  values?: ArrayLike<number>;
  /** Default: true for f32. */
  gradient?: boolean;
}

/** What to check. */
export interface CheckOptions {
  inputs: CheckInput[];
  apply: (inputs: Tensor[]) => Tensor[];
  /** Outputs that get a random cotangent; default the first. */
  cotangents?: number[];
  /** Outputs that are losses, with their weight in the objective (then no cotangents). */
  losses?: Record<number, number>;
  /** Override what the kernels think the device can do, e.g. `{ software: false }`. */
  capabilities?: Partial<Capabilities>;
  /** Relative errors allowed. */
  tolerance?: { forward?: number; gradient?: number };
}

let shared: Gpu | null = null;

/** The device of the test process. Tests fail, and never skip, where there is no adapter. */
export async function testGpu(): Promise<Gpu> {
  if (!shared) {
    shared = await Gpu.open();
    addEventListener("unload", () => shared?.destroy());
  }
  assert(
    shared,
    "No WebGPU adapter: install a Vulkan driver (apt-get install mesa-vulkan-drivers)",
  );
  return shared;
}

/** ‖got − want‖ / ‖want‖, infinite if anything is not a number. */
export function relativeError(got: ArrayLike<number>, want: ArrayLike<number>): number {
  assert.equal(got.length, want.length);
  let difference = 0, norm = 0;
  for (let i = 0; i < got.length; i++) {
    difference += (got[i] - want[i]) ** 2;
    norm += want[i] ** 2;
  }
  if (Number.isNaN(difference)) return Infinity;
  return norm === 0 ? Math.sqrt(difference) : Math.sqrt(difference / norm);
}

/** Fails with the tensor's name unless the relative error is within `tolerance`. */
export function assertClose(
  name: string,
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  tolerance: number,
): void {
  const error = relativeError(got, want);
  assert(error <= tolerance, `${name}: relative error ${error.toExponential(2)} > ${tolerance}`);
}

/** Standard normal numbers. */
export function randomNormal(count: number): Float32Array {
  return Float32Array.from(
    { length: count },
    () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random()),
  );
}

const MODES = ["write", "strided", "addInPlace", "addFrom"] as const;
type Mode = typeof MODES[number];

/** Checks an op in all modes. */
export async function checkOp(name: string, options: CheckOptions): Promise<void> {
  const values = options.inputs.map(({ rows, cols, values, dtype }) => {
    const array = values ?? randomNormal(rows * cols);
    assert.equal(array.length, rows * cols);
    return dtype === "i32" ? Int32Array.from(array) : Float32Array.from(array);
  });
  const twin = await runTwin(options, values);
  for (const mode of MODES) await checkMode(`${name} (${mode})`, options, values, twin, mode);
}

interface Twin {
  outputs: Float64Array[];
  cotangents: Map<number, Float32Array>;
  gradients: (Float64Array | null)[];
}

const hasGradient = (input: CheckInput) => input.gradient ?? input.dtype !== "i32";

async function runTwin(
  options: CheckOptions,
  values: readonly (Float32Array | Int32Array)[],
): Promise<Twin> {
  const backend = await TfjsBackend.open("float64");
  const tf = backend.tf;
  const cotangents = new Map<number, Float32Array>();
  const inputs = options.inputs.map((input, i) =>
    input.dtype === "i32"
      ? tf.tensor2d(values[i] as Int32Array, [input.rows, input.cols], "int32")
      : tensor64(values[i], [input.rows, input.cols])
  );
  const run = (tensors: typeof inputs) =>
    options.apply(
      tensors.map((t, i) => backend.wrap(t as never, options.inputs[i].dtype ?? "f32")),
    );
  const outputs = run(inputs).map((t) => values64((t as TfjsTensor).value));
  if (!options.losses) {
    for (const i of options.cotangents ?? [0]) cotangents.set(i, randomNormal(outputs[i].length));
  }
  const wanted = options.inputs.flatMap((input, i) => hasGradient(input) ? [i] : []);
  const objective = (...leaves: unknown[]) => {
    const all = [...inputs];
    wanted.forEach((i, k) => all[i] = leaves[k] as never);
    const out = run(all).map((t) => (t as TfjsTensor).value);
    const terms = options.losses
      ? Object.entries(options.losses).map(([i, w]) =>
        tf.sum(tf.mul(out[Number(i)], tensor64([w], [1, 1])))
      )
      : [...cotangents].map(([i, c]) => tf.sum(tf.mul(out[i], tensor64(c, out[i].shape))));
    return terms.reduce((a, b) => tf.add(a, b)) as never;
  };
  const gradients: (Float64Array | null)[] = options.inputs.map(() => null);
  if (wanted.length) {
    const grads = tf.grads(objective)(wanted.map((i) => inputs[i]));
    wanted.forEach((i, k) => gradients[i] = values64(grads[k]));
  }
  return { outputs, cotangents, gradients };
}

async function checkMode(
  name: string,
  options: CheckOptions,
  values: readonly (Float32Array | Int32Array)[],
  twin: Twin,
  mode: Mode,
): Promise<void> {
  const gpu = await testGpu();
  const capabilities = { ...gpu.capabilities, ...options.capabilities };
  const fixed = new Map<Storage, GPUBuffer>();
  /** Memory of our own: NaN, with `values` in the matrix. */
  const place = (
    label: string,
    shape: { rows: number; cols: number; dtype?: Dtype },
    values: ArrayLike<number> | null,
  ): Matrix => {
    const strided = mode === "strided";
    const stride = shape.cols + (strided ? 3 : 0);
    const start = strided ? 69 : 0;
    const storage = { label, size: start + shape.rows * stride };
    const all = new Float32Array(storage.size).fill(NaN);
    const target = shape.dtype === "i32" ? new Int32Array(all.buffer) : all;
    for (let r = 0; values && r < shape.rows; r++) {
      for (let c = 0; c < shape.cols; c++) {
        target[start + r * stride + c] = values[r * shape.cols + c];
      }
    }
    const buffer = createStorageBuffer(gpu, label, storage.size);
    gpu.device.queue.writeBuffer(buffer, 0, all);
    fixed.set(storage, buffer);
    return matrixAt(storage, start, { ...shape, stride });
  };

  const graph = new Graph();
  const leaves = options.inputs.map((input, i) =>
    graph.leaf(place(`input ${i}`, input, values[i]), {
      trained: hasGradient(input),
      gradient: mode === "strided" && hasGradient(input)
        ? place(`gradient ${i}`, { rows: input.rows, cols: input.cols }, null)
        : null,
    })
  );
  const outputs = options.apply(leaves) as typeof leaves;
  const cotangents = [...twin.cotangents].map(([i, c]) => ({
    tensor: outputs[i],
    matrix: place(`cotangent ${i}`, outputs[i], c),
  }));
  // An earlier contribution to each input's gradient; shared with a second leaf it may not be
  // overwritten, so the op must add from it.
  const earlier = new Map<number, Float32Array>();
  if (mode === "addInPlace" || mode === "addFrom") {
    options.inputs.forEach((input, i) => {
      if (!hasGradient(input)) return;
      const values = randomNormal(input.rows * input.cols);
      earlier.set(i, values);
      const matrix = place(`earlier ${i}`, { rows: input.rows, cols: input.cols }, values);
      cotangents.push({ tensor: leaves[i], matrix });
      if (mode === "addFrom") {
        cotangents.push({ tensor: graph.leaf(matrix, { trained: true }), matrix });
      }
    });
  }
  const program = lower(graph, {
    capabilities,
    cotangents,
    losses: Object.entries(options.losses ?? {}).map(([i, weight]) => ({
      tensor: outputs[Number(i)],
      weight,
    })),
    keep: outputs,
  });
  const pool = new SlotPool(gpu);
  const plan = new Plan(gpu, program, fixed, pool);
  pool.poison();
  plan.submit();

  const read = async (m: Matrix) => {
    const buffer = plan.buffer(m.storage);
    const reader = new ReadBack(gpu, buffer.size);
    const all = new Float32Array(await reader.read(buffer, 0, buffer.size));
    reader.destroy();
    const out = new Float32Array(m.rows * m.cols);
    for (let r = 0; r < m.rows; r++) {
      const start = m.base + m.offset + r * m.stride;
      out.set(all.subarray(start, start + m.cols), r * m.cols);
    }
    return out;
  };
  const { forward = 1e-5, gradient = 1e-4 } = options.tolerance ?? {};
  for (const [i, output] of outputs.entries()) {
    assertClose(
      `${name} output ${i}`,
      await read(program.locate(output)),
      twin.outputs[i],
      forward,
    );
  }
  for (const [i, want] of twin.gradients.entries()) {
    if (!want) continue;
    const before = earlier.get(i);
    const total = before ? want.map((x, j) => x + before[j]) : want;
    assertClose(`${name} gradient ${i}`, await read(program.gradient(leaves[i])), total, gradient);
  }
  await gpu.settle();
  plan.destroy();
  pool.destroy();
  for (const buffer of fixed.values()) buffer.destroy();
}
