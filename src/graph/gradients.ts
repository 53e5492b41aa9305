/**
 * Where gradients lie while their contributions come in. Tensors that are views have none of their
 * own: theirs are columns of their root's.
 *
 * @module
 */
import { columnsOf } from "../ops/matrix.ts";
import type { GradientSink, Matrix, Storage } from "../ops/op.ts";
import { type Columns, type GraphTensor, resolveView } from "./graph.ts";
import type { PlanRecorder } from "./plan_recorder.ts";

/** The gradient of a root tensor. */
interface Pending {
  matrix: Matrix;
  /** Disjoint column ranges that have been written. */
  covered: [start: number, end: number][];
}

/** The gradients that a backward pass has begun and nobody has used up yet. */
export class Gradients {
  readonly #recorder: PlanRecorder;
  readonly #pending = new Map<GraphTensor, Pending>();
  /** Gradients that the op at work still reads: nobody may add into them. */
  #held = new Set<Storage>();

  constructor(recorder: PlanRecorder) {
    this.#recorder = recorder;
  }

  /** Whether anything has been written of a tensor's gradient. */
  has(root: GraphTensor): boolean {
    return this.#pending.has(root);
  }

  /** The gradient of a tensor so far. */
  get(root: GraphTensor): Matrix | undefined {
    return this.#pending.get(root)?.matrix;
  }

  /** Takes a matrix for the whole gradient of a tensor; more may be added to it. */
  set(root: GraphTensor, matrix: Matrix): void {
    this.#pending.set(root, { matrix, covered: [[0, root.cols]] });
  }

  /** The gradient of a tensor, zeroed in the columns that nobody wrote. */
  complete(root: GraphTensor): Matrix {
    return this.#complete(root, this.#pending.get(root) ?? this.#open(root));
  }

  /** Keeps the gradients of an op's outputs as they are while the op reads them. */
  hold(outputs: readonly GraphTensor[]): void {
    this.#held = new Set(outputs.flatMap((t) => this.get(t)?.storage ?? []));
  }

  /** Lets go of them: nobody reads them any more. */
  release(outputs: readonly GraphTensor[]): void {
    for (const tensor of outputs) this.#pending.delete(tensor);
    this.#held.clear();
  }

  /** Where a contribution to a tensor's gradient is to be written, and what to add to it. */
  sink(tensor: GraphTensor): GradientSink {
    const range = resolveView(tensor);
    const { root, start, cols } = range;
    const pending = this.#pending.get(root) ?? this.#open(root);
    const isFree = pending.covered.every(([from, to]) => to <= start || start + cols <= from);
    if (isFree) {
      pending.covered.push([start, start + cols]);
      return { into: part(pending.matrix, range), add: null };
    }
    this.#complete(root, pending);
    if (root.leaf?.gradient || this.#isExclusive(pending.matrix.storage)) {
      const into = part(pending.matrix, range);
      return { into, add: into };
    }
    const shared = pending.matrix;
    pending.matrix = this.#recorder.temporary(root.rows, root.cols);
    if (root !== tensor) {
      this.#recorder.combine(pending.matrix, shared, null);
      const into = part(pending.matrix, range);
      return { into, add: into };
    }
    return { into: pending.matrix, add: shared };
  }

  /** A contribution that lies in memory already: taken as it is where it is the first. */
  pass(tensor: GraphTensor, gradient: Matrix): void {
    const { root } = resolveView(tensor);
    if (root === tensor && !this.#pending.has(root) && !root.leaf?.gradient) {
      this.set(root, gradient);
      return;
    }
    const { into, add } = this.sink(tensor);
    this.#recorder.combine(into, gradient, add);
  }

  /** Starts a gradient with nothing written. */
  #open(root: GraphTensor): Pending {
    const matrix = root.leaf?.gradient ?? this.#recorder.temporary(root.rows, root.cols);
    const pending: Pending = { matrix, covered: [] };
    this.#pending.set(root, pending);
    return pending;
  }

  #complete(root: GraphTensor, pending: Pending): Matrix {
    let start = 0;
    for (const [from, to] of [...pending.covered].sort((a, b) => a[0] - b[0])) {
      if (from > start) this.#recorder.zero(columnsOf(pending.matrix, start, from - start));
      start = to;
    }
    if (start < root.cols) this.#recorder.zero(columnsOf(pending.matrix, start, root.cols - start));
    pending.covered = [[0, root.cols]];
    return pending.matrix;
  }

  /** Whether one gradient alone lies there: `pass` may have given several the same matrix. */
  #isExclusive(storage: Storage): boolean {
    let holders = this.#held.has(storage) ? 1 : 0;
    for (const { matrix } of this.#pending.values()) if (matrix.storage === storage) holders++;
    return holders === 1;
  }
}

function part(matrix: Matrix, { root, start, cols }: Columns): Matrix {
  return start === 0 && cols === root.cols ? matrix : columnsOf(matrix, start, cols);
}
