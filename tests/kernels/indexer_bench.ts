/**
 * Times the kernels of the indexer's loss on the shapes of the presets, for one layer:
 *
 *     deno run -A tests/kernels/indexer_bench.ts                everything
 *     deno run -A tests/kernels/indexer_bench.ts base           one shape
 *     deno run -A tests/kernels/indexer_bench.ts loss           the loss over a selection, both forms
 *
 * Prints the median ms of 9 runs, GFLOP/s (of the visible pairs) and the time to make the pipeline;
 * of kernels with tiles in workgroup memory for every tile, with a star at the one that is taken.
 * A software adapter gets the shape `nano`. Of the whole loss prints the GPU time, masked and
 * gathered, and what its kernels take of it.
 */
import { attentionTarget } from "../../src/kernels/indexer/teacher.ts";
import { TARGET_TILES } from "../../src/kernels/indexer/teacher_tiles.ts";
import { indexGradientK, indexGradientQ, readsSigns } from "../../src/kernels/indexer/gradient.ts";
import type { Indexer, Teacher } from "../../src/kernels/indexer/indexer.ts";
import { indexScores } from "../../src/kernels/indexer/scores.ts";
import { SIGN_WORDS, signRows } from "../../src/kernels/indexer/signs.ts";
import { indexerKl } from "../../src/kernels/indexer/kl.ts";
import type { Kernel } from "../../src/kernels/wgsl/kernel.ts";
import type { Layout } from "../../src/kernels/wgsl/operand.ts";
import { tileName } from "../../src/kernels/product/tiles.ts";
import { fitsDevice, type Tile } from "../../src/kernels/product/tile_loop.ts";
import { indexerLoss } from "../../src/ops/indexer/loss.ts";
import { matrixAt } from "../../src/ops/matrix.ts";
import type { Storage } from "../../src/ops/op.ts";
import { Gpu } from "../../src/webgpu/device/device.ts";
import { Graph, type GraphTensor } from "../../src/graph/graph.ts";
import { lower } from "../../src/graph/lower.ts";
import { createStorageBuffer, Plan, SlotPool } from "../../src/webgpu/plan/plan.ts";
import { profilePlan, type ProfileRow } from "../../src/webgpu/plan/profile.ts";
import { callOn, layout, runKernels } from "../run_kernel.ts";

/** Batch, tokens; heads, widths without and with position and of values; index heads, their width. */
const SHAPES: Record<string, [number, number, number, number, number, number, number, number]> = {
  nano: [8, 128, 4, 16, 8, 16, 4, 16],
  tiny: [16, 256, 4, 32, 16, 32, 4, 32],
  small: [8, 1024, 6, 64, 32, 64, 8, 64],
  base: [2, 2048, 12, 64, 32, 64, 16, 64],
  long: [1, 8192, 8, 64, 32, 64, 8, 64],
};

const MORE_TARGET_TILES: readonly Tile[] = [
  ...TARGET_TILES,
  { rows: 64, cols: 64, depth: 16, threadRows: 4, threadCols: 4 },
  { rows: 64, cols: 128, depth: 16, threadRows: 8, threadCols: 4 },
  { rows: 128, cols: 64, depth: 16, threadRows: 8, threadCols: 4 },
];

function teacherOf(heads: number, nope: number, rope: number, value: number): Teacher {
  return { dims: { heads, kvHeads: heads, nope, rope, value, packed: true }, scale: 0.1 };
}

