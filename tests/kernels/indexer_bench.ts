/**
 * Times the kernels of the indexer's loss on the shapes of the presets, for one layer:
 *
 *     deno run -A tests/kernels/indexer_bench.ts                everything
 *     deno run -A tests/kernels/indexer_bench.ts base           one shape
 *
 * Prints the median ms of 9 runs, GFLOP/s (of the visible pairs) and the time to make the pipeline;
 * of kernels with tiles in workgroup memory for every tile, with a star at the one that is taken.
 * A software adapter gets the shape `nano`.
 */
import { attentionTarget } from "../../src/kernels/attention_target.ts";
import {
  chooseTargetTile,
  TARGET_TILES,
  type TargetTile,
} from "../../src/kernels/attention_target_tiles.ts";
import { indexGradientK, indexGradientQ } from "../../src/kernels/index_gradient.ts";
import {
  chooseIndexTile,
  INDEX_TILES,
  type IndexTile,
} from "../../src/kernels/index_gradient_tiles.ts";
import { indexScores } from "../../src/kernels/index_scores.ts";
import { indexerKl } from "../../src/kernels/indexer_kl.ts";
import type { Kernel } from "../../src/kernels/kernel.ts";
import { Gpu } from "../../src/webgpu/device.ts";
import { layout, runKernels } from "../run_kernel.ts";

/** Batch, tokens; heads, widths without and with position and of values; index heads, their width. */
const SHAPES: Record<string, [number, number, number, number, number, number, number, number]> = {
  nano: [8, 128, 4, 16, 8, 16, 4, 16],
  tiny: [16, 256, 4, 32, 16, 32, 4, 32],
  small: [8, 1024, 6, 64, 32, 64, 8, 64],
  base: [2, 2048, 12, 64, 32, 64, 16, 64],
  long: [1, 8192, 8, 64, 32, 64, 8, 64],
};

const MORE_INDEX_TILES: readonly IndexTile[] = [
  ...INDEX_TILES,
  { lanesX: 8, lanesY: 16, rows: 8, unroll: 8 },
  { lanesX: 16, lanesY: 16, rows: 4, unroll: 8 },
  { lanesX: 16, lanesY: 8, rows: 8, unroll: 8 },
  { lanesX: 8, lanesY: 8, rows: 8, unroll: 8 },
  { lanesX: 8, lanesY: 16, rows: 4, unroll: 16 },
];

const MORE_TARGET_TILES: readonly TargetTile[] = [
  ...TARGET_TILES,
  { lanesX: 16, lanesY: 8, rows: 8, chunk: 12 },
  { lanesX: 16, lanesY: 8, rows: 8, chunk: 6 },
  { lanesX: 16, lanesY: 16, rows: 8, chunk: 8 },
  { lanesX: 16, lanesY: 16, rows: 4, chunk: 8 },
  { lanesX: 8, lanesY: 16, rows: 8, chunk: 8 },
  { lanesX: 8, lanesY: 16, rows: 4, chunk: 12 },
];

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
  };
  const m = matrices;
  const names = Object.keys(matrices);
  const arrays = Object.entries(matrices).map(([name, { rows, cols }]) =>
    Float32Array.from(
      { length: rows * cols },
      () => name === "lse" ? Math.log(seqLen) : Math.random() - (name === "target" ? 0 : 0.5),
    )
  );
  const firstRow = seqLen - rows;
  const common = { firstRow, batch: side, capabilities };
  const index = { heads: indexHeads, dim, activation: "relu" as const, scale: 0.1, ...common };
  const gradient = { q: m.qI, k: m.kI, w: m.w, gradScores: m.scores, ...index };
  const target = {
    ...{ q: m.q, kv: m.kv, kPe: m.kPe, lse: m.lse, target: m.target, heads, ...common },
    ...{ qkNopeHeadDim: nope, qkRopeHeadDim: rope, vHeadDim: value, scale: 0.1 },
  };
  const time = async (what: string, kernel: Kernel, operands: string[], code = "") => {
    const begin = performance.now();
    gpu.pipeline(kernel);
    const made = performance.now() - begin;
    const at = operands.map((operand) => names.indexOf(operand));
    const { ms } = await runKernels(gpu, arrays, [[kernel, ...at]], 9);
    console.log(
      `${name} ${side}x${rows}`.padEnd(16),
      what.padEnd(10),
      code.padEnd(16),
      `${ms.toFixed(3)} ms`.padStart(11),
      `${(kernel.flops / ms / 1e6).toFixed(0)} GFLOP/s`.padStart(14),
      `pipeline ${made.toFixed(0)} ms`.padStart(17),
    );
  };
  const scores = indexScores({ q: m.qI, k: m.kI, w: m.w, scores: m.scores, ...index });
  await time("scores", scores, ["qI", "kI", "w", "scores"]);
  const kl = indexerKl({
    ...{ scores: m.scores, target: m.target, mask: null, kl: m.kl, firstRow, batch: side },
    ...{ direction: "forward", gradient: 1, software: capabilities.software },
  });
  await time("kl", kl, ["scores", "target", "kl"]);
  const read = ["qI", "kI", "w", "scores"];
  const teacher = ["q", "kv", "kPe", "lse", "target"];
  if (capabilities.software) {
    await time("target", attentionTarget(target), teacher);
    await time("gradQ", indexGradientQ(gradient, m.gradQ, m.gradW), [...read, "gradQ", "gradW"]);
    await time("gradK", indexGradientK(gradient, m.gradK, false), [...read, "gradK"]);
    return;
  }
  const chosen = (tile: TargetTile | IndexTile, first: TargetTile | IndexTile | null) =>
    `${tile === first ? "*" : " "} ${Object.values(tile).join(" ")}`;
  for (const tile of MORE_TARGET_TILES.filter((tile) => chooseTargetTile(capabilities, [tile]))) {
    const code = chosen(tile, chooseTargetTile(capabilities));
    await time("target", attentionTarget({ ...target, tile }), teacher, code);
  }
  for (
    const tile of MORE_INDEX_TILES.filter((tile) => chooseIndexTile(dim, capabilities, [tile]))
  ) {
    const code = chosen(tile, chooseIndexTile(dim, capabilities));
    const spec = { ...gradient, tile };
    const gradQ = indexGradientQ(spec, m.gradQ, m.gradW);
    await time("gradQ", gradQ, [...read, "gradQ", "gradW"], code);
    await time("gradK", indexGradientK(spec, m.gradK, false), [...read, "gradK"], code);
  }
}

using gpu = await Gpu.open();
if (!gpu) throw new Error("No WebGPU adapter");
console.log(gpu.name);
const all = Object.keys(SHAPES).filter((name) => (name === "nano") === gpu.capabilities.software);
for (const name of Deno.args.length ? Deno.args : all) await bench(gpu, name);
