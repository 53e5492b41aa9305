/**
 * Times index scores and top-k, as the op `indexTopk` runs them on one chunk, with keys 0 … firstRow
 * + rows:
 *
 *     deno run -A tests/kernels/top_k_bench.ts            shapes for this adapter
 *     deno run -A tests/kernels/top_k_bench.ts 8 1024 0 8 64 256
 *
 * The numbers are batch, rows, firstRow, heads, dim, k. Prints the median of 9 runs in ms, GFLOP/s of
 * the scores and GB/s of the top-k, and the time to make each pipeline.
 */
import { indexScores } from "../../src/kernels/indexer/scores.ts";
import { topK } from "../../src/kernels/select/top_k.ts";
import { Gpu } from "../../src/webgpu/device/device.ts";
import { layout, runKernels } from "../run_kernel.ts";

type Shape = [batch: number, rows: number, firstRow: number, heads: number, dim: number, k: number];

const SOFTWARE_SHAPES: Shape[] = [
  [8, 128, 0, 4, 16, 32],
  [1, 1024, 0, 4, 32, 128],
];

/** The presets tiny, small, base and long (its first, its last chunk), and a longer context. */
const GPU_SHAPES: Shape[] = [
  [16, 256, 0, 4, 32, 64],
  [8, 1024, 0, 8, 64, 256],
  [2, 2048, 0, 16, 64, 512],
  [1, 1024, 0, 8, 64, 512],
  [1, 1024, 7168, 8, 64, 512],
  [1, 512, 15_872, 8, 64, 512],
  [1, 128, 65_408, 8, 64, 2048],
];

async function bench(gpu: Gpu, [batch, rows, firstRow, heads, dim, k]: Shape): Promise<void> {
  const keys = firstRow + rows;
  const { capabilities } = gpu;
  const q = layout(batch * rows, heads * dim);
  const key = layout(batch * keys, dim);
  const w = layout(batch * rows, heads);
  const scores = layout(batch * rows, keys);
  const indices = layout(batch * rows, k);
  const sizes = { firstRow, batch, capabilities };
  const score = indexScores({
    q,
    k: key,
    w,
    scores,
    indexer: { heads, dim, activation: "relu", scale: 1 },
    ...sizes,
  });
  const select = topK({ scores, indices, ...sizes });
  const numbers = (m: { rows: number; cols: number }) =>
    Float32Array.from({ length: m.rows * m.cols }, () => Math.random() - 0.5);
  const compile = [score, select].map((kernel) => {
    const start = performance.now();
    gpu.pipeline(kernel);
    return performance.now() - start;
  });
  const arrays = [q, key, w, scores, indices].map(numbers);
  const scored = await runKernels(gpu, arrays, [[score, 0, 1, 2, 3]], 9);
  const filled = [scored.arrays[3], arrays[4]];
  const selected = await runKernels(gpu, filled, [[select, 0, 1]], 9);
  const rate = (amount: number, ms: number) => (amount / ms / 1e6).toFixed(0);
  console.log(
    [
      `${batch} x ${rows} queries, ${keys} keys, ${heads} x ${dim}, k ${k}:`,
      `scores ${scored.ms.toFixed(3)} ms, ${rate(score.flops, scored.ms)} GFLOP/s;`,
      `top-k ${selected.ms.toFixed(3)} ms, ${rate(select.bytes, selected.ms)} GB/s;`,
      `pipelines ${compile.map((ms) => ms.toFixed(0)).join(" and ")} ms`,
    ].join(" "),
  );
}

using gpu = await Gpu.open();
if (!gpu) throw new Error("No WebGPU adapter");
console.log(gpu.name);
const given = Deno.args.map(Number);
const shapes = given.length === 6
  ? [given as Shape]
  : gpu.capabilities.software
  ? SOFTWARE_SHAPES
  : GPU_SHAPES;
for (const shape of shapes) await bench(gpu, shape);
