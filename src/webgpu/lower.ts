/**
 * From a traced graph to a list of dispatches: forward, then reverse-mode differentiation.
 *
 * @module
 */
import { addInto } from "../kernels/add.ts";
import { fill } from "../kernels/fill.ts";
import type { Kernel } from "../kernels/kernel.ts";
import { checkpointOp } from "../ops/checkpoint.ts";
import type {
  Capabilities,
  Dtype,
  GradientRecorder,
  GradientSink,
  Matrix,
  Recorder,
  Storage,
} from "../ops/op.ts";
import { type Columns, type Graph, GraphTensor, type Node, resolveView } from "./graph.ts";
import { columnsOf, matrixAt, rowParts, rowsOf } from "../ops/matrix.ts";

/** One kernel on its operands. */
export interface Dispatch {
  readonly kernel: Kernel;
  readonly operands: readonly Matrix[];
}

/** Dispatches in order, and the memory that the planner may place as it likes. */
export interface Program {
  readonly dispatches: readonly Dispatch[];
  /** Storages with no place yet. */
  readonly temporaries: ReadonlySet<Storage>;
  /** Temporaries whose content must outlive the program. */
  readonly kept: ReadonlySet<Storage>;
  /** Where each kept tensor, and each gradient the caller asked for, lies. */
  locate(tensor: GraphTensor): Matrix;
  gradient(tensor: GraphTensor): Matrix;
}

/** What to compute of a graph. */
export interface LowerOptions {
  readonly capabilities: Capabilities;
  /** Scalar losses and their weights in the objective. */
  readonly losses?: readonly { tensor: GraphTensor; weight: number }[];
  /** Further roots of the backward pass, with their cotangents (tests). */
  readonly cotangents?: readonly { tensor: GraphTensor; matrix: Matrix }[];
  /** Fixed places of some outputs, e.g. metrics. */
  readonly places?: ReadonlyMap<GraphTensor, Matrix>;
  /** Outputs to keep until the program has ended. */
  readonly keep?: readonly GraphTensor[];
  /** Add to the gradients of trained leaves instead of overwriting them. */
  readonly accumulate?: boolean;
}

/** Lowers a graph. The recorder may be used further, e.g. to append an optimizer. */
export function lower(graph: Graph, options: LowerOptions): Program & { recorder: PlanRecorder } {
  const recorder = new PlanRecorder(options.capabilities);
  const forward = new ForwardPass(graph, options, recorder);
  const backward = new BackwardPass(graph, options, recorder, forward);
  return {
    recorder,
    dispatches: recorder.dispatches,
    temporaries: recorder.temporaries,
    kept: recorder.kept,
    locate: (tensor) => forward.matrix(tensor),
    gradient: (tensor) => backward.result(tensor),
  };
}

/** The recorder of both passes. */
export class PlanRecorder implements Recorder {
  readonly dispatches: Dispatch[] = [];
  readonly temporaries = new Set<Storage>();
  readonly kept = new Set<Storage>();
  /** Label of the node being recorded, for the storages it makes. */
  scope = "";

  constructor(readonly capabilities: Capabilities) {}

  dispatch(kernel: Kernel, ...operands: Matrix[]): void {
    if (operands.length !== kernel.access.length) {
      throw new TypeError(`${kernel.label} takes ${kernel.access.length} operands`);
    }
    this.dispatches.push({ kernel, operands });
  }

  temporary(rows: number, cols: number, dtype: Dtype = "f32"): Matrix {
    const storage = { label: `${this.scope} ${rows}x${cols}`, size: rows * cols };
    this.temporaries.add(storage);
    return matrixAt(storage, 0, { rows, cols, dtype });
  }

  byRows(matrices: readonly Matrix[], body: (...parts: Matrix[]) => void): void {
    for (const [start, rows] of rowParts(matrices, this.capabilities.maxBindingBytes)) {
      body(...matrices.map((m) => rowsOf(m, start, rows)));
    }
  }

