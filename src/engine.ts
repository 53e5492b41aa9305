/**
 * What the trainer asks of a backend: a model bound to a device, with its optimizer.
 *
 * @module
 */
import type { Batch } from "./data/dataset.ts";
import type { Tensor } from "./ops/op.ts";

/** A named, trainable matrix. */
export interface ParameterSpec {
  /** Hugging Face's name. */
  readonly name: string;
  /** Shape in checkpoints; vectors have one dimension. */
  readonly shape: readonly number[];
  /** Rows of the matrix; 1 for vectors. */
  readonly rows: number;
  /** Columns of the matrix. */
  readonly cols: number;
  /** Parameters of a group share learning rate, clipping and freezing. */
  readonly group: string;
  /** Whether weight decay applies. */
  readonly decay: boolean;
}

/** A parameter group's numbers for one step. */
export interface GroupHyper {
  /** Learning rate. */
  readonly lr: number;
  /** Decoupled: a step takes `lr * weightDecay` of each decayed value. */
  readonly weightDecay: number;
  /** Count of the group's updates so far plus one, for Adam's bias correction. */
  readonly update: number;
  /** Largest norm of the group's gradient; 0 = not clipped. */
  readonly clip: number;
}

/** The optimizer's numbers for one step. */
export interface StepHyper {
  /** Decay of the first moment. */
  readonly beta1: number;
  /** Decay of the second moment. */
  readonly beta2: number;
  /** Added to the root of the second moment. */
  readonly eps: number;
  /** A group that is absent is frozen: neither updated nor decayed. */
  readonly groups: Readonly<Record<string, GroupHyper>>;
}

/** What a loss function gets for one micro-batch of N = batch · seqLen tokens. */
export interface StepInputs {
  /** Sequences. */
  readonly batch: number;
  /** Tokens of a sequence. */
  readonly seqLen: number;
  /** `[N, 1]` i32. */
  readonly tokens: Tensor;
  /** `[N, 1]` i32, the position of each token in its sequence. */
  readonly positions: Tensor;
  /** `[N, 1]` i32; -1 where nothing is to be predicted. */
  readonly targets: Tensor;
  /** `[1, 1]`: 1 / scored targets of the whole step, over all its micro-batches. */
  readonly inverseCount: Tensor;
}

/** What a loss function makes. */
export interface LossResult {
  /**
   * Scalars `[1, 1]` that are summed with their weights into the objective, over the micro-batches
   * of a step too.
   */
  readonly losses: readonly { tensor: Tensor; weight: number }[];
  /**
   * Scalars or rows `[1, n]` to report, by name. A step sums those of its micro-batches: right for
   * shares of the whole step, such as a loss times `inverseCount`; a mean over the rows of each
   * micro-batch, such as the indexer's KL, comes out as many times too large.
   */
  readonly metrics: Readonly<Record<string, Tensor>>;
  /** `[N, vocabSize]`. */
  readonly logits: Tensor;
  /** `[N, 1]`: the loss of each token, in nats, where the model tells it. */
  readonly nll?: Tensor;
  /** Further matrices to be looked at, by name. */
  readonly maps?: Readonly<Record<string, Tensor>>;
}

/** A model as a function of its parameters and one micro-batch. */
export type LossFunction = (
  parameters: (name: string) => Tensor,
  inputs: StepInputs,
) => LossResult;

/** What a {@linkcode DecodeFunction} gets: one token of a sequence, and what earlier ones left. */
export interface DecodeInputs {
  /** `[1, 1]` i32. */
  readonly token: Tensor;
  /** `[1, 1]` i32: its position in the sequence. */
  readonly position: Tensor;
  /** The cache of a name, `[seqLen, cols]`: rows of earlier positions are what they left. */
  readonly cache: (name: string, cols: number) => Tensor;
}

/** What a {@linkcode DecodeFunction} makes. */
export interface DecodeResult {
  /** `[1, vocabSize]`, of the token that follows. */
  readonly logits: Tensor;
  /** What becomes of each cache that was asked for. */
  readonly caches: Readonly<Record<string, Tensor>>;
  /**
   * i32 `[1, indexTopk]`: the positions that layers with an indexer of their own select, one for each
   * of their groups of heads.
   */
  readonly selections: readonly Tensor[];
}

