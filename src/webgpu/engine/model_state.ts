/**
 * A model on the device: parameters, gradients and AdamW's moments, all in one layout.
 *
 * @module
 */
import type { EngineOptions, EngineState } from "../../engine.ts";
import type { Storage } from "../../ops/op.ts";
import { ArenaLayout, type ArenaRange } from "./arena.ts";
import type { EngineMemory } from "./engine_memory.ts";
import type { ModelMemory } from "./trace.ts";

/** Everything that training changes. Without trained groups there are parameters only. */
export class ModelState implements ModelMemory {
  readonly layout: ArenaLayout;
  readonly trained: readonly string[];
  /** The ranges of the trained groups. */
  readonly trainedRanges: readonly ArenaRange[];
  readonly weights: Storage;
  readonly gradients: Storage;
  readonly m: Storage;
  readonly v: Storage;
  readonly #memory: EngineMemory;

  constructor(
    memory: EngineMemory,
    { parameters, initial, trained }: Pick<EngineOptions, "parameters" | "initial" | "trained">,
  ) {
    this.#memory = memory;
    this.layout = new ArenaLayout(parameters);
    this.trained = trained ?? [...new Set(parameters.map((p) => p.group))];
    this.trainedRanges = this.layout.ranges.filter((r) => this.trained.includes(r.group));
    this.weights = memory.allocate("parameters", this.layout.size);
    const size = this.trained.length ? this.layout.size : 0;
    this.gradients = memory.allocate("gradients", size);
    this.m = memory.allocate("first moments", size);
    this.v = memory.allocate("second moments", size);
    memory.write(this.weights, this.layout.pack(initial));
  }

  /** The same for plans without a backward pass. */
  get untrained(): ModelMemory {
    const { layout, weights, gradients } = this;
    return { layout, weights, gradients, trained: [] };
  }

  /** The values of one storage by parameter. */
  async read(storage: Storage): Promise<Map<string, Float32Array>> {
    return this.layout.unpack(await this.#memory.read(storage));
  }

  async export(): Promise<EngineState> {
    return {
      parameters: await this.read(this.weights),
      m: await this.read(this.m),
      v: await this.read(this.v),
    };
  }

  import(state: EngineState): void {
    this.#memory.write(this.weights, this.layout.pack(state.parameters));
    if (!this.trained.length) return;
    this.#memory.write(this.m, this.layout.pack(state.m));
    this.#memory.write(this.v, this.layout.pack(state.v));
  }
}
