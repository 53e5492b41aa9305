/**
 * The forward pass: where each tensor of a graph lies, and the kernels that compute it.
 *
 * @module
 */
import { columnsOf } from "../ops/matrix.ts";
import type { Matrix } from "../ops/op.ts";
import { type Graph, type GraphTensor, type Node, resolveView } from "./graph.ts";
import type { PlanRecorder } from "./plan_recorder.ts";

/** What of a forward pass has to lie somewhere, or to stay. */
export interface ForwardOptions {
  /** Fixed places of some outputs, e.g. metrics. */
  readonly places?: ReadonlyMap<GraphTensor, Matrix>;
  /** Outputs to keep until the program has ended. */
  readonly keep?: readonly GraphTensor[];
}

/** Places every tensor and records the forward kernels. */
export class ForwardPass {
  readonly #recorder: PlanRecorder;
  readonly #matrices = new Map<GraphTensor, Matrix>();
  readonly #places: ReadonlyMap<GraphTensor, Matrix>;
  readonly #keep: ReadonlySet<GraphTensor>;

  constructor(recorder: PlanRecorder, graph: Graph, { places, keep = [] }: ForwardOptions) {
    this.#recorder = recorder;
    this.#places = places ?? new Map();
    this.#keep = new Set(keep.map((t) => resolveView(t).root));
    for (const node of graph.nodes) this.#record(node);
  }

  /** Where a tensor lies. After {@linkcode recompute} it is the new place. */
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
    const recorder = this.#recorder;
    recorder.scope = node.op.name;
    const inputs = node.inputs.map((t) => this.matrix(t));
    if (node.op.view) {
      const { start, cols } = node.op.view(node.attributes);
      this.#matrices.set(node.outputs[0], columnsOf(inputs[0], start, cols));
      return;
    }
    const outputs = node.outputs.map((tensor, i) => {
      const fixed = this.#places.get(tensor);
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
