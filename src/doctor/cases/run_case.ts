/**
 * Runs an op's kernels on inputs and gradients of its outputs, in memory that starts as NaN.
 *
 * @module
 */
import type { Kernel } from "../../kernels/wgsl/kernel.ts";
import { matrixAt } from "../../ops/matrix.ts";
import type { Capabilities } from "../../kernels/wgsl/device.ts";
import type { Dtype, Matrix, Storage, Tensor } from "../../ops/op.ts";
import type { Gpu } from "../../webgpu/device/device.ts";
import { Graph, type GraphTensor } from "../../graph/graph.ts";
import { lower } from "../../graph/lower.ts";
import { createStorageBuffer, Plan, SlotPool } from "../../webgpu/plan/plan.ts";
import { ReadBack } from "../../webgpu/device/read_back.ts";

/** The ways in which a gradient may have to be written. */
export const MODES = ["write", "strided", "addInPlace", "addFrom"] as const;
/** One of {@linkcode MODES}. */
export type Mode = typeof MODES[number];

/** Shape of a matrix, f32 by default. */
interface Shape {
  readonly rows: number;
  readonly cols: number;
  readonly dtype?: Dtype;
}

/** An input with its values. */
export interface GivenInput extends Shape {
  readonly values: Float32Array | Int32Array;
  /** Whether its gradient is wanted. */
  readonly gradient: boolean;
}

/** What to run. */
export interface CaseRun {
  readonly inputs: readonly GivenInput[];
  readonly apply: (inputs: Tensor[]) => Tensor[];
  /** Gradients of outputs, by number. */
  readonly cotangents: ReadonlyMap<number, Float32Array>;
  /** Outputs that are losses, with their weights. */
  readonly losses?: Readonly<Record<number, number>>;
  readonly mode: Mode;
  /** What the kernels are to think the device can do, beside what it can. */
  readonly capabilities?: Partial<Capabilities>;
  /** That many random numbers. */
  readonly random: (count: number) => Float32Array;
  /** What to run instead of a kernel. */
  readonly change?: (kernel: Kernel) => Kernel;
}

/** What an op's kernels have written. */
export interface CaseResult {
  readonly outputs: readonly (Float32Array | Int32Array)[];
  /** Of each input: its gradient and what it was added to, or null where none is wanted. */
  readonly gradients: readonly ({ got: Float32Array; earlier: Float32Array | null } | null)[];
}

/** Runs an op once. */
export async function runCase(gpu: Gpu, run: CaseRun): Promise<CaseResult> {
  const memory = new CaseMemory(gpu, run.mode === "strided");
  const pool = new SlotPool(gpu);
  try {
    return await runIn(gpu, memory, pool, run);
  } finally {
    pool.destroy();
    memory.destroy();
  }
}

async function runIn(
  gpu: Gpu,
  memory: CaseMemory,
  pool: SlotPool,
  { inputs, apply, losses = {}, mode, random, change, ...run }: CaseRun,
): Promise<CaseResult> {
  const graph = new Graph();
  const leaves = inputs.map((input, i) =>
    graph.leaf(memory.place(`input ${i}`, input, input.values), {
      trained: input.gradient,
      gradient: mode === "strided" && input.gradient
        ? memory.place(`gradient ${i}`, { rows: input.rows, cols: input.cols }, null)
        : null,
    })
  );
  const outputs = apply(leaves) as GraphTensor[];
  const cotangents = [...run.cotangents].map(([i, values]) => ({
    tensor: outputs[i],
    matrix: memory.place(`cotangent ${i}`, outputs[i], values),
  }));
  // An earlier contribution to each input's gradient; shared with a second leaf it may not be
  // overwritten, so the op must add from it.
  const earlier = inputs.map(({ rows, cols, gradient }, i) => {
    if (!gradient || (mode !== "addInPlace" && mode !== "addFrom")) return null;
    const values = random(rows * cols);
    const matrix = memory.place(`earlier ${i}`, { rows, cols }, values);
    cotangents.push({ tensor: leaves[i], matrix });
    if (mode === "addFrom") {
      cotangents.push({ tensor: graph.leaf(matrix, { trained: true }), matrix });
    }
    return values;
  });
  const program = lower(graph, {
    capabilities: { ...gpu.capabilities, ...run.capabilities },
    cotangents,
    losses: Object.entries(losses).map(([i, weight]) => ({ tensor: outputs[Number(i)], weight })),
    keep: outputs,
  });
  const dispatches = change
    ? program.dispatches.map((d) => ({ ...d, kernel: change(d.kernel) }))
    : program.dispatches;
  const plan = new Plan(gpu, { ...program, dispatches }, memory.buffers, pool);
  try {
    pool.poison();
    plan.submit();
    const read = (m: Matrix) => readMatrix(gpu, plan.buffer(m.storage), m);
    const results: CaseResult["outputs"][number][] = [];
    for (const output of outputs) results.push(await read(program.locate(output)));
    const gradients: CaseResult["gradients"][number][] = [];
    for (const [i, { gradient }] of inputs.entries()) {
      const got = gradient ? await read(program.gradient(leaves[i])) : null;
      gradients.push(got && { got: got as Float32Array, earlier: earlier[i] });
    }
    await gpu.settle();
    return { outputs: results, gradients };
  } finally {
    plan.destroy();
  }
}

/** Buffers of our own, NaN beside the values that they are given. */
class CaseMemory {
  readonly buffers = new Map<Storage, GPUBuffer>();
  readonly #gpu: Gpu;
  readonly #isStrided: boolean;

  /** @param isStrided whether matrices lie inside larger ones */
  constructor(gpu: Gpu, isStrided: boolean) {
    this.#gpu = gpu;
    this.#isStrided = isStrided;
  }

  place(label: string, shape: Shape, values: ArrayLike<number> | null): Matrix {
    const stride = shape.cols + (this.#isStrided ? 3 : 0);
    const start = this.#isStrided ? 69 : 0;
    const storage = { label, size: start + shape.rows * stride };
    const all = new Float32Array(storage.size).fill(NaN);
    const target = shape.dtype === "i32" ? new Int32Array(all.buffer) : all;
    for (let r = 0; values && r < shape.rows; r++) {
      for (let c = 0; c < shape.cols; c++) {
        target[start + r * stride + c] = values[r * shape.cols + c];
      }
    }
    const buffer = createStorageBuffer(this.#gpu, label, storage.size);
    this.#gpu.device.queue.writeBuffer(buffer, 0, all);
    this.buffers.set(storage, buffer);
    return matrixAt(storage, start, { ...shape, stride });
  }

  destroy(): void {
    for (const buffer of this.buffers.values()) buffer.destroy();
  }
}

async function readMatrix(
  gpu: Gpu,
  buffer: GPUBuffer,
  m: Matrix,
): Promise<Float32Array | Int32Array> {
  const reader = new ReadBack(gpu, buffer.size);
  const bytes = await reader.read(buffer, 0, buffer.size);
  reader.destroy();
  const all = m.dtype === "i32" ? new Int32Array(bytes) : new Float32Array(bytes);
  const out = m.dtype === "i32"
    ? new Int32Array(m.rows * m.cols)
    : new Float32Array(m.rows * m.cols);
  for (let r = 0; r < m.rows; r++) {
    const start = m.base + m.offset + r * m.stride;
    out.set(all.subarray(start, start + m.cols), r * m.cols);
  }
  return out;
}