/** A model as a function of its parameters, one token, and caches. */
export type DecodeFunction = (
  parameters: (name: string) => Tensor,
  inputs: DecodeInputs,
) => DecodeResult;

/** Goes through one sequence token by token. */
export interface Decoder extends Disposable {
  /**
   * Takes the sequence's next token. Never waits for the device.
   *
   * @throws {RangeError} if the caches are full: a sequence has `seqLen` tokens at most
   */
  push(token: number): void;
  /** Logits `[vocabSize]` of what follows the tokens so far. */
  logits(): Promise<Float32Array>;
}

/** Named numbers of one step; a metric of n columns gives `name/0` … `name/n-1`. */
export type Metrics = Record<string, number>;

/** Everything that training changes. */
export interface EngineState {
  /** Values, row-major, by parameter name. */
  parameters: Map<string, Float32Array>;
  /** AdamW's first moments, by parameter name. */
  m: Map<string, Float32Array>;
  /** AdamW's second moments. */
  v: Map<string, Float32Array>;
}

/** How an engine is made. */
export interface EngineOptions {
  /** All parameters, in the order in which they lie in memory. */
  readonly parameters: readonly ParameterSpec[];
  /** First values, row-major, by parameter name. */
  readonly initial: ReadonlyMap<string, Float32Array>;
  /** The model and its objective. */
  readonly loss: LossFunction;
  /** Sequences of a micro-batch. */
  readonly batchSize: number;
  /** Batches that a step usually has: what is made ready at once; default 1. */
  readonly microBatches?: number;
  /** Tokens of a sequence. */
  readonly seqLen: number;
  /** Groups that are updated; default all. With none the engine only evaluates. */
  readonly trained?: readonly string[];
  /**
   * Whether to look for the fastest kernels on this adapter when the engine is opened, and to use
   * what earlier ones found. Default true. It changes no result.
   */
  readonly autotune?: boolean;
}

/** Another function of the same parameters, e.g. with another selector. */
export interface Variant {
  /** Distinguishes it from others. */
  readonly name: string;
  /** What is computed instead of the engine's own loss. */
  readonly loss: LossFunction;
}

/** A model on a device. */
export interface Engine extends Disposable {
  /** The device, for people: `webgpu: NVIDIA H100`, `cpu: tfjs wasm`. */
  readonly description: string;
  /** Forward and backward over the micro-batches, then one update. Never waits for the device. */
  step(batches: readonly Batch[], hyper: StepHyper): void;
  /**
   * The metrics of all steps since the last call, oldest first, with `grad/norm/<group>` of each
   * trained group (before clipping).
   */
  metrics(): Promise<Metrics[]>;
  /** The metrics of a forward pass, of the model or of a variant with the same parameters. */
  evaluate(batch: Batch, variant?: Variant): Promise<Metrics>;
  /** The maps of a variant that keeps some, by name. */
  maps(batch: Batch, variant: Variant): Promise<Map<string, Float32Array | Int32Array>>;
  /** Each token's loss in nats, `[batch.tokens.length]`; 0 where nothing is to be predicted. */
  tokenLosses(batch: Batch, variant?: Variant): Promise<Float32Array>;
  /**
   * Logits `[tokens.length, vocabSize]` of whole sequences (`tokens.length` is a multiple of
   * `seqLen`), or those of one row only.
   */
  logits(tokens: Int32Array, row?: number): Promise<Float32Array>;
  /**
   * Starts a sequence of a model with the engine's parameters, which must stay as they are until it
   * is disposed of. Absent where there is no memory for caches: see {@linkcode logits}.
   */
  decoder?(model: DecodeFunction): Decoder;
  /** Gradients of the objective on a batch, by parameter; nothing is updated. */
  gradients(batch: Batch): Promise<Map<string, Float32Array>>;
  /** Copies of parameters and moments. */
  exportState(): Promise<EngineState>;
  /** Replaces parameters and moments; an engine that trains nothing looks at no moments. */
  importState(state: EngineState): void;
}
