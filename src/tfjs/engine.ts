/**
 * The CPU training engine: forward and backward on tfjs-core, the optimizer on plain arrays.
 *
 * @module
 */
import type { Tensor as TfTensor } from "@tensorflow/tfjs-core";
import type { Batch } from "../data/dataset.ts";
import type {
  Engine,
  EngineOptions,
  EngineState,
  LossFunction,
  LossResult,
  Metrics,
  ParameterSpec,
  StepHyper,
  Variant,
} from "../engine.ts";
import { MemoryError } from "../errors.ts";
import type { Tensor } from "../ops/op.ts";
import { adamw, type AdamwState } from "./adamw.ts";
import type { Floats, TfjsBackend, TfjsTensor } from "./backend.ts";

/** Keeps a clipping factor finite where the norm is 0, as PyTorch's `clip_grad_norm_` does. */
const CLIP_EPSILON = 1e-6;

/** A parameter: its arrays, and its values as a tensor for the next pass. */
interface Slot {
  readonly spec: ParameterSpec;
  readonly state: AdamwState;
  tensor: TfjsTensor;
}

/**
 * Trains on a {@linkcode TfjsBackend}. A parameter that the objective does not depend on has a
 * gradient of zeros.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { crossEntropy } from "../ops/token/cross_entropy.ts";
 * import { embedding } from "../ops/token/embedding.ts";
 * import { TfjsBackend } from "./backend.ts";
 * import { TfjsEngine } from "./engine.ts";
 *
 * // A bigram model of 2 tokens: one table of logits.
 * const table = { name: "table", shape: [2, 2], rows: 2, cols: 2, group: "backbone", decay: true };
 * using engine = new TfjsEngine(await TfjsBackend.open("wasm"), {
 *   parameters: [table],
 *   initial: new Map([["table", new Float32Array(4)]]),
 *   loss(parameters, { tokens, targets, inverseCount }) {
 *     const logits = embedding(tokens, parameters("table"));
 *     const { loss } = crossEntropy(logits, targets, inverseCount);
 *     return { losses: [{ tensor: loss, weight: 1 }], metrics: { loss }, logits };
 *   },
 *   batchSize: 1,
 *   seqLen: 2,
 * });
 * const batch = { tokens: Int32Array.of(0, 1), targets: Int32Array.of(1, 0), count: 2 };
 * const groups = { backbone: { lr: 0.1, weightDecay: 0, clip: 0, update: 1 } };
 * engine.step([batch], { beta1: 0.9, beta2: 0.95, eps: 1e-8, groups });
 * const [{ loss }] = await engine.metrics();
 * assert(Math.abs(loss - Math.LN2) < 1e-6);
 * assert((await engine.evaluate(batch)).loss < loss);
 * ```
 */
export class TfjsEngine implements Engine {
  readonly description: string;
  readonly #backend: TfjsBackend;
  readonly #options: EngineOptions;
  readonly #slots = new Map<string, Slot>();
  readonly #trained: Map<string, Slot[]>;
  #rows: Metrics[] = [];
  #hasAborted = false;

