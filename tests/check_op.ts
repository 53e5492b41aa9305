/**
 * Compares an op's kernels with its naive twin: outputs and the gradient of every input, into
 * NaN-filled memory, in every way a gradient may have to be written.
 */
import assert from "node:assert/strict";
import { relativeError } from "../src/doctor/cases/check_case.ts";
import { type Mode, MODES, runCase } from "../src/doctor/cases/run_case.ts";
import type { Capabilities } from "../src/kernels/wgsl/device.ts";
import type { Dtype, Tensor } from "../src/ops/op.ts";
import { TfjsBackend, type TfjsTensor } from "../src/tfjs/backend.ts";
import { Gpu } from "../src/webgpu/device/device.ts";
import { tensor64, values64 } from "./float64_backend.ts";

export { relativeError } from "../src/doctor/cases/check_case.ts";

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

/** The same adapter as if it was a GPU: for the kernels that only those choose. */
export function asGpu(gpu: Gpu): Gpu {
  const capabilities = { ...gpu.capabilities, software: false };
  return new Proxy(gpu, {
    get(gpu, key) {
      if (key === "capabilities") return capabilities;
      const value = Reflect.get(gpu, key);
      return typeof value === "function" ? value.bind(gpu) : value;
    },
  });
}

/**
 * Fails with the tensor's name unless the relative error is within `tolerance`.
 *
 * @param earlier what was added to, if anything
 */
export function assertClose(
  name: string,
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  tolerance: number,
  earlier?: ArrayLike<number> | null,
): void {
  const error = relativeError(got, want, earlier);
  assert(error <= tolerance, `${name}: relative error ${error.toExponential(2)} > ${tolerance}`);
}

/** Standard normal numbers. */
export function randomNormal(count: number): Float32Array {
  return Float32Array.from(
    { length: count },
    () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random()),
  );
}

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
  { inputs, apply, losses, capabilities, tolerance = {} }: CheckOptions,
  values: readonly (Float32Array | Int32Array)[],
  twin: Twin,
  mode: Mode,
): Promise<void> {
  const { outputs, gradients } = await runCase(await testGpu(), {
    inputs: inputs.map((x, i) => ({ ...x, values: values[i], gradient: hasGradient(x) })),
    ...{ apply, cotangents: twin.cotangents, losses, mode, capabilities, random: randomNormal },
  });
  const { forward = 1e-5, gradient = 1e-4 } = tolerance;
  for (const [i, output] of outputs.entries()) {
    assertClose(`${name} output ${i}`, output, twin.outputs[i], forward);
  }
  for (const [i, want] of twin.gradients.entries()) {
    if (!want) continue;
    const { got, earlier } = gradients[i]!;
    const total = earlier ? want.map((x, j) => x + earlier[j]) : want;
    assertClose(`${name} gradient ${i}`, got, total, gradient, earlier);
  }
}
