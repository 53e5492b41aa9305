/**
 * Runs single dispatches on memory of their own, to see how long they take and what they write.
 *
 * @module
 */
import type { Kernel } from "../../kernels/wgsl/kernel.ts";
import { windowSize } from "../../ops/matrix.ts";
import type { Gpu } from "../device/device.ts";
import type { Dispatch } from "../../graph/plan_recorder.ts";
import { createStorageBuffer } from "../plan/plan.ts";
import { ReadBack } from "../device/read_back.ts";

/** Bytes that are looked at, at the start and at the end of an output. */
const SAMPLE_BYTES = 2 ** 16;
/** Random numbers that are drawn; memory is filled with copies of them. */
const DRAWN = 2 ** 18;

/** A kernel ready to be run. */
export interface Prepared {
  readonly kernel: Kernel;
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  /** Bytes of the output. */
  readonly written: number;
}

/**
 * Memory for dispatches of kernels that read any number of f32 buffers and write one. All inputs
 * are the same random numbers: equal ones would draw less power, and let some GPUs run faster.
 */
export class Trial {
  readonly #gpu: Gpu;
  readonly #input: GPUBuffer;
  readonly #output: GPUBuffer;
  readonly #uniforms: GPUBuffer[] = [];
  readonly #stamps: { querySet: GPUQuerySet; resolved: GPUBuffer } | null;
  readonly #reader: ReadBack;

  /**
   * @param dispatches what it has to have room for
   * @param timestamps whether to measure on the GPU, and not by the clock of the program
   */
  constructor(gpu: Gpu, dispatches: readonly Dispatch[], timestamps: boolean) {
    this.#gpu = gpu;
    const { device } = gpu;
    const elements = Math.max(...dispatches.flatMap((d) => d.operands.map(windowSize)));
    this.#input = createStorageBuffer(gpu, "input of a trial", elements);
    this.#output = createStorageBuffer(gpu, "output of a trial", elements);
    this.#fill();
    this.#reader = new ReadBack(gpu, SAMPLE_BYTES);
    this.#stamps = timestamps
      ? {
        querySet: device.createQuerySet({ type: "timestamp", count: 2 }),
        resolved: device.createBuffer({
          label: "timestamps",
          size: 16,
          usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
        }),
      }
      : null;
  }

  /** Puts random numbers into the input, by way of the output: a buffer is not copied into itself. */
  #fill(): void {
    const { device } = this.#gpu;
    const { size } = this.#input;
    const count = Math.min(DRAWN, size / 4);
    const numbers = Float32Array.from({ length: count }, () => 2 * Math.random() - 1);
    device.queue.writeBuffer(this.#input, 0, numbers);
    const encoder = device.createCommandEncoder();
    for (let filled = numbers.byteLength; filled < size; filled *= 2) {
      const bytes = Math.min(filled, size - filled);
      encoder.copyBufferToBuffer(this.#input, 0, this.#output, 0, bytes);
      encoder.copyBufferToBuffer(this.#output, 0, this.#input, filled, bytes);
    }
    device.queue.submit([encoder.finish()]);
  }

  /** Binds the memory to a kernel, or returns null if the device refuses it. */
  async prepare({ kernel, operands }: Dispatch): Promise<Prepared | null> {
    const { device } = this.#gpu;
    const pipeline = await this.#gpu.tryPipeline(kernel);
    if (!pipeline) return null;
    const uniforms = device.createBuffer({
      label: kernel.label,
      size: kernel.uniforms.byteLength,
      usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
    });
    device.queue.writeBuffer(uniforms, 0, kernel.uniforms);
    this.#uniforms.push(uniforms);
    const isInput = (i: number) => kernel.access[i] === "read";
    const windows = operands.map((m, i) => ({
      buffer: isInput(i) ? this.#input : this.#output,
      size: Math.ceil(windowSize(m) / 4) * 16,
    }));
    const group = device.createBindGroup({
      label: kernel.label,
      layout: this.#gpu.layout(kernel),
      entries: [...windows, { buffer: uniforms }].map((resource, binding) => ({
        binding,
        resource,
      })),
    });
    const output = operands.find((_, i) => !isInput(i))!;
    return { kernel, pipeline, group, written: 4 * windowSize(output) };
  }

  /** The first and the last part of what a kernel writes, bit by bit. */
  async bits(prepared: Prepared): Promise<Uint32Array> {
    const encoder = this.#gpu.device.createCommandEncoder();
    // What it adds to, and what it leaves as it is, must be the same for all.
    encoder.copyBufferToBuffer(this.#input, 0, this.#output, 0, this.#output.size);
    const pass = encoder.beginComputePass();
    dispatch(pass, prepared, 1);
    pass.end();
    this.#gpu.device.queue.submit([encoder.finish()]);
    const bytes = Math.min(SAMPLE_BYTES, prepared.written);
    const part = async (start: number) =>
      new Uint32Array(await this.#reader.read(this.#output, start, bytes));
    const [first, last] = [await part(0), await part(prepared.written - bytes)];
    return Uint32Array.of(...first, ...last);
  }

  /** Milliseconds that a kernel takes, as the mean of some dispatches at a stretch. */
  async time(prepared: Prepared, times: number): Promise<number> {
    const { device } = this.#gpu;
    const stamps = this.#stamps;
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass(
      stamps
        ? {
          timestampWrites: {
            querySet: stamps.querySet,
            beginningOfPassWriteIndex: 0,
            endOfPassWriteIndex: 1,
          },
        }
        : {},
    );
    dispatch(pass, prepared, times);
    pass.end();
    if (stamps) encoder.resolveQuerySet(stamps.querySet, 0, 2, stamps.resolved, 0);
    const commands = encoder.finish();
    const start = performance.now();
    device.queue.submit([commands]);
    // Reading waits for the GPU.
    const read = await this.#reader.read(stamps?.resolved ?? this.#output, 0, 16);
    const ms = performance.now() - start;
    if (!stamps) return ms / times;
    const [begin, end] = new BigUint64Array(read);
    return Number(end - begin) / 1e6 / times;
  }

  [Symbol.dispose](): void {
    for (const buffer of [this.#input, this.#output, ...this.#uniforms]) buffer.destroy();
    this.#stamps?.querySet.destroy();
    this.#stamps?.resolved.destroy();
    this.#reader.destroy();
  }
}

function dispatch(
  pass: GPUComputePassEncoder,
  { kernel, pipeline, group }: Prepared,
  times: number,
): void {
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  for (let i = 0; i < times; i++) pass.dispatchWorkgroups(...kernel.grid);
}