  zero(m: Matrix): void {
    this.byRows([m], (part) => this.dispatch(fill({ x: part, value: 0 }), part));
  }

  /** `into = a + b`, or a copy of `a` where `b` is null. `into` may be `b`. */
  combine(into: Matrix, a: Matrix, b: Matrix | null): void {
    if (b === null) {
      this.byRows(
        [a, into],
        (a, into) => this.dispatch(addInto({ a, into, add: "none" }), a, into),
      );
    } else if (b === into) {
      this.byRows(
        [a, into],
        (a, into) => this.dispatch(addInto({ a, into, add: "inPlace" }), a, into),
      );
    } else {
      this.byRows(
        [a, into, b],
        (a, into, b) => this.dispatch(addInto({ a, into, add: b }), a, into, b),
      );
    }
  }
}

/** Places every tensor and records the forward kernels. */
class ForwardPass {
  readonly #matrices = new Map<GraphTensor, Matrix>();
  readonly #keep: ReadonlySet<GraphTensor>;

  constructor(
    readonly graph: Graph,
    readonly options: LowerOptions,
    readonly recorder: PlanRecorder,
  ) {
    this.#keep = new Set((options.keep ?? []).map((t) => resolveView(t).root));
    for (const node of graph.nodes) this.#record(node);
  }

  matrix(tensor: GraphTensor): Matrix {
    const matrix = tensor.leaf?.matrix ?? this.#matrices.get(tensor);
    if (!matrix) throw new TypeError("The tensor is not part of this program");
    return matrix;
  }

  /**
   * Computes again what the backward pass of `nodes` reads, into new memory, so that the memory of
   * the first time is free in between. What is dear to compute (attention, losses, selections)
   * is kept from the first time.
   */
  recompute(nodes: readonly Node[]): void {
    const inside = new Set(nodes);
    for (const node of nodes) {
      const { op, outputs } = node;
      if (op.view) {
        this.#record(node);
        continue;
      }
      if (op.savesOutputs || op.stopsGradient) continue;
      if (outputs.some((t) => t.consumers.some((n) => inside.has(n)))) this.#record(node);
    }
  }

  #record(node: Node): void {
    const { options, recorder } = this;
    recorder.scope = node.op.name;
    const inputs = node.inputs.map((t) => this.matrix(t));
    if (node.op.view) {
      const { start, cols } = node.op.view(node.attributes);
      this.#matrices.set(node.outputs[0], columnsOf(inputs[0], start, cols));
      return;
    }
    const outputs = node.outputs.map((tensor, i) => {
      const fixed = options.places?.get(tensor);
      const shared = i === 0 && node.op.inPlace && !fixed &&
        canTakeOver(node.inputs[0], this.#keep);
      if (shared) return inputs[0];
      return fixed ?? recorder.temporary(tensor.rows, tensor.cols, tensor.dtype);
    });
    node.outputs.forEach((tensor, i) => {
      this.#matrices.set(tensor, outputs[i]);
      if (this.#keep.has(tensor)) recorder.kept.add(outputs[i].storage);
    });
    if (!node.op.forward) throw new TypeError(`${node.op.name} has no kernels`);
    node.op.forward(recorder, inputs, outputs, node.attributes);
  }
}

/** Whether the only consumer of a tensor may overwrite it: nobody reads it later, in either pass. */
function canTakeOver(tensor: GraphTensor, keep: ReadonlySet<GraphTensor>): boolean {
  const { root, start, cols } = resolveView(tensor);
  if (!root.producer || root.producer.op.savesOutputs || keep.has(root)) return false;
  if (tensor.consumers.length !== 1) return false;
  if (root === tensor) return true;
  // Other consumers of the root must be views of other columns.
  return root.consumers.every((node) => {
    const view = node.op.view?.(node.attributes);
    if (!view) return false;
    return node.outputs[0] === tensor || view.start >= start + cols ||
      view.start + view.cols <= start;
  });
}

/** The gradient of a root tensor while its contributions come in. */
interface Pending {
  matrix: Matrix;
  /** Disjoint column ranges that have been written. */
  covered: [start: number, end: number][];
}

/** Reverse-mode differentiation. */
class BackwardPass {
  readonly #pending = new Map<GraphTensor, Pending>();
  readonly #wanted: ReadonlySet<GraphTensor>;
  /** Gradients that the op at work still reads: nobody may add into them. */
  #held = new Set<Storage>();

