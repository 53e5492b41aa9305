/**
 * A recorded plan: bind groups, memory and pipelines made once, replayed every step.
 *
 * @module
 */
import { MemoryError } from "../../errors.ts";
import type { Kernel } from "../../kernels/wgsl/kernel.ts";
import type { Matrix, Storage } from "../../ops/op.ts";
import type { Gpu } from "../device/device.ts";
import type { Dispatch } from "../../graph/plan_recorder.ts";
import { windowSize } from "../../ops/matrix.ts";
import { planMemory } from "../../graph/memory.ts";
import { lifetimes, type PlanSource } from "../../graph/plan_source.ts";
import { formatBytes } from "../../text/units.ts";

const STORAGE_USAGE = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;

/** Makes a storage buffer, or says what the adapter's limit is. */
export function createStorageBuffer(gpu: Gpu, label: string, elements: number): GPUBuffer {
  const size = bufferSize(label, elements, gpu.device.limits.maxBufferSize);
  return gpu.device.createBuffer({ label, size, usage: STORAGE_USAGE });
}

/**
 * Bytes of a buffer for so many elements.
 *
 * @throws {MemoryError} if they are more than `limit`
 */
export function bufferSize(label: string, elements: number, limit: number): number {
  const size = Math.max(16, Math.ceil(elements / 4) * 16);
  if (size <= limit) return size;
  throw new MemoryError(
    `${label} needs ${formatBytes(size)}, one buffer holds ${formatBytes(limit)}`,
  );
}

/**
 * Bytes that a matrix binds.
 *
 * @throws {MemoryError} if they are more than `limit`
 */
export function bindingSize(m: Matrix, limit: number): number {
  const size = windowSize(m) * 4;
  if (size <= limit) return size;
  throw new MemoryError(
    `${m.storage.label} needs a binding of ${formatBytes(size)}, the adapter allows ${
      formatBytes(limit)
    }`,
  );
}

/**
 * Buffers that the plans of one engine share: plans run one after the other, so their temporaries
 * may lie in the same memory.
 */
export class SlotPool {
  readonly #gpu: Gpu;
  readonly #buffers: GPUBuffer[] = [];

  constructor(gpu: Gpu) {
    this.#gpu = gpu;
  }

