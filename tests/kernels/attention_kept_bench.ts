/**
 * Times the kernels of attention's backward pass that keep weights, tile by tile:
 *
 *     deno run -A tests/kernels/attention_kept_bench.ts             shapes of all presets
 *     deno run -A tests/kernels/attention_kept_bench.ts base long   some
 *
 * Prints the median ms of 9 runs and GFLOP/s (of the visible pairs). Lines with a star are the tiles
 * that are taken.
 */
import type { AttentionSpec } from "../../src/kernels/attention/attention.ts";
import { BLOCK, blockRows, partsOf } from "../../src/kernels/attention/blocks.ts";
import { attentionSum, SUMS } from "../../src/kernels/attention/sums.ts";
import { KEPT_BYTES, KEPT_TILE } from "../../src/kernels/attention/tuning.ts";
import { attentionWeights } from "../../src/kernels/attention/weights.ts";
import type { Kernel } from "../../src/kernels/wgsl/kernel.ts";
import { tileName } from "../../src/kernels/product/tiles.ts";
import { fitsDevice, tallTile, type Tile } from "../../src/kernels/product/tile_loop.ts";
import { Gpu } from "../../src/webgpu/device/device.ts";
import type { Layout } from "../../src/kernels/wgsl/operand.ts";
import { layout, runKernels } from "../run_kernel.ts";

/** Batch, tokens, heads, widths without and with position and of values. */
const SHAPES: Record<string, [number, number, number, number, number, number]> = {
  tiny: [16, 256, 4, 32, 16, 32],
  small: [8, 1024, 6, 64, 32, 64],
  base: [4, 2048, 12, 64, 32, 64],
  long: [1, 8192, 8, 64, 32, 64],
};

const tile = (
  [rows, cols, depth]: [number, number, number],
  [threadRows, threadCols]: [number, number],
): Tile => ({ rows, cols, depth, threadRows, threadCols });

const WEIGHT_TILES = [
  tile([64, 128, 16], [8, 8]),
  tile([64, 128, 32], [8, 8]),
  tile([128, 64, 16], [8, 8]),
  tile([128, 128, 16], [8, 8]),
  tile([64, 64, 16], [8, 4]),
  tile([64, 64, 16], [8, 8]),
  tile([64, 64, 32], [8, 4]),
  tile([64, 128, 16], [4, 8]),
];

/** For a width that is a multiple of 32. */
const sumTiles = (cols: number) => [
  tile([128, cols, 16], [8, cols / 8]),
  tile([128, cols, 32], [8, cols / 8]),
  ...(cols % 64 === 0 ? [tile([128, cols, 16], [8, cols / 16])] : []),
];

async function time(gpu: Gpu, name: string, kernel: Kernel, sizes: number[], star: boolean) {
  const arrays = sizes.map((size) => new Float32Array(size).fill(0.5));
  const { ms } = await runKernels(gpu, arrays, [[kernel, ...sizes.keys()]], 9);
  const rate = kernel.flops / ms / 1e6;
  console.log(
    `${name}${star ? " *" : ""}`.padEnd(50),
    `${ms.toFixed(3)} ms`.padStart(11),
    `${rate.toFixed(0)} GFLOP/s`.padStart(14),
  );
}

async function bench(gpu: Gpu, name: string): Promise<void> {
  const [batch, seqLen, heads, nope, rope, value] = SHAPES[name];
  const rows = batch * seqLen;
  const dims = { heads, kvHeads: heads, nope, rope, value, packed: true };
  const spec: AttentionSpec = { dims, extent: { batch, seqLen }, scale: (nope + rope) ** -0.5 };
  const [units] = partsOf(
    dims,
    spec.extent,
    Math.min(KEPT_BYTES, gpu.capabilities.maxBindingBytes),
  );
  const [q, kv, k_pe, grad_o, perHead, shares] = [
    heads * (nope + rope),
    heads * (nope + value),
    rope,
    heads * value,
    heads,
    heads * rope,
  ].map((cols) => layout(rows, cols));
  const kept = layout(units.count * blockRows(spec.extent), BLOCK);
  const to = (into: Layout) => ({ into, add: null });
  const size = (m: { rows: number; cols: number }) => m.rows * m.cols;
  console.log(`${name}: ${units.count} of ${batch * heads} heads at a time`);
  for (const t of WEIGHT_TILES.filter((t) => fitsDevice(t, gpu.capabilities))) {
    const read = { q, kv, k_pe, grad_o, lse: perHead, delta: perHead };
    const kernel = attentionWeights(spec, t, units, { read, weights: kept, gradients: kept });
    const sizes = kernel.operands.map(size);
    const star = tileName(t) === tileName(KEPT_TILE);
    await time(gpu, `${name} weights ${tileName(t)}`, kernel, sizes, star);
  }
  const matrices = {
    gradV: { read: { grad_o }, written: { grad_kv: to(kv) } },
    gradK: { read: { q }, written: { grad_kv: to(kv), grad_k_pe: to(shares) } },
    gradQ: { read: { kv, k_pe }, written: { grad_q: to(q) } },
  };
  const widths = { gradV: value, gradK: nope + rope, gradQ: nope + rope };
  for (const sum of ["gradV", "gradK", "gradQ"] as const) {
    const chosen = tileName(tallTile(widths[sum] / 4));
    for (const t of sumTiles(Math.ceil(widths[sum] / 32) * 32)) {
      if (!fitsDevice(t, gpu.capabilities)) continue;
      const operands = { weights: kept, ...matrices[sum] };
      const kernel = attentionSum(SUMS[sum], spec, units, operands, t);
      const sizes = kernel.operands.map(size);
      await time(gpu, `${name} ${sum} ${tileName(t)}`, kernel, sizes, tileName(t) === chosen);
    }
  }
}

using gpu = await Gpu.open();
if (!gpu) throw new Error("No WebGPU adapter");
console.log(gpu.name);
for (const name of Deno.args.length > 0 ? Deno.args : Object.keys(SHAPES)) await bench(gpu, name);
