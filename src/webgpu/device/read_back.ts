/**
 * Reading GPU memory without waiting. In Deno an awaited `mapAsync` costs at least 11 ms, but the
 * call itself returns only when the GPU is idle, so the data can be taken at once (0.1 ms). On a
 * buffer never mapped before that would panic: every staging buffer is mapped once at creation.
 *
 * @module
 */
import type { Gpu } from "./device.ts";

/** A reusable staging buffer for reads of up to `bytes` bytes. */
export class ReadBack {
  readonly #gpu: Gpu;
  readonly #buffer: GPUBuffer;

  constructor(gpu: Gpu, bytes: number) {
    this.#gpu = gpu;
    this.#buffer = gpu.device.createBuffer({
      label: "read back",
      size: Math.max(4, Math.ceil(bytes / 4) * 4),
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
      mappedAtCreation: true,
    });
    try {
      this.#buffer.unmap();
    } catch {
      // There is no such buffer on a device that is lost: reading says so.
    }
  }

  /**
   * Copies out `bytes` bytes of `source` from `offset` on, after all work submitted so far.
   *
   * @throws {GpuError} if any of that work failed: its results are not given out
   */
  async read(source: GPUBuffer, offset: number, bytes: number): Promise<ArrayBuffer> {
    const encoder = this.#gpu.device.createCommandEncoder();
    encoder.copyBufferToBuffer(source, offset, this.#buffer, 0, bytes);
    this.#gpu.device.queue.submit([encoder.finish()]);
    const mapped = this.#buffer.mapAsync(GPUMapMode.READ, 0, bytes);
    mapped.catch(() => {});
    const data = this.#copied(bytes) ?? await mapped.then(() => this.#take(bytes), () => null);
    await this.#gpu.settle();
    if (!data) throw await this.#gpu.failure("it gives no data back");
    return data;
  }

  /** The data where it is mapped already. Elsewhere, or in a later Deno, it has to be waited for. */
  #copied(bytes: number): ArrayBuffer | null {
    try {
      return this.#take(bytes);
    } catch {
      return null;
    }
  }

  #take(bytes: number): ArrayBuffer {
    const copy = this.#buffer.getMappedRange(0, bytes).slice(0);
    this.#buffer.unmap();
    return copy;
  }

  destroy(): void {
    this.#buffer.destroy();
  }
}
