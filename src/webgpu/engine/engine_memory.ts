/**
 * The buffers of one engine: those that hold something from plan to plan, each with its own
 * storage, and the slots that all plans have their temporaries in.
 *
 * @module
 */
import type { Storage } from "../../ops/op.ts";
import type { Gpu } from "../device/device.ts";
import { createStorageBuffer, SlotPool } from "../plan/plan.ts";
import { ReadBack } from "../device/read_back.ts";

/** Allocates, writes and reads. */
export class EngineMemory {
  readonly pool: SlotPool;
  readonly #fixed = new Map<Storage, GPUBuffer>();

  constructor(readonly gpu: Gpu) {
    this.pool = new SlotPool(gpu);
  }

  /** Storages that have a buffer of their own. */
  get fixed(): ReadonlyMap<Storage, GPUBuffer> {
    return this.#fixed;
  }

  /** Bytes of all buffers so far. */
  get bytes(): number {
    let bytes = this.pool.bytes;
    for (const buffer of this.#fixed.values()) bytes += buffer.size;
    return bytes;
  }

  /** A new storage with a buffer. */
  allocate(label: string, elements: number): Storage {
    const storage = { label, size: elements };
    this.place(storage);
    return storage;
  }

  /** Gives a storage a buffer. */
  place(storage: Storage): void {
    const { label, size } = storage;
    this.#fixed.set(storage, createStorageBuffer(this.gpu, label, size));
  }

  /** The buffer that a storage was given. */
  buffer(storage: Storage): GPUBuffer {
    return this.#fixed.get(storage)!;
  }

  /** Replaces what a storage holds, from its beginning. */
  write(storage: Storage, data: Float32Array<ArrayBuffer>): void {
    this.gpu.device.queue.writeBuffer(this.buffer(storage), 0, data);
  }

  /** All that a storage holds. */
  read(storage: Storage): Promise<Float32Array> {
    return this.readBuffer(this.buffer(storage), 0, storage.size);
  }

  /** Reads of any buffer, such as a plan's, from element `start` on. */
  async readBuffer(buffer: GPUBuffer, start: number, elements: number): Promise<Float32Array> {
    const reader = new ReadBack(this.gpu, elements * 4);
    const data = new Float32Array(await reader.read(buffer, start * 4, elements * 4));
    reader.destroy();
    return data;
  }

  destroy(): void {
    for (const buffer of this.#fixed.values()) buffer.destroy();
    this.pool.destroy();
  }
}
