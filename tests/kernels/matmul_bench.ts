/**
 * Times the matrix product with every tile that this adapter has room for:
 *
 *     deno run -A tests/kernels/matmul_bench.ts            all shapes
 *     deno run -A tests/kernels/matmul_bench.ts nt 4096 4096 4096
 *
 * Prints GFLOP/s (of the median of 9 runs, the second pass included), the number of parts, the time
 * to make the pipeline, and a star at the tile that `matmul` chooses by itself. The rates of the
 * table in `src/kernels/product/tiles.ts` come from the 4096x4096x4096 lines.
 */
import { type Form, matmul } from "../../src/kernels/product/matmul.ts";
import { fitsDevice, tileThreads } from "../../src/kernels/product/tile_loop.ts";
import { CANDIDATES, type RatedTile, tileName } from "../../src/kernels/product/tiles.ts";
import { Gpu } from "../../src/webgpu/device/device.ts";
import { callOn, layout, runKernels } from "../run_kernel.ts";

type Shape = [form: Form, m: number, n: number, k: number];

/** The products of the presets tiny, small and base, and one large cube. */
function shapes(): Shape[] {
  const out: Shape[] = [];
  const layers: [number, number, number][] = [
    [4096, 4096, 4096],
    [4096, 384, 128],
    [8192, 1152, 384],
    [8192, 768, 2048],
    [8192, 4096, 384],
  ];
  for (const form of ["nt", "nn"] as const) {
    for (const [m, n, k] of layers) out.push([form, m, n, k]);
  }
  out.push(["tn", 4096, 4096, 4096]);
  for (const k of [4096, 8192]) {
    for (const [m, n] of [[384, 128], [128, 128], [1024, 384], [2048, 768]]) {
      out.push(["tn", m, n, k]);
    }
  }
  return out;
}

/** Largest error of some outputs, relative to the size of their terms. */
function sampleError([form, m, n, k]: Shape, [a, b, c]: Float32Array[]): number {
  let worst = 0;
  for (let sample = 0; sample < 200; sample++) {
    const i = Math.floor(Math.random() * m);
    const j = Math.floor(Math.random() * n);
    let sum = 0;
    for (let x = 0; x < k; x++) {
      sum += a[form === "tn" ? x * m + i : i * k + x] * b[form === "nt" ? j * k + x : x * n + j];
    }
    const error = Math.abs(c[i * n + j] - sum) / Math.sqrt(k);
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

async function bench(gpu: Gpu, shape: Shape): Promise<void> {
  const [form, m, n, k] = shape;
  const capabilities = gpu.capabilities;
  const a = form === "tn" ? layout(k, m) : layout(m, k);
  const b = form === "nt" ? layout(n, k) : layout(k, n);
  const c = layout(m, n);
  const numbers = (count: number) =>
    Float32Array.from({ length: count }, () => Math.random() - 0.5);
  const inputs = [numbers(m * k), numbers(k * n)];
  const spec = { form, a, b, c: { into: c, add: null }, capabilities };
  const [chosen] = matmul({ ...spec, scratch: layout });
  const lines: { rate: number; text: string }[] = [];
  const tiles: (RatedTile | undefined)[] = CANDIDATES.filter((t) => fitsDevice(t, capabilities));
  if (capabilities.software) tiles.splice(0, Infinity, undefined);
  for (const tile of tiles) {
    const matrices = [a, b, c];
    const scratch = (rows: number, cols: number) => {
      matrices.push(layout(rows, cols));
      return matrices[3];
    };
    const kernels = matmul({ ...spec, scratch, tile });
    const start = performance.now();
    for (const kernel of kernels) gpu.pipeline(kernel);
    const compile = performance.now() - start;
    const results = matrices.slice(2).map(({ rows, cols }) =>
      new Float32Array(rows * cols).fill(NaN)
    );
    const arrays = [...inputs, ...results];
    const calls = kernels.map((kernel) => callOn(kernel, matrices));
    const result = await runKernels(gpu, arrays, calls, 9);
    const error = sampleError(shape, result.arrays);
    const [first] = kernels;
    const rate = 2 * m * n * k / result.ms / 1e6;
    const isChosen = first.code === chosen.code && first.grid[2] === chosen.grid[2];
    const name = tile ? `${tileName(tile)}, ${tileThreads(tile)} threads` : "subgroup";
    const text = [
      isChosen ? "*" : " ",
      name.padEnd(46),
      `${first.grid[2]} parts`.padStart(9),
      `${result.ms.toFixed(3)} ms`.padStart(12),
      `${rate.toFixed(0)} GFLOP/s`.padStart(15),
      `pipeline ${compile.toFixed(0)} ms`.padStart(18),
      error <= 1e-5 ? "" : `  WRONG: error ${error}`,
    ].join("");
    lines.push({ rate, text });
  }
  lines.sort((x, y) => y.rate - x.rate);
  console.log(`${form} ${m}x${n}x${k}\n${lines.map((l) => l.text).join("\n")}`);
}

using gpu = await Gpu.open();
if (!gpu) throw new Error("No WebGPU adapter");
console.log(gpu.name);
const [form, ...size] = Deno.args;
const chosenShapes = form ? [[form, ...size.map(Number)] as Shape] : shapes();
for (const shape of chosenShapes) await bench(gpu, shape);