  /** @throws {RangeError} if a parameter has no initial values, or too few or too many */
  constructor(backend: TfjsBackend, options: EngineOptions) {
    this.description = `cpu: tfjs ${backend.kind}`;
    this.#backend = backend;
    this.#options = options;
    for (const spec of options.parameters) {
      const parameter = backend.floats(valuesOf(options.initial, spec));
      this.#slots.set(spec.name, {
        spec,
        state: { parameter, m: backend.zeros(spec), v: backend.zeros(spec) },
        tensor: backend.tensor(parameter, spec.rows, spec.cols),
      });
    }
    const slots = [...this.#slots.values()]
      .filter(({ spec }) => options.trained?.includes(spec.group) ?? true);
    this.#trained = Map.groupBy(slots, ({ spec }) => spec.group);
  }

  step(batches: readonly Batch[], hyper: StepHyper): void {
    const metrics: Metrics = {};
    const gradients = this.#backward(batches, metrics);
    for (const [group, members] of this.#trained) {
      const norm = globalNorm(members.map((slot) => gradients.get(slot)!));
      metrics[`grad/norm/${group}`] = norm;
      const numbers = hyper.groups[group];
      if (!numbers) continue;
      const { lr, weightDecay, clip, update } = numbers;
      const scale = clip > 0 ? Math.min(1, clip / (norm + CLIP_EPSILON)) : 1;
      for (const slot of members) {
        adamw(slot.state, gradients.get(slot)!, {
          ...hyper,
          lr,
          update,
          weightDecay: slot.spec.decay ? weightDecay : 0,
          scale,
        });
        this.#upload(slot);
      }
    }
    this.#rows.push(metrics);
  }

  metrics(): Promise<Metrics[]> {
    const rows = this.#rows;
    this.#rows = [];
    return Promise.resolve(rows);
  }

  evaluate(batch: Batch, variant?: Variant): Promise<Metrics> {
    const metrics: Metrics = {};
    this.#tidy(() => this.#report(this.#forwardBatch(batch, variant), metrics));
    return Promise.resolve(metrics);
  }

  maps(batch: Batch, variant: Variant): Promise<Map<string, Float32Array | Int32Array>> {
    const out = new Map<string, Float32Array | Int32Array>();
    this.#tidy(() => {
      for (const [name, tensor] of Object.entries(this.#forwardBatch(batch, variant).maps ?? {})) {
        const values = this.#backend.read(tensor);
        out.set(name, tensor.dtype === "i32" ? Int32Array.from(values) : Float32Array.from(values));
      }
    });
    return Promise.resolve(out);
  }

  tokenLosses(batch: Batch, variant?: Variant): Promise<Float32Array> {
    let values = new Float32Array();
    this.#tidy(() => {
      const { nll } = this.#forwardBatch(batch, variant);
      if (!nll) throw new TypeError("The model does not tell the loss of each token");
      values = Float32Array.from(this.#backend.read(nll));
    });
    return Promise.resolve(values);
  }

  logits(tokens: Int32Array, row?: number): Promise<Float32Array> {
    let values = new Float32Array();
    this.#tidy(() => {
      const targets = new Int32Array(tokens.length).fill(-1);
      const logits = (this.#forward(tokens, targets, 0).logits as TfjsTensor).value;
      const wanted = row === undefined ? logits : this.#backend.tf.slice(logits, row, 1);
      values = Float32Array.from(wanted.dataSync());
    });
    return Promise.resolve(values);
  }

  gradients(batch: Batch): Promise<Map<string, Float32Array>> {
    const gradients = [...this.#backward([batch], {})];
    return Promise.resolve(
      new Map(gradients.map(([{ spec }, values]) => [spec.name, Float32Array.from(values)])),
    );
  }

  exportState(): Promise<EngineState> {
    const copy = (key: keyof AdamwState) =>
      new Map([...this.#slots].map(([name, { state }]) => [name, Float32Array.from(state[key])]));
    return Promise.resolve({ parameters: copy("parameter"), m: copy("m"), v: copy("v") });
  }

  importState(state: EngineState): void {
    for (const slot of this.#slots.values()) {
      slot.state.parameter.set(valuesOf(state.parameters, slot.spec));
      this.#upload(slot);
      if (!this.#trained.size) continue;
      slot.state.m.set(valuesOf(state.m, slot.spec));
      slot.state.v.set(valuesOf(state.v, slot.spec));
    }
  }

  [Symbol.dispose](): void {
    // Of a module that has given up nothing can be freed.
    if (this.#hasAborted) return;
    for (const { tensor } of this.#slots.values()) tensor.value.dispose();
  }

  #upload(slot: Slot): void {
    slot.tensor.value.dispose();
    slot.tensor = this.#backend.tensor(slot.state.parameter, slot.spec.rows, slot.spec.cols);
  }

  /** Gradients over micro-batches; adds up their metrics in `metrics`. */
  #backward(batches: readonly Batch[], metrics: Metrics): Map<Slot, Floats> {
    const { tf } = this.#backend;
    const slots = [...this.#trained.values()].flat();
    const leaves: TfTensor[] = slots.map(({ tensor }) => tensor.value);
    const sums = slots.map(({ spec }) => this.#backend.zeros(spec));
    const scored = batches.reduce((sum, { count }) => sum + count, 0);
    const objective = (batch: Batch) => {
      const result = this.#forward(batch.tokens, batch.targets, scored);
      this.#report(result, metrics);
      return result.losses
        .map(({ tensor, weight }) => tf.mul((tensor as TfjsTensor).value, weight))
        .reduce((sum, term) => tf.add(sum, term));
    };
    for (const batch of batches) {
      this.#tidy(() => {
        if (leaves.length === 0) return void objective(batch);
        const { grads } = tf.engine().gradients(() => objective(batch), leaves, undefined, true);
        sums.forEach((sum, i) => {
          // Of a parameter outside the objective there is no gradient, whatever the type says.
          const values: Floats | undefined = grads[i]?.dataSync<"float32">();
          values?.forEach((value, j) => sum[j] += value);
        });
      });
    }
    return new Map(slots.map((slot, i) => [slot, sums[i]]));
  }

  /** Runs `body` on this engine's backend and frees the tensors it leaves. */
  #tidy(body: () => void): void {
    this.#backend.activate();
    try {
      this.#backend.tf.tidy(body);
    } catch (error) {
      if (!isOutOfMemory(error)) throw error;
      this.#hasAborted = true;
      const { seqLen } = this.#options;
      throw new MemoryError(
        `wasm addresses 4 GiB, and sequences of ${seqLen} tokens through this model need more`,
        { cause: error },
      );
    }
  }

  #forwardBatch({ tokens, targets, count }: Batch, variant?: Variant): LossResult {
    return this.#forward(tokens, targets, count, variant?.loss);
  }

  #forward(
    tokens: Int32Array,
    targets: Int32Array,
    scored: number,
    loss: LossFunction = this.#options.loss,
  ): LossResult {
    const { seqLen } = this.#options;
    const count = tokens.length;
    if (count === 0 || count % seqLen !== 0 || targets.length !== count) {
      throw new RangeError(
        `Cannot run ${count} tokens with ${targets.length} targets: ` +
          `expected as many targets as tokens, in sequences of ${seqLen}`,
      );
    }
    const column = (values: Int32Array) => this.#backend.tensor(values, count, 1, "i32");
    return loss((name) => this.#parameter(name), {
      batch: count / seqLen,
      seqLen,
      tokens: column(tokens),
      positions: column(tokens.map((_, i) => i % seqLen)),
      targets: column(targets),
      inverseCount: this.#backend.tensor([1 / Math.max(scored, 1)], 1, 1),
    });
  }

  #parameter(name: string): Tensor {
    const slot = this.#slots.get(name);
    if (!slot) {
      throw new RangeError(`Cannot find parameter ${name}: the engine was made without it`);
    }
    return slot.tensor;
  }

  /** Adds the values of metrics; a row of n columns gives `name/0` … `name/n-1`. */
  #report(result: LossResult, metrics: Metrics): void {
    for (const [name, tensor] of Object.entries(result.metrics)) {
      this.#backend.read(tensor).forEach((value, i, all) => {
        const key = all.length === 1 ? name : `${name}/${i}`;
        metrics[key] = (metrics[key] ?? 0) + value;
      });
    }
  }
}

function valuesOf(map: ReadonlyMap<string, Float32Array>, spec: ParameterSpec): Float32Array {
  const values = map.get(spec.name);
  if (values?.length !== spec.rows * spec.cols) {
    throw new RangeError(
      `Cannot set parameter ${spec.name}: ` +
        `expected ${spec.rows * spec.cols} values, got ${values?.length ?? "none"}`,
    );
  }
  return values;
}

/** Whether the wasm module ended as it found no memory, or an array cannot be that long. */
function isOutOfMemory(error: unknown): boolean {
  const { name, message } = error instanceof Error ? error : { name: "", message: String(error) };
  return name === "RuntimeError" && /abort|out of bounds|unreachable/i.test(message) ||
    /array length|allocation failed|out of memory/i.test(message);
}

function globalNorm(gradients: readonly Floats[]): number {
  let sum = 0;
  for (const gradient of gradients) {
    for (let i = 0; i < gradient.length; i++) sum += gradient[i] * gradient[i];
  }
  return Math.sqrt(sum);
}
