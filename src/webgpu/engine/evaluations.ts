/**
 * Evaluations: plans that only compute, of the model or of variants with the same parameters.
 *
 * @module
 */
import type { Batch } from "../../data/dataset.ts";
import type { Engine, LossFunction, Metrics, Variant } from "../../engine.ts";
import { matrixAt, windowSize } from "../../ops/matrix.ts";
import type { Matrix, Storage } from "../../ops/op.ts";
import type { Compiled, Compiler } from "./compiler.ts";
import type { EngineMemory } from "./engine_memory.ts";
import type { GraphTensor } from "../../graph/graph.ts";
import { inverseCount } from "./inputs.ts";
import { lower } from "../../graph/lower.ts";
import { metricNames, metricPlaces, type ModelMemory, namedMetrics, traceModel } from "./trace.ts";

/** A plan with the results that it leaves. */
interface Evaluation extends Compiled {
  readonly names: readonly string[];
  readonly metrics: Storage;
  readonly logits: Matrix;
  readonly nll: Matrix | null;
  readonly maps: ReadonlyMap<string, Matrix>;
}

/** Which model is evaluated. */
export interface EvaluationOptions {
  /** Its parameters, none of them trained. */
  readonly model: ModelMemory;
  readonly loss: LossFunction;
  readonly seqLen: number;
}

/**
 * Runs forward passes, each by a plan for its batch size and variant, and reads what they made: the
 * methods are those of {@linkcode Engine}.
 */
export class Evaluations implements Pick<Engine, "evaluate" | "maps" | "tokenLosses" | "logits"> {
  readonly #memory: EngineMemory;
  readonly #compiler: Compiler;
  readonly #options: EvaluationOptions;
  readonly #evaluations = new Map<string, Evaluation>();

  constructor(memory: EngineMemory, compiler: Compiler, options: EvaluationOptions) {
    this.#memory = memory;
    this.#compiler = compiler;
    this.#options = options;
  }

  async evaluate(batch: Batch, variant?: Variant): Promise<Metrics> {
    const { metrics, names } = this.#run(batch, variant);
    return namedMetrics(names, await this.#memory.read(metrics));
  }

  async maps(batch: Batch, variant: Variant): Promise<Map<string, Float32Array | Int32Array>> {
    const { plan, maps } = this.#run(batch, variant);
    const out = new Map<string, Float32Array | Int32Array>();
    for (const [name, matrix] of maps) {
      const { storage, base, offset, dtype } = matrix;
      const size = windowSize(matrix) - offset;
      const window = await this.#memory.readBuffer(plan.buffer(storage), base + offset, size);
      const values = withoutGaps(window, matrix);
      out.set(name, dtype === "i32" ? new Int32Array(values.buffer) : values);
    }
    return out;
  }

  async tokenLosses(batch: Batch, variant?: Variant): Promise<Float32Array> {
    const { plan, nll } = this.#run(batch, variant);
    if (!nll) throw new TypeError("The model does not tell the loss of each token");
    return await this.#memory.readBuffer(plan.buffer(nll.storage), 0, nll.rows);
  }

  async logits(tokens: Int32Array, row?: number): Promise<Float32Array> {
    const targets = new Int32Array(tokens.length).fill(-1);
    const { plan, logits } = this.#run({ tokens, targets, count: 0 });
    const { storage, rows, cols } = logits;
    const buffer = plan.buffer(storage);
    if (row === undefined) return await this.#memory.readBuffer(buffer, 0, rows * cols);
    return await this.#memory.readBuffer(buffer, row * cols, cols);
  }

  destroy(): void {
    for (const { plan } of this.#evaluations.values()) plan.destroy();
  }

  /** Runs a forward pass. */
  #run(batch: Batch, variant?: Variant): Evaluation {
    const size = batch.tokens.length / this.#options.seqLen;
    const key = `${size} ${variant?.name ?? ""}`;
    let evaluation = this.#evaluations.get(key);
    if (!evaluation) {
      evaluation = this.#evaluation(size, variant?.loss ?? this.#options.loss);
      this.#evaluations.set(key, evaluation);
    }
    const values = { batch, slot: 0, inverseCount: inverseCount(batch.count), hyper: [] };
    this.#compiler.run(evaluation, values);
    return evaluation;
  }

  #evaluation(size: number, loss: LossFunction): Evaluation {
    const inputs = this.#compiler.inputs(size);
    const { graph, result } = traceModel(loss, inputs, this.#options.model);
    const names = metricNames(result.metrics);
    const metrics = this.#memory.allocate("metrics of an evaluation", names.length);
    const logits = result.logits as GraphTensor;
    const nll = result.nll as GraphTensor | undefined;
    const maps = Object.entries(result.maps ?? {}) as [string, GraphTensor][];
    const program = lower(graph, {
      capabilities: this.#memory.gpu.capabilities,
      places: metricPlaces(result.metrics, matrixAt(metrics, 0, { rows: 1, cols: names.length })),
      keep: [logits, ...nll ? [nll] : [], ...maps.map(([, tensor]) => tensor)],
    });
    return {
      plan: this.#compiler.compile(program),
      inputs,
      names,
      metrics,
      logits: program.locate(logits),
      nll: nll ? program.locate(nll) : null,
      maps: new Map(maps.map(([name, tensor]) => [name, program.locate(tensor)])),
    };
  }
}

/** The rows of a matrix one after the other, also where it is some columns of a wider one. */
function withoutGaps(window: Float32Array, { rows, cols, stride }: Matrix): Float32Array {
  if (stride === cols) return window;
  const values = new Float32Array(rows * cols);
  for (let row = 0; row < rows; row++) {
    values.set(window.subarray(row * stride, row * stride + cols), row * cols);
  }
  return values;
}
