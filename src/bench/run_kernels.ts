/**
 * Runs single kernels on plain arrays: for timing, tuning and tests, below the level of ops.
 *
 * @module
 */
import type { Kernel } from "../kernels/wgsl/kernel.ts";
import type { Gpu } from "../webgpu/device/device.ts";
import { ReadBack } from "../webgpu/device/read_back.ts";
import { type Layout } from "../kernels/wgsl/operand.ts";

/** Layout of a packed matrix, or of a part of a wider or longer one. */
export function layout(rows: number, cols: number, offset = 0, stride = cols): Layout {
  return { rows, cols, offset, stride };
}

/** A dispatch: a kernel and the index of the array for each of its bindings. */
export type Call = readonly [Kernel, ...number[]];

/** A kernel on the arrays whose places those of its operands among `matrices` are. */
export function callOn(kernel: Kernel, matrices: readonly Layout[]): Call {
  const places = kernel.operands.map((operand) => matrices.indexOf(operand));
  if (places.includes(-1)) throw new RangeError(`${kernel.label}: an operand has no array`);
  return [kernel, ...places];
}

/** A GPU that was idle needs this long to raise its clocks: 5 times faster on an H100. */
export const WARM_UP_MS = 300;
/** One timed sample is at least this long, or clocks fall again between samples. */
export const SAMPLE_MS = 10;

/**
 * Uploads `arrays`, runs `calls` in order in one pass, and reads every array back. With `repeat`,
 * also times that many samples of all calls together, on a warm device (GPU timestamps), and gives
 * the median and the least in ms.
 */
export async function runKernels(
  gpu: Gpu,
  arrays: readonly (Float32Array | Int32Array | Uint32Array)[],
  calls: readonly Call[],
  repeat = 0,
): Promise<{ arrays: Float32Array[]; ms: number; minMs: number }> {
  const { device } = gpu;
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const buffers = arrays.map((a) => {
    const buffer = device.createBuffer({ size: Math.max(16, a.byteLength), usage });
    device.queue.writeBuffer(buffer, 0, a as Float32Array<ArrayBuffer>);
    return buffer;
  });
  const prepared = calls.map(([kernel, ...operands]) => {
    const uniform = device.createBuffer({
      size: kernel.uniforms.byteLength,
      usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
    });
    device.queue.writeBuffer(uniform, 0, kernel.uniforms);
    const pipeline = gpu.pipeline(kernel);
    const group = device.createBindGroup({
      label: kernel.label,
      layout: gpu.layout(kernel),
      entries: [...operands.map((i) => buffers[i]), uniform].map((buffer, binding) => ({
        binding,
        resource: { buffer },
      })),
    });
    return { kernel, uniform, pipeline, group };
  });
  const querySet = device.createQuerySet({ type: "timestamp", count: 2 });
  const stamps = device.createBuffer({
    size: 16,
    usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
  });
  const stampReader = new ReadBack(gpu, 16);
  const run = async (times: number) => {
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass({
      timestampWrites: { querySet, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 },
    });
    for (let i = 0; i < times; i++) {
      for (const { kernel, pipeline, group } of prepared) {
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, group);
        pass.dispatchWorkgroups(...kernel.grid);
      }
    }
    pass.end();
    encoder.resolveQuerySet(querySet, 0, 2, stamps, 0);
    device.queue.submit([encoder.finish()]);
    const [begin, end] = new BigUint64Array(await stampReader.read(stamps, 0, 16));
    return Number(end - begin) / 1e6 / times;
  };
  await run(1);
  const out: Float32Array[] = [];
  for (const [i, a] of arrays.entries()) {
    const reader = new ReadBack(gpu, a.byteLength);
    out.push(new Float32Array(await reader.read(buffers[i], 0, a.byteLength)));
    reader.destroy();
  }
  const samples: number[] = [];
  if (repeat > 0) {
    let ms = await run(1);
    const start = performance.now();
    do {
      ms = await run(Math.max(1, Math.ceil(SAMPLE_MS / ms)));
    } while (!gpu.capabilities.software && performance.now() - start < WARM_UP_MS);
    const times = Math.max(1, Math.ceil(SAMPLE_MS / ms));
    for (let i = 0; i < repeat; i++) samples.push(await run(times));
  }
  samples.sort((a, b) => a - b);
  await gpu.settle();
  for (const buffer of [...buffers, stamps, ...prepared.map((p) => p.uniform)]) buffer.destroy();
  stampReader.destroy();
  querySet.destroy();
  return { arrays: out, ms: samples[samples.length >> 1] ?? NaN, minMs: samples[0] ?? NaN };
}