async function bench(gpu: Gpu, name: string): Promise<void> {
  const [batch, seqLen, heads, nope, rope, value, indexHeads, dim] = SHAPES[name];
  const { capabilities } = gpu;
  // As many queries as a chunk of 32 MiB has: the last ones of their sequence.
  const rows = Math.min(seqLen, 2 ** 23 / seqLen);
  const side = rows < seqLen ? 1 : Math.min(batch, Math.floor(2 ** 23 / seqLen ** 2));
  const [queries, keys] = [side * rows, side * seqLen];
  const matrices = {
    qI: layout(queries, indexHeads * dim),
    kI: layout(keys, dim),
    w: layout(queries, indexHeads),
    q: layout(queries, heads * (nope + rope)),
    kv: layout(keys, heads * (nope + value)),
    kPe: layout(keys, rope),
    lse: layout(queries, heads),
    scores: layout(queries, seqLen),
    target: layout(queries, seqLen),
    kl: layout(queries, 1),
    gradK: layout(keys, indexHeads * dim),
    gradQ: layout(queries, indexHeads * dim),
    gradW: layout(queries, indexHeads),
    signs: layout(side * signRows(rows, seqLen, indexHeads), SIGN_WORDS),
  };
  const m = matrices;
  const arrays = Object.entries(matrices).map(([name, { rows, cols }]) =>
    Float32Array.from(
      { length: rows * cols },
      () => name === "lse" ? Math.log(seqLen) : Math.random() - (name === "target" ? 0 : 0.5),
    )
  );
  const firstRow = seqLen - rows;
  const common = { firstRow, batch: side, capabilities };
  const indexer: Indexer = { heads: indexHeads, dim, activation: "relu", scale: 0.1 };
  const index = { indexer, ...common };
  const signs: { signs?: Layout } = readsSigns(index) ? { signs: m.signs } : {};
  const gradient = { q: m.qI, k: m.kI, w: m.w, gradScores: m.scores, ...signs, ...index };
  const target = {
    ...{ q: m.q, kv: m.kv, kPe: m.kPe, lse: m.lse, target: m.target, ...common },
    teacher: teacherOf(heads, nope, rope, value),
  };
  const time = async (what: string, kernel: Kernel, code = "") => {
    const begin = performance.now();
    gpu.pipeline(kernel);
    const made = performance.now() - begin;
    const { ms } = await runKernels(gpu, arrays, [callOn(kernel, Object.values(matrices))], 9);
    console.log(
      `${name} ${side}x${rows}`.padEnd(16),
      what.padEnd(10),
      code.padEnd(16),
      `${ms.toFixed(3)} ms`.padStart(11),
      `${(kernel.flops / ms / 1e6).toFixed(0)} GFLOP/s`.padStart(14),
      `pipeline ${made.toFixed(0)} ms`.padStart(17),
    );
  };
  const scored = { q: m.qI, k: m.kI, w: m.w, scores: m.scores, ...index };
  await time("scores", indexScores(scored));
  if (signs.signs) await time("signs", indexScores({ ...scored, ...signs }));
  const kl = indexerKl({
    ...{ scores: m.scores, target: m.target, mask: null, kl: m.kl, firstRow, batch: side },
    ...{ direction: "forward", gradient: 1, software: capabilities.software },
  });
  await time("kl", kl);
  await time("gradQ", indexGradientQ(gradient, m.gradQ, m.gradW));
  await time("gradK", indexGradientK(gradient, m.gradK, false));
  if (capabilities.software) return await time("target", attentionTarget(target));
  const tiles = MORE_TARGET_TILES.filter((tile) => fitsDevice(tile, capabilities));
  for (const tile of tiles) {
    const code = `${tile === tiles[0] ? "*" : " "} ${tileName(tile)}`;
    await time("target", attentionTarget({ ...target, tile }), code);
  }
}

/** `indices` and `mask`: random keys, in which neighbouring queries share few. */
function randomSelection(seqLen: number, topk: number): [Int32Array, Int32Array] {
  const words = Math.ceil(seqLen / 32);
  const indices = new Int32Array(seqLen * topk).fill(-1);
  const mask = new Int32Array(seqLen * words);
  for (let t = 0; t < seqLen; t++) {
    const keys = new Set<number>();
    while (keys.size < Math.min(topk, t + 1)) keys.add(Math.floor(Math.random() * (t + 1)));
    [...keys].sort((a, b) => a - b).forEach((key, i) => {
      indices[t * topk + i] = key;
      mask[t * words + (key >> 5)] |= 1 << (key & 31);
    });
  }
  return [indices, mask];
}

