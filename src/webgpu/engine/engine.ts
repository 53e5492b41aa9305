/**
 * Training on WebGPU: the model traced, differentiated and recorded once, then replayed.
 *
 * @module
 */
import type { Batch } from "../../data/dataset.ts";
import type {
  DecodeFunction,
  Decoder,
  Engine,
  EngineOptions,
  EngineState,
  Metrics,
  StepHyper,
  Variant,
} from "../../engine.ts";
import { describeMemory, plannedMemory, printPlan } from "../../graph/print_plan.ts";
import { Compiler } from "./compiler.ts";
import { WebGpuDecoder } from "./decoder.ts";
import type { Gpu } from "../device/device.ts";
import { EngineMemory } from "./engine_memory.ts";
import { Evaluations } from "./evaluations.ts";
import { ModelState } from "./model_state.ts";
import type { ProfileRow } from "../plan/profile.ts";
import { TrainingSteps } from "./training_steps.ts";

/** The engine behind `device=webgpu`. */
export class WebGpuEngine implements Engine {
  readonly description: string;
  readonly #seqLen: number;
  readonly #memory: EngineMemory;
  readonly #model: ModelState;
  readonly #steps: TrainingSteps;
  readonly #evaluations: Evaluations;

  private constructor(gpu: Gpu, options: EngineOptions) {
    const { autotune = true, loss, seqLen } = options;
    this.description = `webgpu: ${gpu.name}`;
    this.#seqLen = seqLen;
    const memory = this.#memory = new EngineMemory(gpu);
    const model = this.#model = new ModelState(memory, options);
    const ranges = model.trainedRanges.length;
    const compiler = new Compiler(memory, { autotune, seqLen, ranges });
    this.#steps = new TrainingSteps(memory, compiler, model, options);
    this.#evaluations = new Evaluations(memory, compiler, { model: model.untrained, loss, seqLen });
  }

  /**
   * Makes the engine, looks for the fastest kernels of a training step, and reports what the device
   * says of its memory.
   */
  static async open(gpu: Gpu, options: EngineOptions): Promise<WebGpuEngine> {
    const engine = new WebGpuEngine(gpu, options);
    if (engine.#model.trained.length) await engine.#steps.prepare();
    await gpu.settle();
    return engine;
  }

  /** Bytes of all buffers so far. */
  get bytes(): number {
    return this.#memory.bytes;
  }

  step(batches: readonly Batch[], hyper: StepHyper): void {
    this.#steps.run(batches, hyper);
  }

  metrics(): Promise<Metrics[]> {
    return this.#steps.metrics();
  }

  /** Like {@linkcode step} with one batch, with a timestamp around every kernel. */
  profile(batch: Batch, hyper: StepHyper): Promise<ProfileRow[]> {
    return this.#steps.profile(batch, hyper);
  }

  /** What a training step dispatches, as text; see {@linkcode printPlan}. */
  printPlan(): string {
    return this.#steps.programs()
      .map(([part, source]) =>
        `plan of a ${part === "step" ? part : `step, ${part}`}\n${printPlan(source)}`
      )
      .join("\n\n");
  }

  /** What the memory planner saves in each part of a training step. */
  describeMemory(): string {
    return this.#steps.programs()
      .map(([part, source]) => `${part}: ${describeMemory(plannedMemory(source))}`)
      .join("; ");
  }

  evaluate(batch: Batch, variant?: Variant): Promise<Metrics> {
    return this.#evaluations.evaluate(batch, variant);
  }

  maps(batch: Batch, variant: Variant): Promise<Map<string, Float32Array | Int32Array>> {
    return this.#evaluations.maps(batch, variant);
  }

  tokenLosses(batch: Batch, variant?: Variant): Promise<Float32Array> {
    return this.#evaluations.tokenLosses(batch, variant);
  }

  logits(tokens: Int32Array, row?: number): Promise<Float32Array> {
    return this.#evaluations.logits(tokens, row);
  }

  decoder(model: DecodeFunction): Decoder {
    const memory = { engine: this.#memory, parameters: this.#model.untrained };
    return new WebGpuDecoder(model, { ...memory, seqLen: this.#seqLen });
  }

  async gradients(batch: Batch): Promise<Map<string, Float32Array>> {
    this.#steps.differentiate(batch);
    return await this.#model.read(this.#model.gradients);
  }

  exportState(): Promise<EngineState> {
    return this.#model.export();
  }

  importState(state: EngineState): void {
    this.#model.import(state);
  }

  [Symbol.dispose](): void {
    this.#steps.destroy();
    this.#evaluations.destroy();
    this.#memory.destroy();
  }
}