  constructor(
    graph: Graph,
    readonly options: LowerOptions,
    readonly recorder: PlanRecorder,
    readonly forward: ForwardPass,
  ) {
    this.#wanted = wantedTensors(graph);
    const roots = [...options.losses ?? [], ...options.cotangents ?? []];
    if (!roots.length) return;
    const leaves = trainedLeaves(graph);
    for (const leaf of leaves) {
      const gradient = leaf.leaf!.gradient;
      if (options.accumulate && gradient) {
        this.#pending.set(leaf, { matrix: gradient, covered: [[0, leaf.cols]] });
      }
    }
    for (const { tensor, matrix } of options.cotangents ?? []) this.#pass(tensor, matrix);
    const lossWeights = new Map((options.losses ?? []).map((l) => [l.tensor, l.weight]));
    const segments = segmentsOf(graph.nodes);
    segments.toReversed().forEach((nodes, i) => {
      // The last segment's activations are still there.
      const isReached = nodes.some((node) => node.outputs.some((t) => this.#wanted.has(t)));
      if (i > 0 && isReached) forward.recompute(nodes);
      for (const node of nodes.toReversed()) {
        if (node.op.view || !node.outputs.some((t) => this.#wanted.has(t))) continue;
        const reached = node.outputs.some((t) => this.#pending.has(t) || lossWeights.has(t));
        if (reached) this.#backward(node, lossWeights);
      }
    });
    for (const leaf of leaves) {
      recorder.scope = "gradient";
      if (!this.#pending.has(leaf)) this.#open(leaf);
      const { matrix } = this.#complete(leaf);
      if (!leaf.leaf!.gradient) recorder.kept.add(matrix.storage);
    }
  }

  /** Where the gradient of a trained leaf ended up. */
  result(leaf: GraphTensor): Matrix {
    const pending = this.#pending.get(leaf);
    if (!pending) throw new TypeError("The tensor has no gradient in this program");
    return pending.matrix;
  }

  #backward(node: Node, lossWeights: ReadonlyMap<GraphTensor, number>): void {
    const { recorder } = this;
    if (!node.op.backward) throw new TypeError(`${node.op.name} has no gradient`);
    recorder.scope = `${node.op.name} gradient`;
    this.#held = new Set(
      node.outputs.flatMap((t) => this.#pending.get(t)?.matrix.storage ?? []),
    );
    const recorderOfNode: GradientRecorder = {
      capabilities: recorder.capabilities,
      dispatch: (kernel, ...operands) => recorder.dispatch(kernel, ...operands),
      temporary: (rows, cols, dtype) => recorder.temporary(rows, cols, dtype),
      byRows: (matrices, body) => recorder.byRows(matrices, body),
      gradient: (i) => {
        const tensor = node.outputs[i];
        if (!this.#pending.has(tensor)) this.#open(tensor);
        return this.#complete(tensor).matrix;
      },
      wants: (i) => this.#wanted.has(node.inputs[i]),
      sink: (i) => this.#sink(node.inputs[i]),
      pass: (i, gradient) => {
        if (this.#wanted.has(node.inputs[i])) this.#pass(node.inputs[i], gradient);
      },
      lossWeight: (i) => lossWeights.get(node.outputs[i]) ?? 0,
    };
    const matrices = (tensors: readonly GraphTensor[]) =>
      tensors.map((t) => this.forward.matrix(t));
    node.op.backward(
      recorderOfNode,
      matrices(node.inputs),
      matrices(node.outputs),
      node.attributes,
    );
    for (const tensor of node.outputs) this.#pending.delete(tensor);
    this.#held.clear();
  }

  /** Starts a gradient with nothing written. */
  #open(root: GraphTensor): Pending {
    const matrix = root.leaf?.gradient ?? this.recorder.temporary(root.rows, root.cols);
    const pending: Pending = { matrix, covered: [] };
    this.#pending.set(root, pending);
    return pending;
  }

  /** Zeroes the columns that nobody wrote. */
  #complete(root: GraphTensor): Pending {
    const pending = this.#pending.get(root)!;
    let start = 0;
    for (const [from, to] of [...pending.covered].sort((a, b) => a[0] - b[0])) {
      if (from > start) this.recorder.zero(columnsOf(pending.matrix, start, from - start));
      start = to;
    }
    if (start < root.cols) this.recorder.zero(columnsOf(pending.matrix, start, root.cols - start));
    pending.covered = [[0, root.cols]];
    return pending;
  }

  #exclusive(storage: Storage): boolean {
    let holders = this.#held.has(storage) ? 1 : 0;
    for (const { matrix } of this.#pending.values()) if (matrix.storage === storage) holders++;
    return holders === 1;
  }

  #sink(tensor: GraphTensor): GradientSink {
    const range = resolveView(tensor);
    const { root, start, cols } = range;
    const pending = this.#pending.get(root) ?? this.#open(root);
    const isFree = pending.covered.every(([from, to]) => to <= start || start + cols <= from);
    if (isFree) {
      pending.covered.push([start, start + cols]);
      return { into: part(pending.matrix, range), add: null };
    }
    this.#complete(root);
    if (root.leaf?.gradient || this.#exclusive(pending.matrix.storage)) {
      const into = part(pending.matrix, range);
      return { into, add: into };
    }
    const shared = pending.matrix;
    pending.matrix = this.recorder.temporary(root.rows, root.cols);
    if (root !== tensor) {
      this.recorder.combine(pending.matrix, shared, null);
      const into = part(pending.matrix, range);
      return { into, add: into };
    }
    return { into: pending.matrix, add: shared };
  }

  #pass(tensor: GraphTensor, gradient: Matrix): void {
    const { root } = resolveView(tensor);
    if (root === tensor && !this.#pending.has(root) && !root.leaf?.gradient) {
      this.#pending.set(root, { matrix: gradient, covered: [[0, root.cols]] });
      return;
    }
    const { into, add } = this.#sink(tensor);
    this.recorder.combine(into, gradient, add);
  }
}

function part(matrix: Matrix, { root, start, cols }: Columns): Matrix {
  return start === 0 && cols === root.cols ? matrix : columnsOf(matrix, start, cols);
}

/** Nodes from each `checkpoint` to the next; without any, all in one. */
function segmentsOf(nodes: readonly Node[]): Node[][] {
  const segments: Node[][] = [[]];
  for (const node of nodes) {
    if (node.op === checkpointOp) segments.push([]);
    segments[segments.length - 1].push(node);
  }
  return segments;
}

/** Tensors that a trained leaf has an influence on. */
function wantedTensors(graph: Graph): Set<GraphTensor> {
  const wanted = new Set<GraphTensor>(trainedLeaves(graph));
  for (const node of graph.nodes) {
    if (node.op.stopsGradient || !(node.op.backward || node.op.view)) continue;
    if (!node.inputs.some((t) => wanted.has(t))) continue;
    for (const output of node.outputs) wanted.add(output);
  }
  return wanted;
}

function trainedLeaves(graph: Graph): Set<GraphTensor> {
  const leaves = new Set<GraphTensor>();
  for (const node of graph.nodes) {
    for (const input of node.inputs) if (input.leaf?.trained) leaves.add(input);
  }
  return leaves;
}
