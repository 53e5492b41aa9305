/** Runs an op's kernels and its twin on the same inputs, for comparisons that have to be exact. */
import { TfjsBackend, type TfjsTensor } from "../src/tfjs/backend.ts";
import type { Dtype, Storage, Tensor } from "../src/ops/op.ts";
import type { Capabilities } from "../src/kernels/wgsl/device.ts";
import { Graph } from "../src/graph/graph.ts";
import { lower } from "../src/graph/lower.ts";
import { matrixAt } from "../src/ops/matrix.ts";
import { createStorageBuffer, Plan, SlotPool } from "../src/webgpu/plan/plan.ts";
import { ReadBack } from "../src/webgpu/device/read_back.ts";
import { testGpu } from "./check_op.ts";
import { tensor64 } from "./float64_backend.ts";

/** An input with its values. */
export interface RunInput {
  rows: number;
  cols: number;
  dtype?: Dtype;
  values: ArrayLike<number>;
}

/** What ops return: their outputs' values, row-major. */
export type Values = Float32Array | Int32Array;

/** Outputs of the kernels, whose labels are added to `labels`. All memory but the inputs starts as NaN. */
export async function runOp(
  inputs: readonly RunInput[],
  apply: (inputs: Tensor[]) => Tensor[],
  changes: Partial<Capabilities> = {},
  labels: string[] = [],
): Promise<Values[]> {
  const gpu = await testGpu();
  const fixed = new Map<Storage, GPUBuffer>();
  const graph = new Graph();
  const leaves = inputs.map(({ rows, cols, dtype, values }, i) => {
    const storage = { label: `input ${i}`, size: rows * cols };
    const buffer = createStorageBuffer(gpu, storage.label, storage.size);
    const array = dtype === "i32" ? Int32Array.from(values) : Float32Array.from(values);
    gpu.device.queue.writeBuffer(buffer, 0, array);
    fixed.set(storage, buffer);
    return graph.leaf(matrixAt(storage, 0, { rows, cols, dtype }), { trained: false });
  });
  const outputs = apply(leaves) as typeof leaves;
  const capabilities = { ...gpu.capabilities, ...changes };
  const program = lower(graph, { capabilities, keep: outputs });
  labels.push(...program.dispatches.map(({ kernel }) => kernel.label));
  const pool = new SlotPool(gpu);
  const plan = new Plan(gpu, program, fixed, pool);
  pool.poison();
  plan.submit();
  const results: Values[] = [];
  for (const output of outputs) {
    const m = program.locate(output);
    const buffer = plan.buffer(m.storage);
    const reader = new ReadBack(gpu, buffer.size);
    const bytes = await reader.read(buffer, 0, buffer.size);
    reader.destroy();
    const all = output.dtype === "i32" ? new Int32Array(bytes) : new Float32Array(bytes);
    const start = m.base + m.offset;
    results.push(all.slice(start, start + m.rows * m.cols));
  }
  await gpu.settle();
  plan.destroy();
  pool.destroy();
  for (const buffer of fixed.values()) buffer.destroy();
  return results;
}

/** Outputs of the twin, in float64 or on wasm. */
export async function runTwin(
  inputs: readonly RunInput[],
  apply: (inputs: Tensor[]) => Tensor[],
  kind: "float64" | "wasm" = "float64",
): Promise<ArrayLike<number>[]> {
  const backend = await TfjsBackend.open(kind);
  const leaves = inputs.map(({ rows, cols, dtype, values }) =>
    kind === "wasm" || dtype === "i32"
      ? backend.tensor(values, rows, cols, dtype)
      : backend.wrap(tensor64(values, [rows, cols]) as TfjsTensor["value"])
  );
  return apply(leaves).map((output) => backend.read(output));
}
