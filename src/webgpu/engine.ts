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
  LossResult,
  Metrics,
  StepHyper,
} from "../engine.ts";
import { recordMetrics } from "../kernels/record_metrics.ts";
import type { Matrix, Storage } from "../ops/op.ts";
import { ArenaLayout } from "./arena.ts";
import type { Gpu } from "./device.ts";
import { Graph, GraphTensor } from "./graph.ts";
import { type InputLayout, inputLayout } from "./inputs.ts";
import { lower, PlanRecorder } from "./lower.ts";
import { columnsOf, matrixAt } from "./matrix.ts";
import { recordUpdate } from "./optimizer.ts";
import { createStorageBuffer, Plan, SlotPool } from "./plan.ts";
import { profilePlan, type ProfileRow } from "./profile.ts";
import { ReadBack } from "./read_back.ts";

/** Steps whose metrics the device keeps until they are read. */
const RING_ROWS = 1024;

/** A plan with the inputs it reads. */
interface Compiled {
  readonly plan: Plan;
  readonly inputs: InputLayout;
  readonly logits: Matrix | null;
}

/** What a plan computes. */
type Purpose =
  /** A whole step: forward, backward, update. */
  | "step"
  /** The first micro-batch of several, and the others, which add to the gradients. */
  | "first"
  | "next"
  /** The update after the last micro-batch. */
  | "update"
  /** Forward only: metrics, or logits. */
  | "evaluate"
  | "logits";

/** The engine behind `device=webgpu`. */
export class WebGpuEngine implements Engine {
  readonly description: string;
  readonly #gpu: Gpu;
  readonly #options: EngineOptions;
  readonly #layout: ArenaLayout;
  readonly #trained: readonly string[];
  readonly #fixed = new Map<Storage, GPUBuffer>();
  readonly #pool: SlotPool;
  readonly #plans = new Map<string, Compiled>();
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

    const { result } = this.#trace(inputLayout({ batch: 1, seqLen: options.seqLen, ranges: 0 }));
    for (const [name, { cols }] of Object.entries(result.metrics)) {
      for (let i = 0; i < cols; i++) this.#metricNames.push(cols === 1 ? name : `${name}/${i}`);
    }
    this.#lossColumns = this.#metricNames.length;
    for (const group of this.#trained) this.#metricNames.push(`grad/norm/${group}`);
    const width = this.#metricNames.length;
    this.#metricsRow = this.#allocate("metrics", width);
    this.#ring = this.#allocate("metrics of all steps", RING_ROWS * width);
    this.#ringReader = new ReadBack(gpu, RING_ROWS * width * 4);
  }

