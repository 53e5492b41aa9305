/**
 * What an adapter can do at most, measured: multiply-adds in registers and a copy of memory. The
 * kernels' times are compared with these.
 *
 * @module
 */
import { type Operand, read, write } from "../kernels/wgsl/operand.ts";
import { foldGrid, type Kernel, makeKernel } from "../kernels/wgsl/kernel.ts";
import type { Gpu } from "../webgpu/device/device.ts";
import { layout, runKernels } from "./run_kernels.ts";

/** 10⁹ operations and bytes a second. */
export interface Ceilings {
  readonly gflops: number;
  readonly gbps: number;
}

/** Independent chains of a thread, so that no multiply-add waits for the one before. */
const CHAINS = 8;
const STEPS = 256;
/** Multiply-adds of a chain in a turn of the loop, whose counting is then cheap beside them. */
const UNROLL = 8;

/** Multiply-adds of vec4s in registers; `out` keeps them from being left out. */
function multiplyAdds(threads: number): Kernel {
  const each = (line: (i: number) => string) => Array.from({ length: CHAINS }, (_, i) => line(i));
  return makeKernel({
    name: "multiply_adds",
    shape: `${threads}x${CHAINS}x${STEPS}`,
    operands: copying(threads),
    uniforms: { turns: STEPS / UNROLL },
    workgroup: 64,
    grid: foldGrid(threads / 64),
    iterations: STEPS / UNROLL,
    body: `
let at = (wid.x + wid.y * groups.x) * 64u + lane;
let factor = x[at];
${each((i) => `var s${i} = factor + ${i}.0;`).join("\n")}
for (var i = 0u; i < u.turns; i++) {
${(each((i) => `  s${i} = fma(s${i}, factor, factor);`).join("\n") + "\n").repeat(UNROLL)}
}
out[at] = ${each((i) => `s${i}`).join(" + ")};`,
    flops: threads * CHAINS * STEPS * 8,
  });
}

/** So many vec4s from one array to another. */
function copying(units: number): Record<string, Operand> {
  return { x: read(layout(units, 4), "vec4f"), out: write(layout(units, 4), "vec4f") };
}

function copy(units: number): Kernel {
  return makeKernel({
    name: "copy",
    shape: `${units}`,
    operands: copying(units),
    uniforms: { units },
    workgroup: 64,
    grid: foldGrid(units / 64),
    body: `
let at = (wid.x + wid.y * groups.x) * 64u + lane;
if (at < u.units) { out[at] = x[at]; }`,
  });
}

/** Measures both ceilings: the best sample of each. */
export async function measureCeilings(gpu: Gpu): Promise<Ceilings> {
  const { software } = gpu.capabilities;
  const threads = software ? 2 ** 14 : 2 ** 18;
  // More than any cache holds.
  const units = software ? 2 ** 20 : 2 ** 24;
  const best = async (kernel: Kernel, count: number) => {
    const arrays = [new Float32Array(4 * count).fill(0.5), new Float32Array(4 * count)];
    return { kernel, ms: (await runKernels(gpu, arrays, [[kernel, 0, 1]], 5)).minMs };
  };
  const compute = await best(multiplyAdds(threads), threads);
  const memory = await best(copy(units), units);
  return {
    gflops: compute.kernel.flops / compute.ms / 1e6,
    gbps: memory.kernel.bytes / memory.ms / 1e6,
  };
}
