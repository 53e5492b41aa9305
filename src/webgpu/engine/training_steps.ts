/**
 * Training steps: the plans that one is made of.
 *
 * @module
 */
import type { Batch } from "../../data/dataset.ts";
import type { EngineOptions, Metrics, StepHyper } from "../../engine.ts";
import { columnsOf } from "../../ops/matrix.ts";
import type { Compiled, Compiler } from "./compiler.ts";
import type { EngineMemory } from "./engine_memory.ts";
import type { GraphTensor } from "../../graph/graph.ts";
import { type InputLayout, inputLayout, inverseCount } from "./inputs.ts";
import { lower } from "../../graph/lower.ts";
import { type ColumnRange, MetricRing } from "./metric_ring.ts";
import type { ModelState } from "./model_state.ts";
import { hyperRows, recordUpdate } from "./optimizer.ts";
import type { PlanSource } from "../../graph/plan_source.ts";
import { PlanRecorder } from "../../graph/plan_recorder.ts";
import { profilePlan, type ProfileRow } from "../plan/profile.ts";
import { metricNames, metricPlaces, traceModel } from "./trace.ts";

/** The parts of a step: all of it, or, with several micro-batches, the first, the others, the update. */
type Part = "step" | "first" | "next" | "update";

/** A part before it has its memory. */
interface Recorded {
  readonly source: PlanSource;
  readonly inputs: InputLayout;
}

/** Runs steps, each by the plans of its parts, which are made when they are first needed. */
export class TrainingSteps {
  readonly #memory: EngineMemory;
  readonly #compiler: Compiler;
  readonly #model: ModelState;
  readonly #options: EngineOptions;
  readonly #parts = new Map<Part, Compiled>();
  readonly #ring: MetricRing;
  /** Columns of a step's metrics: those of the losses, and the norms of the gradients. */
  readonly #losses: ColumnRange;
  readonly #norms: ColumnRange;

  constructor(
    memory: EngineMemory,
    compiler: Compiler,
    model: ModelState,
    options: EngineOptions,
  ) {
    this.#memory = memory;
    this.#compiler = compiler;
    this.#model = model;
    this.#options = options;
    // What the model reports does not depend on the batch.
    const inputs = inputLayout({ batch: 1, seqLen: options.seqLen, ranges: 0 });
    const losses = metricNames(traceModel(options.loss, inputs, model).result.metrics);
    const norms = model.trained.map((group) => `grad/norm/${group}`);
    this.#losses = { start: 0, cols: losses.length };
    this.#norms = { start: losses.length, cols: norms.length };
    this.#ring = new MetricRing(memory, [...losses, ...norms]);
  }

  /** Makes the plan that steps begin with, of the fastest kernels that can be found. */
  async prepare(): Promise<void> {
    const part = (this.#options.microBatches ?? 1) > 1 ? "first" : "step";
    const recorded = this.#record(part);
    // Before the plan takes its memory, so that the trials may have it.
    await this.#compiler.tune(recorded.source);
    this.#parts.set(part, this.#compile(recorded));
  }

  /** Forward and backward over the micro-batches, then one update. */
  run(batches: readonly Batch[], hyper: StepHyper): void {
    this.#ring.checkRoom();
    const count = batches.reduce((sum, b) => sum + b.count, 0);
    const step = { slot: this.#ring.slot, inverseCount: inverseCount(count), hyper: [] };
    const update = { ...step, hyper: hyperRows(this.#model.trainedRanges, hyper) };
    if (batches.length === 1) {
      this.#compiler.run(this.#part("step"), { ...update, batch: batches[0] });
    } else {
      batches.forEach((batch, i) => {
        this.#compiler.run(this.#part(i === 0 ? "first" : "next"), { ...step, batch });
      });
      this.#compiler.run(this.#part("update"), update);
    }
    this.#ring.advance();
  }

  /** Like {@linkcode run} with one batch, with a timestamp around every kernel. */
  profile(batch: Batch, hyper: StepHyper): Promise<ProfileRow[]> {
    const { plan, inputs } = this.#part("step");
    const { slot } = this.#ring;
    this.#ring.advance();
    const values = {
      batch,
      slot,
      inverseCount: inverseCount(batch.count),
      hyper: hyperRows(this.#model.trainedRanges, hyper),
    };
    this.#memory.write(inputs.storage, inputs.pack(values));
    return profilePlan(this.#memory.gpu, plan);
  }

  /** The programs that a step consists of, by the part of the step. */
  programs(): [part: string, source: PlanSource][] {
    const parts: Part[] = (this.#options.microBatches ?? 1) > 1
      ? ["first", "next", "update"]
      : ["step"];
    return parts.map((part) => [part, this.#record(part, false).source]);
  }

  /** Forward and backward over one batch, without an update. */
  differentiate(batch: Batch): void {
    const values = { batch, slot: 0, inverseCount: inverseCount(batch.count), hyper: [] };
    this.#compiler.run(this.#part("first"), values);
  }

  /** The metrics of all steps since the last call, oldest first. */
  metrics(): Promise<Metrics[]> {
    return this.#ring.read();
  }

  destroy(): void {
    for (const { plan } of this.#parts.values()) plan.destroy();
    this.#ring.destroy();
  }

  #part(part: Part): Compiled {
    const known = this.#parts.get(part);
    if (known) return known;
    const made = this.#compile(this.#record(part));
    this.#parts.set(part, made);
    return made;
  }

  #compile({ source, inputs }: Recorded): Compiled {
    return { plan: this.#compiler.compile(source), inputs };
  }

  /** @param isPlaced whether the inputs get memory: to be run, not only looked at */
  #record(part: Part, isPlaced = true): Recorded {
    const inputs = this.#compiler.inputs(this.#options.batchSize, isPlaced);
    const source = part === "update"
      ? this.#recordUpdate(inputs)
      : this.#recordGradients(part, inputs);
    return { source, inputs };
  }

  #recordUpdate(inputs: InputLayout): PlanSource {
    const recorder = new PlanRecorder(this.#memory.gpu.capabilities);
    this.#appendUpdate(recorder, inputs);
    this.#ring.record(recorder, inputs.slot, this.#norms, false);
    return recorder;
  }

  /** Forward and backward, and what else belongs to the part. */
  #recordGradients(part: Exclude<Part, "update">, inputs: InputLayout): PlanSource {
    const { graph, result } = traceModel(this.#options.loss, inputs, this.#model);
    const program = lower(graph, {
      capabilities: this.#memory.gpu.capabilities,
      losses: result.losses.map(({ tensor, weight }) => ({
        tensor: tensor as GraphTensor,
        weight,
      })),
      places: metricPlaces(result.metrics, this.#ring.row),
      accumulate: part === "next",
    });
    if (part === "step") this.#appendUpdate(program.recorder, inputs);
    // The update of a whole step has put the norms beside the losses: one copy takes both.
    const columns = part === "step"
      ? { start: 0, cols: this.#losses.cols + this.#norms.cols }
      : this.#losses;
    this.#ring.record(program.recorder, inputs.slot, columns, part === "next");
    return program;
  }

  #appendUpdate(recorder: PlanRecorder, { hyper }: InputLayout): void {
    const { layout, trained, trainedRanges: ranges, weights, gradients, m, v } = this.#model;
    const norm = (i: number) => columnsOf(this.#ring.row, this.#norms.start + i, 1);
    const norms = new Map(trained.map((group, i) => [group, norm(i)]));
    recordUpdate(recorder, { layout, ranges, weights, gradients, m, v, norms, hyper });
  }
}
