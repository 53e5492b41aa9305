/**
 * The op interface. The model is written once, as functions on {@linkcode Tensor}; what a tensor
 * is depends on the backend it came from: a node of a traced graph (`webgpu`) or an eager
 * tfjs-core tensor (`tfjs`).
 *
 * An op is one file with one {@linkcode Op} object: the shapes it accepts, a naive twin in
 * tfjs-core (the truth, and what `device=cpu` runs), and the kernels of its forward and backward
 * pass. To add an op, write that file and its kernels; nothing else has to know of it.
 *
 * Every tensor is a matrix `[rows, cols]`, row-major. Activations have one row per token,
 * `rows = batch * seqLen`.
 *
 * @module
 */
import type * as tfc from "@tensorflow/tfjs-core";
import type { Capabilities } from "../kernels/wgsl/device.ts";
import type { Kernel } from "../kernels/wgsl/kernel.ts";
import type { Layout } from "../kernels/wgsl/operand.ts";
import type { Sink } from "../kernels/wgsl/sink.ts";

/** Element type: f32, or i32 for token ids and positions. */
export type Dtype = "f32" | "i32";

/** Shape and element type of a matrix. */
export interface TensorType {
  /** One per token for activations. */
  readonly rows: number;
  /** Width of a row. */
  readonly cols: number;
  /** Element type. */
  readonly dtype: Dtype;
}

/** A matrix that ops can be applied to. */
export interface Tensor extends TensorType {
  /** What made it; ops on it go there. */
  readonly backend: Backend;
}

/** Applies ops: traces them (webgpu) or runs them (tfjs). */
export interface Backend {
  /** The outputs of an op, whose inputs must all be of this backend. */
  apply<A>(op: Op<A>, inputs: readonly Tensor[], attributes: A): Tensor[];
}

/** The tfjs-core namespace, handed to twins so that the core path imports no npm package. */
export type Tf = typeof tfc;
/** A tfjs-core tensor of rank 2. */
export type TfMatrix = tfc.Tensor2D;

/** A matrix in device memory: a {@linkcode Layout} within a window of a {@linkcode Storage}. */
export interface Matrix extends Layout {
  /** The memory that it is part of. */
  readonly storage: Storage;
  /** First element of the bound window; a multiple of 64 (256 bytes, WebGPU's alignment). */
  readonly base: number;
  /** Element type. */
  readonly dtype: Dtype;
}

/** A run of device memory, given its place by the memory planner. */
export interface Storage {
  /** For people, in errors. */
  readonly label: string;
  /** Elements of 4 bytes. */
  readonly size: number;
}

/** Takes down the kernels of a plan. */
export interface Recorder {
  /** What the device offers to kernels. */
  readonly capabilities: Capabilities;
  /** Appends one dispatch of a kernel, whose operands must be matrices with memory. */
  dispatch(kernel: Kernel): void;
  /** Scratch memory that lives from its first to its last use. Its content is undefined. */
  temporary(rows: number, cols: number, dtype?: Dtype): Matrix;
  /**
   * Calls `body` once with all rows, or, where a matrix is larger than one binding may be, for
   * consecutive parts of the rows. All matrices must have the same number of rows.
   */
  byRows(matrices: readonly Matrix[], body: (...parts: Matrix[]) => void): void;
  /**
   * What is derived of `source`, such as lists of what its bits say: recorded by `make` when it is
   * first asked for, the same matrices from then on. Nobody may write to `source` or to them later.
   */
  derived<T>(source: Matrix, what: Derivation<T>, make: () => T): T;
}

/** One thing that is derived of matrices, a constant of the module that makes it. */
export class Derivation<T> {
  /** Matrices; never set, it is there for its type. */
  declare readonly of: T;
  /** For those who look for it in a debugger. */
  readonly name: string;

  /** Each is a derivation of its own, whatever its name. */
  constructor(name: string) {
    this.name = name;
  }
}

/**
 * Where an op writes the gradient of an input, and an earlier contribution to be added. That may be
 * `into` itself, then the kernel adds in place, or other memory.
 */
export type GradientSink = Sink<Matrix>;

/** The gradients that a backward pass starts from, and those that it is to make. */
export interface OpGradients {
  /** The complete gradient of an output. Do not write to it. */
  gradient(output: number): Matrix;
  /** Whether anything upstream of this input is trained. */
  wants(input: number): boolean;
  /** Asks where to write the gradient of an input. Call once per input, and then write all of it. */
  sink(input: number): GradientSink;
  /** Hands on a matrix, unchanged, as the gradient of an input (e.g. a residual branch). */
  pass(input: number, gradient: Matrix): void;
  /** For a loss, an op's scalar output at the root: the factor d total / d loss. */
  lossWeight(output: number): number;
}

/** One differentiable operation. `A` are its attributes: plain data. */
export interface Op<A> {
  /** In errors and profiles. */
  readonly name: string;
  /**
   * Types of the outputs.
   *
   * @throws {RangeError} if the op cannot take these inputs; the message names op and shapes
   */
  types(inputs: readonly TensorType[], attributes: A): TensorType[];
  /** The naive reference; its tfjs-core autodiff is the reference gradient. */
  twin(tf: Tf, inputs: readonly TfMatrix[], attributes: A): TfMatrix[];
  /** Records the kernels that compute `outputs`. Absent for views. */
  forward?(
    r: Recorder,
    inputs: readonly Matrix[],
    outputs: readonly Matrix[],
    attributes: A,
  ): void;
  /** Records the kernels of the gradients. Absent: no gradient passes. */
  backward?(
    r: Recorder,
    g: OpGradients,
    inputs: readonly Matrix[],
    outputs: readonly Matrix[],
    attributes: A,
  ): void;
  /** If set, output 0 is these columns of input 0: no kernel, no copy. */
  view?(attributes: A): { start: number; cols: number };
  /** The gradient ends here. */
  readonly stopsGradient?: boolean;
  /** Output 0 may take over the memory of input 0 if nobody else needs it. */
  readonly inPlace?: boolean;
  /** The backward pass reads `outputs`, so their memory must not be taken over. */
  readonly savesOutputs?: boolean;
}

/** Shorthand for an f32 matrix type. */
export function matrixType(rows: number, cols: number, dtype: Dtype = "f32"): TensorType {
  return { rows, cols, dtype };
}

/** `2x3, 3x4`: shapes for error messages. */
function shapesOf(types: readonly TensorType[]): string {
  return types.map((t) => `${t.rows}x${t.cols}`).join(", ");
}

/** Throws the RangeError that an op's `types` owes its caller. */
export function requireShapes(
  ok: boolean,
  op: string,
  types: readonly TensorType[],
  expected: string,
): asserts ok {
  if (!ok) throw new RangeError(`Cannot apply ${op} to ${shapesOf(types)}: expected ${expected}`);
}
