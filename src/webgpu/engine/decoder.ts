/**
 * Decoding on WebGPU: the plan of "one token at position t" recorded once, with t and the token as
 * data, and caches that stay on the device.
 *
 * @module
 */
import type { DecodeFunction, Decoder } from "../../engine.ts";
import { matrixAt } from "../../ops/matrix.ts";
import type { Matrix, Storage } from "../../ops/op.ts";
import type { Gpu } from "../device/device.ts";
import type { EngineMemory } from "./engine_memory.ts";
import { Graph, type GraphTensor } from "../../graph/graph.ts";
import { lower } from "../../graph/lower.ts";
import { createStorageBuffer, Plan } from "../plan/plan.ts";
import { ReadBack } from "../device/read_back.ts";
import { type ModelMemory, parameterLeaves } from "./trace.ts";

/** What an engine lends to its decoders. */
export interface DecoderOptions {
  /** Parameters and activations. */
  readonly engine: EngineMemory;
  /** Where the parameters lie. */
  readonly parameters: ModelMemory;
  /** Tokens of a sequence, and rows of the caches. */
  readonly seqLen: number;
}

/** The decoder behind `device=webgpu`. */
export class WebGpuDecoder implements Decoder {
  readonly #gpu: Gpu;
  readonly #seqLen: number;
  readonly #own = new Map<Storage, GPUBuffer>();
  readonly #plan: Plan;
  readonly #inputs: GPUBuffer;
  readonly #logits: GPUBuffer;
  readonly #vocabSize: number;
  readonly #reader: ReadBack;
  #position = 0;

  constructor(model: DecodeFunction, { engine, parameters, seqLen }: DecoderOptions) {
    const gpu = this.#gpu = engine.gpu;
    this.#seqLen = seqLen;
    const graph = new Graph();
    const inputs = { label: "token and position", size: 2 };
    this.#inputs = this.#allocate(inputs);
    const scalar = (i: number) =>
      graph.leaf(matrixAt(inputs, i, { rows: 1, cols: 1, dtype: "i32" }));
    const caches = new Map<string, Matrix>();
    const { logits, caches: after } = model(parameterLeaves(graph, parameters), {
      token: scalar(0),
      position: scalar(1),
      cache: (name, cols) => {
        const storage = { label: `cache ${name}`, size: seqLen * cols };
        this.#allocate(storage);
        const matrix = matrixAt(storage, 0, { rows: seqLen, cols });
        caches.set(name, matrix);
        return graph.leaf(matrix);
      },
    });
    // A cache with one more token lies where the cache lay.
    const places = new Map(
      Object.entries(after).map(([name, t]) => [t as GraphTensor, caches.get(name)!]),
    );
    const result = { label: "next token's logits", size: logits.cols };
    this.#logits = this.#allocate(result);
    places.set(logits as GraphTensor, matrixAt(result, 0, logits));
    const program = lower(graph, { capabilities: gpu.capabilities, places });
    this.#plan = new Plan(gpu, program, new Map([...engine.fixed, ...this.#own]), engine.pool);
    this.#vocabSize = logits.cols;
    this.#reader = new ReadBack(gpu, logits.cols * 4);
  }

  push(token: number): void {
    if (this.#position === this.#seqLen) {
      throw new RangeError(`Cannot decode more than ${this.#seqLen} tokens of a sequence`);
    }
    const data = Int32Array.of(token, this.#position++);
    this.#gpu.device.queue.writeBuffer(this.#inputs, 0, data);
    this.#plan.submit();
  }

  async logits(): Promise<Float32Array> {
    return new Float32Array(await this.#reader.read(this.#logits, 0, this.#vocabSize * 4));
  }

  [Symbol.dispose](): void {
    this.#plan.destroy();
    this.#reader.destroy();
    for (const buffer of this.#own.values()) buffer.destroy();
  }

  #allocate(storage: Storage): GPUBuffer {
    const buffer = createStorageBuffer(this.#gpu, storage.label, storage.size);
    this.#own.set(storage, buffer);
    return buffer;
  }
}
