/**
 * Times the passes of attention on the shapes of the presets, tile by tile:
 *
 *     deno run -A tests/kernels/attention_bench.ts                   everything
 *     deno run -A tests/kernels/attention_bench.ts base gradKv       one shape, one pass
 *
 * Prints the median ms of 9 runs, GFLOP/s (of the visible pairs), workgroup memory and the time to
 * make the pipeline, with a star at what `planAttention` chooses by itself. A software adapter
 * gets the row kernels and the shape `nano`.
 */
import {
  attentionPass,
  type AttentionPlan,
  type AttentionSpec,
  planAttention,
} from "../../src/kernels/attention/attention.ts";
import { PASSES } from "../../src/kernels/attention/pass.ts";
import { type AttentionTile, planTile } from "../../src/kernels/attention/plan.ts";
import { type PassName, rowShape } from "../../src/kernels/attention/tuning.ts";
import { Gpu } from "../../src/webgpu/device/device.ts";
import type { Layout } from "../../src/kernels/wgsl/operand.ts";
import type { Sink } from "../../src/kernels/wgsl/sink.ts";
import { type Call, layout, runKernels } from "../run_kernel.ts";

/** Batch, tokens, heads, widths without and with position and of values. */
const SHAPES: Record<string, [number, number, number, number, number, number]> = {
  nano: [8, 128, 4, 16, 8, 16],
  tiny: [16, 256, 4, 32, 16, 32],
  small: [8, 1024, 6, 64, 32, 64],
  base: [4, 2048, 12, 64, 32, 64],
  long: [1, 8192, 8, 64, 32, 64],
};

/** `lanesX lanesY rows cols chunk unroll`. */
const TILES: Record<PassName, readonly string[]> = {
  forward: [
    "8 32 4 4 8 8",
    "8 32 4 4 8 2",
    "8 32 4 4 8 1",
    "8 16 4 4 12 12",
    "8 16 4 8 12 12",
  ],
  gradQ: [
    "8 32 4 4 8 8",
    "16 16 4 4 8 8",
    "8 32 4 4 8 2",
    "8 32 4 4 8 1",
    "8 16 8 4 8 1",
  ],
  gradKv: [
    "8 32 2 4 16 8",
    "8 16 2 4 24 8",
    "8 32 2 4 16 2",
    "8 32 2 4 16 1",
    "8 32 2 4 24 2",
  ],
};

/** The tile of a line of {@linkcode TILES}. */
function parseTile(line: string): AttentionTile {
  const [lanesX, lanesY, rows, cols, chunk, unroll] = line.split(" ").map(Number);
  return { lanesX, lanesY, rows, cols: cols as 4 | 8, chunk, unroll };
}

/** For software adapters. */
const ROWS = [
  { rows: 2, cols: 1 },
  { rows: 2, cols: 2 },
  { rows: 4, cols: 1 },
  { rows: 4, cols: 2 },
  { rows: 4, cols: 4 },
];

function candidates(pass: PassName, spec: AttentionSpec, gpu: Gpu): AttentionPlan[] {
  if (gpu.capabilities.software) {
    return ROWS.map((counts) => ({ rows: rowShape(counts, gpu.capabilities) }));
  }
  const { workgroupBytes, maxInvocations } = gpu.capabilities;
  return TILES[pass]
    .map(parseTile)
    .filter((tile) => {
      const { bytes, threads } = planTile(PASSES[pass], spec.dims, tile);
      return bytes <= workgroupBytes && threads <= maxInvocations;
    })
    .map((tile) => ({ tile }));
}

async function bench(gpu: Gpu, name: string, only: string | undefined): Promise<void> {
  const [batch, seqLen, heads, nope, rope, value] = SHAPES[name];
  const rows = batch * seqLen;
  const spec: AttentionSpec = {
    dims: { heads, kvHeads: heads, nope, rope, value, packed: true },
    extent: { batch, seqLen },
    scale: (nope + rope) ** -0.5,
  };
  const [q, kv, kPe] = [heads * (nope + rope), heads * (nope + value), rope].map((cols) =>
    layout(rows, cols)
  );
  const [o, perHead, shares] = [heads * value, heads, heads * rope].map((cols) =>
    layout(rows, cols)
  );
  const [lse, delta] = [perHead, layout(rows, heads)];
  const inputs = { q, kv, k_pe: kPe };
  const saved = { grad_o: o, lse, delta };
  const to = (into: Layout) => ({ into, add: null });
  const random = (m: { rows: number; cols: number }) =>
    Float32Array.from({ length: m.rows * m.cols }, () => Math.random() * 2 - 1);
  const logs = Float32Array.from(
    { length: rows * heads },
    (_, i) => Math.log(1 + Math.floor(i / heads) % seqLen),
  );
  const results = {
    forward: { o: to(layout(rows, o.cols)), lse: to(layout(rows, heads)) },
    gradQ: { grad_q: to(layout(rows, q.cols)) },
    gradKv: { grad_kv: to(layout(rows, kv.cols)), grad_k_pe: to(shares) },
  };
  for (const pass of ["forward", "gradQ", "gradKv"] as const) {
    if (only && only !== pass) continue;
    const written: Record<string, Sink> = results[pass];
    const read = pass === "forward" ? inputs : { ...inputs, ...saved };
    const given = Object.values(read).map((m) => m === lse ? logs : random(m));
    const first = given.length;
    const arrays = [
      ...given,
      ...Object.values(written).map(({ into: m }) => new Float32Array(m.rows * m.cols)),
    ];
    let reference: Float32Array | null = null;
    const chosen = JSON.stringify(planAttention(pass, spec, gpu.capabilities));
    for (const plan of candidates(pass, spec, gpu)) {
      const kernel = attentionPass(pass, spec, plan, { read, written });
      const begin = performance.now();
      gpu.pipeline(kernel);
      const made = performance.now() - begin;
      const call: Call = [kernel, ...arrays.keys()];
      const { ms, arrays: got } = await runKernels(gpu, arrays, [call], 9);
      reference ??= got[first];
      const off = difference(got[first], reference);
      const { tile, rows } = { tile: null, rows: null, ...plan };
      const code = tile
        ? `${Object.entries(tile).map(([key, v]) => v === true ? key : v).join(" ")}, ${
          planTile(PASSES[pass], spec.dims, tile).bytes
        } B`
        : Object.values(rows!).join(" ");
      console.log(
        `${name} ${pass}`.padEnd(14),
        `${JSON.stringify(plan) === chosen ? "*" : " "} ${code}`.padEnd(40),
        `${ms.toFixed(3)} ms`.padStart(11),
        `${(kernel.flops / ms / 1e6).toFixed(0)} GFLOP/s`.padStart(14),
        `pipeline ${made.toFixed(0)} ms`.padStart(17),
        off < 1e-4 ? "" : `DIFFERS by ${off.toExponential(1)}`,
      );
    }
  }
}

/** Relative difference of two results. */
function difference(a: Float32Array, b: Float32Array): number {
  let error = 0;
  let norm = 0;
  for (let i = 0; i < a.length; i++) {
    error += (a[i] - b[i]) ** 2;
    norm += b[i] ** 2;
  }
  return Math.sqrt(error / norm);
}

using gpu = await Gpu.open();
if (!gpu) throw new Error("No WebGPU adapter");
console.log(gpu.name);
const [shape, pass] = Deno.args;
const all = Object.keys(SHAPES).filter((name) => (name === "nano") === gpu.capabilities.software);
for (const name of shape ? [shape] : all) await bench(gpu, name, pass);