  /** One distinct buffer per size, in the order of `sizes` (elements). */
  take(sizes: readonly number[]): GPUBuffer[] {
    const free = [...this.#buffers].sort((a, b) => a.size - b.size);
    const out: GPUBuffer[] = new Array(sizes.length);
    const order = sizes.map((_, i) => i).sort((a, b) => sizes[b] - sizes[a]);
    for (const i of order) {
      const fit = free.findIndex((b) => b.size >= sizes[i] * 4);
      if (fit >= 0) {
        out[i] = free.splice(fit, 1)[0];
      } else {
        out[i] = createStorageBuffer(this.#gpu, "activations", sizes[i]);
        this.#buffers.push(out[i]);
      }
    }
    return out;
  }

  get bytes(): number {
    return this.#buffers.reduce((sum, b) => sum + b.size, 0);
  }

  /** Fills all memory with NaN, so that tests see what a kernel forgot to write. */
  poison(): void {
    for (const buffer of this.#buffers) {
      this.#gpu.device.queue.writeBuffer(buffer, 0, new Float32Array(buffer.size / 4).fill(NaN));
    }
  }

  destroy(): void {
    for (const buffer of this.#buffers) buffer.destroy();
    this.#buffers.length = 0;
  }
}

/** A dispatch with its memory bound. */
interface Prepared {
  readonly kernel: Kernel;
  readonly group: GPUBindGroup;
  /** Made when it is needed first. */
  pipeline: GPUComputePipeline | null;
}

/** A program ready to run. */
export class Plan {
  readonly steps: readonly Prepared[];
  readonly #gpu: Gpu;
  readonly #buffers: ReadonlyMap<Storage, GPUBuffer>;
  readonly #uniforms: GPUBuffer;
  #next: GPUCommandBuffer | null = null;

  /**
   * @param fixed storages that have a buffer already: parameters, inputs, metrics
   */
  constructor(
    gpu: Gpu,
    source: PlanSource,
    fixed: ReadonlyMap<Storage, GPUBuffer>,
    pool: SlotPool,
  ) {
    this.#gpu = gpu;
    const slots = planMemory(lifetimes(source));
    const slotBuffers = pool.take(slots.map((s) => s.size));
    const buffers = new Map(fixed);
    slots.forEach((slot, i) => slot.storages.forEach((s) => buffers.set(s, slotBuffers[i])));
    this.#buffers = buffers;

    const { data, offsets } = packUniforms(source.dispatches);
    this.#uniforms = gpu.device.createBuffer({
      label: "uniforms",
      size: data.byteLength,
      usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
    });
    gpu.device.queue.writeBuffer(this.#uniforms, 0, data);

    this.steps = source.dispatches.map(({ kernel, operands }, i) => ({
      kernel,
      pipeline: null,
      group: gpu.device.createBindGroup({
        label: kernel.label,
        layout: gpu.layout(kernel),
        entries: [
          ...operands.map((m) => this.#window(m, gpu.capabilities.maxBindingBytes)),
          { buffer: this.#uniforms, offset: offsets[i], size: kernel.uniforms.byteLength },
        ].map((resource, binding) => ({ binding, resource })),
      }),
    }));
  }

  /**
   * Runs the plan: one pass, one submit. The commands of the next run are encoded at once, while
   * the GPU works on this one. The first time it works while kernels are still being compiled.
   */
  submit(): void {
    const { queue } = this.#gpu.device;
    if (this.#next) {
      queue.submit([this.#next]);
    } else {
      for (const steps of this.#parts()) queue.submit([this.#encode(steps)]);
    }
    this.#next = this.#encode(this.steps);
  }

  /** The steps in parts, each up to the next kernel that has to be compiled. */
  *#parts(): Generator<Prepared[]> {
    let part: Prepared[] = [];
    for (const step of this.steps) {
      if (part.length && !this.#gpu.hasPipeline(step.kernel)) {
        yield part;
        part = [];
      }
      step.pipeline = this.#gpu.pipeline(step.kernel);
      part.push(step);
    }
    yield part;
  }

  #encode(steps: readonly Prepared[]): GPUCommandBuffer {
    const encoder = this.#gpu.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    let last: GPUComputePipeline | null = null;
    for (const { kernel, group, pipeline } of steps) {
      if (pipeline !== last) pass.setPipeline((last = pipeline)!);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(kernel.grid[0], kernel.grid[1], kernel.grid[2]);
    }
    pass.end();
    return encoder.finish();
  }

  /** The buffer of a storage, for reading results. */
  buffer(storage: Storage): GPUBuffer {
    const buffer = this.#buffers.get(storage);
    if (!buffer) throw new TypeError(`Storage ${storage.label} is not part of this plan`);
    return buffer;
  }

  #window(m: Matrix, limit: number): GPUBufferBinding {
    const size = bindingSize(m, limit);
    const buffer = this.buffer(m.storage);
    // Windows are padded to whole vec4s; buffers are made in multiples of 16 bytes.
    const padded = Math.min(Math.ceil(size / 16) * 16, buffer.size - m.base * 4);
    return { buffer, offset: m.base * 4, size: padded };
  }

  destroy(): void {
    this.#uniforms.destroy();
  }
}

/** All uniform structs in one buffer at 256-byte steps, equal ones stored once. */
function packUniforms(dispatches: readonly Dispatch[]): {
  data: Uint32Array<ArrayBuffer>;
  offsets: number[];
} {
  const places = new Map<string, number>();
  const chunks: Uint32Array[] = [];
  let end = 0;
  const offsets = dispatches.map(({ kernel }) => {
    const key = kernel.uniforms.join();
    let place = places.get(key);
    if (place === undefined) {
      places.set(key, place = end);
      chunks.push(kernel.uniforms);
      end += Math.ceil(kernel.uniforms.length / 64) * 64;
    }
    return place * 4;
  });
  const data = new Uint32Array(Math.max(end, 64));
  for (const [i, place] of [...places.values()].entries()) data.set(chunks[i], place);
  return { data, offsets };
}