/** Runs of the whole loss of which the median is taken. */
const LOSS_RUNS = 5;

/** Times the loss over a selection, with its gradients, in both forms. */
async function benchLoss(gpu: Gpu): Promise<void> {
  const [seqLen, topk, shape] = gpu.capabilities.software
    ? [1024, 128, SHAPES.nano]
    : [16384, 512, SHAPES.long];
  const [, , heads, nope, rope, value, indexHeads, indexDim] = shape;
  const [indices, mask] = randomSelection(seqLen, topk);
  const widths = [
    ...[indexHeads * indexDim, indexDim, indexHeads],
    ...[heads * (nope + rope), heads * (nope + value), rope, heads],
  ];
  const data = [
    ...widths.map((width) => Float32Array.from({ length: seqLen * width }, () => Math.random())),
    ...[mask, indices],
  ];
  data[6].fill(Math.log(topk));
  for (const form of ["masked", "gathered"] as const) {
    const fixed = new Map<Storage, GPUBuffer>();
    const graph = new Graph();
    const leaves = data.map((values, i) => {
      const storage = { label: "input", size: values.length };
      const buffer = createStorageBuffer(gpu, storage.label, storage.size);
      gpu.device.queue.writeBuffer(buffer, 0, values as Float32Array<ArrayBuffer>);
      fixed.set(storage, buffer);
      const type = { rows: seqLen, cols: values.length / seqLen };
      const dtype = i < 7 ? "f32" as const : "i32" as const;
      return graph.leaf(matrixAt(storage, 0, { ...type, dtype }), { trained: false });
    });
    const [qI, kI, w, q, kv, kPe, lse, bits, lists] = leaves;
    const loss = indexerLoss(qI, kI, w, { q, kv, kPe, lse }, { mask: bits, indices: lists }, {
      ...{ batch: 1, seqLen, teacher: teacherOf(heads, nope, rope, value) },
      indexer: { heads: indexHeads, dim: indexDim, activation: "relu", scale: 0.1 },
      ...{ direction: "forward", weight: 1, gradient: true, form },
    }) as GraphTensor;
    const program = lower(graph, { capabilities: gpu.capabilities, keep: [loss] });
    const pool = new SlotPool(gpu);
    const plan = new Plan(gpu, program, fixed, pool);
    const runs: ProfileRow[][] = [];
    for (let i = 0; i <= LOSS_RUNS; i++) runs.push(await profilePlan(gpu, plan));
    const total = (rows: ProfileRow[]) => rows.reduce((sum, { ms }) => sum + ms, 0);
    // The first run warms up.
    const median = runs.slice(1).sort((a, b) => total(a) - total(b))[LOSS_RUNS >> 1];
    const parts = new Map<string, number>();
    for (const { label, ms } of median) {
      const [kernel] = label.split(" ");
      parts.set(kernel, (parts.get(kernel) ?? 0) + ms);
    }
    console.log(
      `loss ${seqLen} k=${topk}`.padEnd(24),
      form.padEnd(11),
      `${total(median).toFixed(3)} ms,`.padStart(12),
      `${(pool.bytes / 2 ** 20).toFixed(0)} MiB:`.padStart(8),
      [...parts].map(([kernel, ms]) => `${kernel} ${ms.toFixed(3)}`).join(", "),
    );
    await gpu.settle();
    plan.destroy();
    pool.destroy();
    for (const buffer of fixed.values()) buffer.destroy();
  }
}

using gpu = await Gpu.open();
if (!gpu) throw new Error("No WebGPU adapter");
console.log(gpu.name);
const all = Object.keys(SHAPES).filter((name) => (name === "nano") === gpu.capabilities.software);
for (const name of Deno.args.length ? Deno.args : [...all, "loss"]) {
  await (name === "loss" ? benchLoss(gpu) : bench(gpu, name));
}
