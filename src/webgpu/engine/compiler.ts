/**
 * From recorded programs to plans that run: all plans of one engine share its memory.
 *
 * @module
 */
import type { EngineMemory } from "./engine_memory.ts";
import { type InputLayout, inputLayout, type InputValues } from "./inputs.ts";
import { Plan } from "../plan/plan.ts";
import type { PlanSource } from "../../graph/plan_source.ts";
import { type Tuning, tuningOf } from "../tuning/tuning.ts";

/** A plan with the inputs that it reads. */
export interface Compiled {
  readonly plan: Plan;
  readonly inputs: InputLayout;
}

/** How an engine's plans are made. */
export interface CompilerOptions {
  /** Whether to choose among variants of kernels. */
  readonly autotune: boolean;
  /** Tokens of a sequence. */
  readonly seqLen: number;
  /** Trained ranges of the parameters. */
  readonly ranges: number;
}

/** Makes the plans of one engine, and runs them. */
export class Compiler {
  readonly #memory: EngineMemory;
  readonly #tuning: Tuning | null;
  readonly #options: CompilerOptions;

  constructor(memory: EngineMemory, options: CompilerOptions) {
    this.#memory = memory;
    this.#tuning = options.autotune ? tuningOf(memory.gpu) : null;
    this.#options = options;
  }

  /** Inputs of a plan for `batch` sequences, with their memory if the plan is to run. */
  inputs(batch: number, isPlaced = true): InputLayout {
    const { seqLen, ranges } = this.#options;
    const inputs = inputLayout({ batch, seqLen, ranges });
    if (isPlaced) this.#memory.place(inputs.storage);
    return inputs;
  }

  /** Looks for the fastest kernels; best before `compile` takes memory, so that trials may have it. */
  async tune({ dispatches }: PlanSource): Promise<void> {
    await this.#tuning?.tune(dispatches);
  }

  /** A plan with the fastest kernels that are known. */
  compile({ dispatches, temporaries, kept }: PlanSource): Plan {
    const fastest = this.#tuning?.apply(dispatches) ?? dispatches;
    const source = { dispatches: fastest, temporaries, kept };
    return new Plan(this.#memory.gpu, source, this.#memory.fixed, this.#memory.pool);
  }

  /** Writes a plan's inputs and submits it. */
  run({ plan, inputs }: Compiled, values: InputValues): void {
    this.#memory.write(inputs.storage, inputs.pack(values));
    plan.submit();
  }
}
