/**
 * Reverse-mode differentiation: visits the nodes of a graph backwards and lets each op record its
 * gradients.
 *
 * @module
 */
import { checkpointOp } from "../ops/token/checkpoint.ts";
import type { Matrix, OpGradients } from "../ops/op.ts";
import type { ForwardPass } from "./forward_pass.ts";
import { Gradients } from "./gradients.ts";
import type { Graph, GraphTensor, Node } from "./graph.ts";
import type { PlanRecorder } from "./plan_recorder.ts";

/** What to differentiate. */
export interface BackwardOptions {
  /** Scalar losses and their weights in the objective. */
  readonly losses?: readonly { tensor: GraphTensor; weight: number }[];
  /** Further roots of the backward pass, with their cotangents (tests). */
  readonly cotangents?: readonly { tensor: GraphTensor; matrix: Matrix }[];
  /** Add to the gradients of trained leaves instead of overwriting them. */
  readonly accumulate?: boolean;
}

/** Records the gradients of all trained leaves, if there is anything to differentiate. */
export class BackwardPass {
  readonly #recorder: PlanRecorder;
  readonly #forward: ForwardPass;
  readonly #gradients: Gradients;
  readonly #wanted: ReadonlySet<GraphTensor>;
  readonly #lossWeights: ReadonlyMap<GraphTensor, number>;

  constructor(
    recorder: PlanRecorder,
    graph: Graph,
    forward: ForwardPass,
    { losses = [], cotangents = [], accumulate = false }: BackwardOptions,
  ) {
    this.#recorder = recorder;
    this.#forward = forward;
    this.#gradients = new Gradients(recorder);
    this.#wanted = wantedTensors(graph);
    this.#lossWeights = new Map(losses.map((l) => [l.tensor, l.weight]));
    if (!losses.length && !cotangents.length) return;
    const leaves = trainedLeaves(graph);
    for (const leaf of leaves) {
      const gradient = leaf.leaf!.gradient;
      if (accumulate && gradient) this.#gradients.set(leaf, gradient);
    }
    for (const { tensor, matrix } of cotangents) this.#gradients.pass(tensor, matrix);
    segmentsOf(graph.nodes).toReversed().forEach((nodes, i) => {
      // The last segment's activations are still there.
      if (i > 0 && nodes.some((node) => this.#isWanted(node))) forward.recompute(nodes);
      for (const node of nodes.toReversed()) {
        if (!node.op.view && this.#isWanted(node) && this.#isReached(node)) this.#record(node);
      }
    });
    for (const leaf of leaves) {
      recorder.scope = "gradient";
      const matrix = this.#gradients.complete(leaf);
      if (!leaf.leaf!.gradient) recorder.kept.add(matrix.storage);
    }
  }

  /** Where the gradient of a trained leaf ended up. */
  result(leaf: GraphTensor): Matrix {
    const matrix = this.#gradients.get(leaf);
    if (!matrix) throw new TypeError("The tensor has no gradient in this program");
    return matrix;
  }

  /** Whether a trained leaf has an influence on what the node computes. */
  #isWanted({ outputs }: Node): boolean {
    return outputs.some((t) => this.#wanted.has(t));
  }

  /** Whether the objective depends on what the node computes. */
  #isReached({ outputs }: Node): boolean {
    return outputs.some((t) => this.#gradients.has(t) || this.#lossWeights.has(t));
  }

  #record(node: Node): void {
    const { op, inputs, outputs, attributes } = node;
    if (!op.backward) throw new TypeError(`${op.name} has no gradient`);
    this.#recorder.scope = `${op.name} gradient`;
    const matrices = (tensors: readonly GraphTensor[]) =>
      tensors.map((t) => this.#forward.matrix(t));
    this.#gradients.hold(outputs);
    op.backward(
      this.#recorder,
      this.#gradientsOf(node),
      matrices(inputs),
      matrices(outputs),
      attributes,
    );
    this.#gradients.release(outputs);
  }

  #gradientsOf({ inputs, outputs }: Node): OpGradients {
    const gradients = this.#gradients;
    return {
      gradient: (i) => gradients.complete(outputs[i]),
      wants: (i) => this.#wanted.has(inputs[i]),
      sink: (i) => gradients.sink(inputs[i]),
      pass: (i, gradient) => {
        if (this.#wanted.has(inputs[i])) gradients.pass(inputs[i], gradient);
      },
      lossWeight: (i) => this.#lossWeights.get(outputs[i]) ?? 0,
    };
  }
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
