/**
 * Training on WebGPU: the model traced, differentiated and recorded once, then replayed.
 *
 * @module
 */
import type { Batch } from "../data/dataset.ts";
import type {
  Engine,
  EngineOptions,
  EngineState,
  LossFunction,
  Metrics,
  StepHyper,
  Variant,
} from "../engine.ts";
import { recordMetrics } from "../kernels/record_metrics.ts";
import type { Matrix, Storage } from "../ops/op.ts";
import { ArenaLayout } from "./arena.ts";
import type { Gpu } from "./device.ts";
import type { GraphTensor } from "./graph.ts";
import { type InputLayout, inputLayout } from "./inputs.ts";
import { lower } from "./lower.ts";
import { PlanRecorder } from "./plan_recorder.ts";
import { columnsOf, matrixAt } from "../ops/matrix.ts";
import { recordUpdate } from "./optimizer.ts";
import { createStorageBuffer, Plan, type PlanSource, SlotPool } from "./plan.ts";
import { profilePlan, type ProfileRow } from "./profile.ts";
import { ReadBack } from "./read_back.ts";
import { metricNames, metricPlaces, type ModelMemory, traceModel } from "./trace.ts";
import { type Tuning, tuningOf } from "./tuning.ts";

/** Steps whose metrics the device keeps until they are read. */
const RING_ROWS = 1024;

/** The optimizer's numbers that leave values and moments as they are; see `ADAMW_HYPER`. */
const FROZEN = Float32Array.of(0, 0, 0, 1, 1, 1, 1, 1);

/** A plan with the inputs it reads and the results it leaves. */
interface Compiled {
  readonly plan: Plan;
  readonly inputs: InputLayout;
}

/** A plan that only computes: metrics, logits, token losses. */
interface Evaluation extends Compiled {
  readonly names: readonly string[];
  readonly metrics: Storage;
  readonly logits: Matrix;
  readonly nll: Matrix | null;
  readonly maps: ReadonlyMap<string, Matrix>;
}

/** The parts of a step: all of it, or, with several micro-batches, the first, the others, the update. */
type Part = "step" | "first" | "next" | "update";

/** The engine behind `device=webgpu`. */
export class WebGpuEngine implements Engine {
  readonly description: string;
  readonly #gpu: Gpu;
  readonly #options: EngineOptions;
  readonly #tuning: Tuning | null;
  readonly #layout: ArenaLayout;
  readonly #trained: readonly string[];
  readonly #fixed = new Map<Storage, GPUBuffer>();
  readonly #pool: SlotPool;
  readonly #parts = new Map<Part, Compiled>();
  readonly #evaluations = new Map<string, Evaluation>();
  readonly #weights: Storage;
  readonly #gradients: Storage;
  readonly #m: Storage;
  readonly #v: Storage;
  readonly #metricNames: string[] = [];
  readonly #metricsRow: Storage;
  readonly #ring: Storage;
  readonly #ringReader: ReadBack;
  readonly #lossColumns: number;
  #written = 0;
  #read = 0;