  /** Makes the engine, and reports what the device says of its memory. */
  static async open(gpu: Gpu, options: EngineOptions): Promise<WebGpuEngine> {
    const engine = new WebGpuEngine(gpu, options);
    if (engine.#trained.length) engine.#compiled("step", options.batchSize);
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
    const size = this.#options.batchSize;
    const count = batches.reduce((sum, b) => sum + b.count, 0);
    const step = { slot: this.#written % RING_ROWS, inverseCount: 1 / Math.max(count, 1) };
    if (batches.length === 1) {
      this.#run(this.#compiled("step", size), { ...step, batch: batches[0], hyper });
    } else {
      batches.forEach((batch, i) => {
        this.#run(this.#compiled(i === 0 ? "first" : "next", size), { ...step, batch });
      });
      this.#run(this.#compiled("update", size), { ...step, hyper });
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
        rows.push(this.#named(data.subarray(i * width, (i + 1) * width), width));
      }
      this.#read += count;
    }
    return rows;
  }

  async evaluate(batch: Batch): Promise<Metrics> {
    const compiled = this.#compiled("evaluate", this.#options.batchSize);
    this.#run(compiled, { batch, slot: 0, inverseCount: 1 / Math.max(batch.count, 1) });
    return this.#named(await this.#readAll(this.#metricsRow), this.#lossColumns);
  }

  async logits(tokens: Int32Array, row?: number): Promise<Float32Array> {
    const compiled = this.#compiled("logits", tokens.length / this.#options.seqLen);
    const targets = new Int32Array(tokens.length).fill(-1);
    this.#run(compiled, { batch: { tokens, targets, count: 0 }, slot: 0, inverseCount: 1 });
    const { storage, rows, cols } = compiled.logits!;
    const buffer = compiled.plan.buffer(storage);
    if (row === undefined) return await this.#readBuffer(buffer, 0, rows * cols);
    return await this.#readBuffer(buffer, row * cols, cols);
  }

  async gradients(batch: Batch): Promise<Map<string, Float32Array>> {
    const compiled = this.#compiled("first", this.#options.batchSize);
    this.#run(compiled, { batch, slot: 0, inverseCount: 1 / Math.max(batch.count, 1) });
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
    const { plan, inputs } = this.#compiled("step", this.#options.batchSize);
    const slot = this.#written++ % RING_ROWS;
    const inverseCount = 1 / Math.max(batch.count, 1);
    const values = { batch, hyper: this.#hyperRows(hyper), slot, inverseCount };
    this.#write(inputs.storage, inputs.pack(values));
    return profilePlan(this.#gpu, plan);
  }

  [Symbol.dispose](): void {
    for (const { plan } of this.#plans.values()) plan.destroy();
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

  #named(row: Float32Array, width: number): Metrics {
    return Object.fromEntries(this.#metricNames.slice(0, width).map((name, i) => [name, row[i]]));
  }

  #trace(inputs: InputLayout): { graph: Graph; result: LossResult } {
    const graph = new Graph();
    const specs = new Map(this.#options.parameters.map((p) => [p.name, p]));
    const leaves = new Map<string, GraphTensor>();
    const parameter = (name: string) => {
      const known = leaves.get(name);
      if (known) return known;
      const spec = specs.get(name);
      if (!spec) throw new TypeError(`The model has no parameter ${name}`);
      const leaf = graph.leaf(this.#layout.matrix(this.#weights, spec), {
        trained: this.#trained.includes(spec.group),
        gradient: this.#layout.matrix(this.#gradients, spec),
      });
      leaves.set(name, leaf);
      return leaf;
    };
    const { batch, seqLen } = inputs;
    const result = this.#options.loss(parameter, {
      batch,
      seqLen,
      tokens: graph.leaf(inputs.tokens),
      positions: graph.leaf(inputs.positions),
      targets: graph.leaf(inputs.targets),
      inverseCount: graph.leaf(inputs.inverseCount),
    });
    return { graph, result };
  }

  #compiled(purpose: Purpose, batch: number): Compiled {
    const key = `${purpose} ${batch}`;
    let compiled = this.#plans.get(key);
    if (!compiled) this.#plans.set(key, compiled = this.#compile(purpose, batch));
    return compiled;
  }

  #compile(purpose: Purpose, batch: number): Compiled {
    const { seqLen } = this.#options;
    const inputs = inputLayout({ batch, seqLen, ranges: this.#trainedRanges().length });
    const { capabilities } = this.#gpu;
    const own = new Map(this.#fixed);
    const buffer = createStorageBuffer(this.#gpu, "inputs", inputs.storage.size);
    own.set(inputs.storage, buffer);
    this.#fixed.set(inputs.storage, buffer);
    if (purpose === "update") {
      const recorder = new PlanRecorder(capabilities);
      this.#recordUpdate(recorder, inputs);
      const norms = this.#metricNames.length - this.#lossColumns;
      this.#recordMetrics(recorder, inputs, this.#lossColumns, norms, false);
      return { plan: new Plan(this.#gpu, recorder, own, this.#pool), inputs, logits: null };
    }
    const { graph, result } = this.#trace(inputs);
    const isTraining = purpose === "step" || purpose === "first" || purpose === "next";
    const places = new Map<GraphTensor, Matrix>();
    const row = this.#metricsMatrix(this.#metricsRow, 1);
    let column = 0;
    for (const tensor of Object.values(result.metrics)) {
      places.set(tensor as GraphTensor, columnsOf(row, column, tensor.cols));
      column += tensor.cols;
    }
    const program = lower(graph, {
      capabilities,
      losses: isTraining
        ? result.losses.map(({ tensor, weight }) => ({ tensor: tensor as GraphTensor, weight }))
        : [],
      places,
      keep: purpose === "logits" ? [result.logits as GraphTensor] : [],
      accumulate: purpose === "next",
    });
    if (purpose === "step") this.#recordUpdate(program.recorder, inputs);
    if (isTraining) {
      // The update of a whole step has put the norms beside the losses: one copy takes both.
      const cols = purpose === "step" ? row.cols : this.#lossColumns;
      this.#recordMetrics(program.recorder, inputs, 0, cols, purpose === "next");
    }
    const plan = new Plan(this.#gpu, program, own, this.#pool);
    const logits = purpose === "logits" ? program.locate(result.logits as GraphTensor) : null;
    return { plan, inputs, logits };
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
      const { lr, weightDecay, clip } = hyper.groups[group] ?? { lr: 0, weightDecay: 0, clip: 0 };
      return Float32Array.of(
        lr,
        decay ? weightDecay : 0,
        clip,
        hyper.beta1,
        hyper.beta2,
        hyper.eps,
        1 / (1 - hyper.beta1 ** hyper.update),
        1 / (1 - hyper.beta2 ** hyper.update),
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