  private constructor(gpu: Gpu, options: EngineOptions) {
    this.#gpu = gpu;
    this.#options = options;
    this.#tuning = options.autotune === false ? null : tuningOf(gpu);
    this.description = `webgpu: ${gpu.name}`;
    this.#pool = new SlotPool(gpu);
    const layout = this.#layout = new ArenaLayout(options.parameters);
    const groups = [...new Set(options.parameters.map((p) => p.group))];
    this.#trained = options.trained ?? groups;
    this.#weights = this.#allocate("parameters", layout.size);
    const trainedSize = this.#trained.length ? layout.size : 0;
    this.#gradients = this.#allocate("gradients", trainedSize);
    this.#m = this.#allocate("first moments", trainedSize);
    this.#v = this.#allocate("second moments", trainedSize);
    this.#write(this.#weights, layout.pack(options.initial));

    const inputs = inputLayout({ batch: 1, seqLen: options.seqLen, ranges: 0 });
    const { result } = traceModel(options.loss, inputs, this.#memory(true));
    this.#metricNames.push(...metricNames(result.metrics));
    this.#lossColumns = this.#metricNames.length;
    for (const group of this.#trained) this.#metricNames.push(`grad/norm/${group}`);
    const width = this.#metricNames.length;
    this.#metricsRow = this.#allocate("metrics", width);
    this.#ring = this.#allocate("metrics of all steps", RING_ROWS * width);
    this.#ringReader = new ReadBack(gpu, RING_ROWS * width * 4);
  }

  /**
   * Makes the engine, looks for the fastest kernels of a training step, and reports what the device
   * says of its memory.
   */
  static async open(gpu: Gpu, options: EngineOptions): Promise<WebGpuEngine> {
    const engine = new WebGpuEngine(gpu, options);
    if (engine.#trained.length) {
      const { source, inputs } = engine.#recorded("step");
      // Before the plan takes its memory, so that the trials may have it.
      await engine.#tuning?.tune(source.dispatches);
      engine.#parts.set("step", { plan: engine.#plan(source), inputs });
    }
    await gpu.settle();
    return engine;
  }

  /** Bytes of all buffers so far. */
  get bytes(): number {
    let bytes = this.#pool.bytes;
    for (const buffer of this.#fixed.values()) bytes += buffer.size;
    return bytes;
  }

  step(batches: readonly Batch[], hyper: StepHyper): void {
    if (this.#written - this.#read >= RING_ROWS) {
      throw new Error(`Cannot keep more than ${RING_ROWS} steps of metrics: read them in between`);
    }
    const count = batches.reduce((sum, b) => sum + b.count, 0);
    const step = { slot: this.#written % RING_ROWS, inverseCount: inverseCount(count) };
    if (batches.length === 1) {
      this.#run(this.#part("step"), { ...step, batch: batches[0], hyper });
    } else {
      batches.forEach((batch, i) => {
        this.#run(this.#part(i === 0 ? "first" : "next"), { ...step, batch });
      });
      this.#run(this.#part("update"), { ...step, hyper });
    }
    this.#written++;
  }

  async metrics(): Promise<Metrics[]> {
    const width = this.#metricNames.length;
    const rows: Metrics[] = [];
    const ring = this.#fixed.get(this.#ring)!;
    while (this.#read < this.#written) {
      const first = this.#read % RING_ROWS;
      const count = Math.min(this.#written - this.#read, RING_ROWS - first);
      const bytes = count * width * 4;
      const data = new Float32Array(await this.#ringReader.read(ring, first * width * 4, bytes));
      for (let i = 0; i < count; i++) {
        rows.push(named(this.#metricNames, data.subarray(i * width, (i + 1) * width)));
      }
      this.#read += count;
    }
    return rows;
  }

  async evaluate(batch: Batch, variant?: Variant): Promise<Metrics> {
    const { metrics, names } = this.#evaluated(batch, variant);
    return named(names, await this.#readAll(metrics));
  }

  async maps(
    batch: Batch,
    variant: Variant,
  ): Promise<Map<string, Float32Array | Int32Array>> {
    const { plan, maps } = this.#evaluated(batch, variant);
    const out = new Map<string, Float32Array | Int32Array>();
    for (const [name, { storage, rows, cols, dtype }] of maps) {
      const values = await this.#readBuffer(plan.buffer(storage), 0, rows * cols);
      out.set(name, dtype === "i32" ? new Int32Array(values.buffer) : values);
    }
    return out;
  }

  async tokenLosses(batch: Batch, variant?: Variant): Promise<Float32Array> {
    const { plan, nll } = this.#evaluated(batch, variant);
    if (!nll) throw new TypeError("The model does not tell the loss of each token");
    return await this.#readBuffer(plan.buffer(nll.storage), 0, nll.rows);
  }

  async logits(tokens: Int32Array, row?: number): Promise<Float32Array> {
    const targets = new Int32Array(tokens.length).fill(-1);
    const { plan, logits } = this.#evaluated({ tokens, targets, count: 0 });
    const { storage, rows, cols } = logits;
    if (row === undefined) return await this.#readBuffer(plan.buffer(storage), 0, rows * cols);
    return await this.#readBuffer(plan.buffer(storage), row * cols, cols);
  }

  async gradients(batch: Batch): Promise<Map<string, Float32Array>> {
    this.#run(this.#part("first"), { batch, slot: 0, inverseCount: inverseCount(batch.count) });
    return this.#layout.unpack(await this.#readAll(this.#gradients));
  }

  async exportState(): Promise<EngineState> {
    const read = async (s: Storage) => this.#layout.unpack(await this.#readAll(s));
    return {
      parameters: await read(this.#weights),
      m: await read(this.#m),
      v: await read(this.#v),
    };
  }

  importState(state: EngineState): void {
    this.#write(this.#weights, this.#layout.pack(state.parameters));
    this.#write(this.#m, this.#layout.pack(state.m));
    this.#write(this.#v, this.#layout.pack(state.v));
  }

  /** Like {@linkcode step} with one batch, with a timestamp around every kernel. */
  profile(batch: Batch, hyper: StepHyper): Promise<ProfileRow[]> {
    const { plan, inputs } = this.#part("step");
    const slot = this.#written++ % RING_ROWS;
    const step = { batch, slot, inverseCount: inverseCount(batch.count) };
    const values = { ...step, hyper: this.#hyperRows(hyper) };
    this.#write(inputs.storage, inputs.pack(values));
    return profilePlan(this.#gpu, plan);
  }

  [Symbol.dispose](): void {
    for (const { plan } of this.#parts.values()) plan.destroy();
    for (const { plan } of this.#evaluations.values()) plan.destroy();
    for (const buffer of this.#fixed.values()) buffer.destroy();
    this.#ringReader.destroy();
    this.#pool.destroy();
  }

  #allocate(label: string, elements: number): Storage {
    const storage = { label, size: elements };
    this.#fixed.set(storage, createStorageBuffer(this.#gpu, label, elements));
    return storage;
  }

  #write(storage: Storage, data: Float32Array<ArrayBuffer>): void {
    this.#gpu.device.queue.writeBuffer(this.#fixed.get(storage)!, 0, data);
  }

  #readAll(storage: Storage): Promise<Float32Array> {
    return this.#readBuffer(this.#fixed.get(storage)!, 0, storage.size);
  }

  async #readBuffer(buffer: GPUBuffer, start: number, elements: number): Promise<Float32Array> {
    const reader = new ReadBack(this.#gpu, elements * 4);
    const data = new Float32Array(await reader.read(buffer, start * 4, elements * 4));
    reader.destroy();
    return data;
  }

  /** The memory of the model; with `trained: false` for plans without a backward pass. */
  #memory(trained: boolean): ModelMemory {
    return {
      layout: this.#layout,
      weights: this.#weights,
      gradients: this.#gradients,
      trained: trained ? this.#trained : [],
    };
  }

  #inputs(batch: number): InputLayout {
    const { seqLen } = this.#options;
    const inputs = inputLayout({ batch, seqLen, ranges: this.#trainedRanges().length });
    const buffer = createStorageBuffer(this.#gpu, "inputs", inputs.storage.size);
    this.#fixed.set(inputs.storage, buffer);
    return inputs;
  }

  #part(part: Part): Compiled {
    return cached(this.#parts, part, () => {
      const { source, inputs } = this.#recorded(part);
      return { plan: this.#plan(source), inputs };
    });
  }

  #recorded(part: Part): { source: PlanSource; inputs: InputLayout } {
    const inputs = this.#inputs(this.#options.batchSize);
    const source = part === "update" ? this.#recordedUpdate(inputs) : this.#lowered(part, inputs);
    return { source, inputs };
  }

  /** A plan with the fastest kernels that are known. */
  #plan({ dispatches, temporaries, kept }: PlanSource): Plan {
    const fastest = this.#tuning?.apply(dispatches) ?? dispatches;
    const source = { dispatches: fastest, temporaries, kept };
    return new Plan(this.#gpu, source, this.#fixed, this.#pool);
  }

  #recordedUpdate(inputs: InputLayout): PlanRecorder {
    const recorder = new PlanRecorder(this.#gpu.capabilities);
    this.#recordUpdate(recorder, inputs);
    const norms = this.#metricNames.length - this.#lossColumns;
    this.#recordMetrics(recorder, inputs, this.#lossColumns, norms, false);
    return recorder;
  }

  #lowered(part: Exclude<Part, "update">, inputs: InputLayout): PlanSource {
    const { graph, result } = traceModel(this.#options.loss, inputs, this.#memory(true));
    const row = this.#metricsMatrix(this.#metricsRow, 1);
    const program = lower(graph, {
      capabilities: this.#gpu.capabilities,
      losses: result.losses.map(({ tensor, weight }) => ({
        tensor: tensor as GraphTensor,
        weight,
      })),
      places: metricPlaces(result.metrics, row),
      accumulate: part === "next",
    });
    if (part === "step") this.#recordUpdate(program.recorder, inputs);
    // The update of a whole step has put the norms beside the losses: one copy takes both.
    const cols = part === "step" ? row.cols : this.#lossColumns;
    this.#recordMetrics(program.recorder, inputs, 0, cols, part === "next");
    return program;
  }

  /** Runs a forward pass. */
  #evaluated(batch: Batch, variant?: Variant): Evaluation {
    const size = batch.tokens.length / this.#options.seqLen;
    const evaluation = cached(
      this.#evaluations,
      `${size} ${variant?.name ?? ""}`,
      () => this.#evaluation(size, variant?.loss ?? this.#options.loss),
    );
    this.#run(evaluation, { batch, slot: 0, inverseCount: inverseCount(batch.count) });
    return evaluation;
  }

  #evaluation(size: number, loss: LossFunction): Evaluation {
    const inputs = this.#inputs(size);
    const { graph, result } = traceModel(loss, inputs, this.#memory(false));
    const names = metricNames(result.metrics);
    const metrics = this.#allocate("metrics of an evaluation", names.length);
    const logits = result.logits as GraphTensor;
    const nll = result.nll as GraphTensor | undefined;
    const maps = Object.entries(result.maps ?? {}) as [string, GraphTensor][];
    const program = lower(graph, {
      capabilities: this.#gpu.capabilities,
      places: metricPlaces(result.metrics, matrixAt(metrics, 0, { rows: 1, cols: names.length })),
      keep: [logits, ...nll ? [nll] : [], ...maps.map(([, tensor]) => tensor)],
    });
    return {
      plan: this.#plan(program),
      inputs,
      names,
      metrics,
      logits: program.locate(logits),
      nll: nll ? program.locate(nll) : null,
      maps: new Map(maps.map(([name, tensor]) => [name, program.locate(tensor)])),
    };
  }

  #metricsMatrix(storage: Storage, rows: number): Matrix {
    return matrixAt(storage, 0, { rows, cols: this.#metricNames.length });
  }

  #recordMetrics(
    recorder: PlanRecorder,
    inputs: InputLayout,
    start: number,
    cols: number,
    add: boolean,
  ): void {
    const row = columnsOf(this.#metricsMatrix(this.#metricsRow, 1), start, cols);
    const ring = columnsOf(this.#metricsMatrix(this.#ring, RING_ROWS), start, cols);
    recorder.dispatch(recordMetrics({ row, ring, slot: inputs.slot, add }), row, ring, inputs.slot);
  }

  #trainedRanges() {
    return this.#layout.ranges.filter((r) => this.#trained.includes(r.group));
  }

  #recordUpdate(recorder: PlanRecorder, inputs: InputLayout): void {
    const row = this.#metricsMatrix(this.#metricsRow, 1);
    const norms = new Map(
      this.#trained.map((group, i) => [group, columnsOf(row, this.#lossColumns + i, 1)]),
    );
    recordUpdate(recorder, {
      layout: this.#layout,
      ranges: this.#trainedRanges(),
      weights: this.#weights,
      gradients: this.#gradients,
      m: this.#m,
      v: this.#v,
      norms,
      hyper: inputs.hyper,
    });
  }

  #hyperRows(hyper: StepHyper): Float32Array[] {
    return this.#trainedRanges().map(({ group, decay }) => {
      const own = hyper.groups[group];
      if (!own) return FROZEN;
      const { lr, weightDecay, clip, update } = own;
      return Float32Array.of(
        lr,
        decay ? weightDecay : 0,
        clip,
        hyper.beta1,
        hyper.beta2,
        hyper.eps,
        1 / (1 - hyper.beta1 ** update),
        1 / (1 - hyper.beta2 ** update),
      );
    });
  }

  #run(
    { plan, inputs }: Compiled,
    step: { batch?: Batch; hyper?: StepHyper; slot: number; inverseCount: number },
  ): void {
    const hyper = step.hyper ? this.#hyperRows(step.hyper) : [];
    this.#write(inputs.storage, inputs.pack({ ...step, hyper }));
    plan.submit();
  }
}

function named(names: readonly string[], row: Float32Array): Metrics {
  return Object.fromEntries(names.map((name, i) => [name, row[i]]));
}

function inverseCount(count: number): number {
  return 1 / Math.max(count, 1);
}

function cached<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  const known = map.get(key);
  if (known !== undefined) return known;
  const made = make();
  map.set(key, made);
  return made;
}
