/**
 * A traced computation: the backend that records which ops the model applies to what.
 *
 * @module
 */
import type { Backend, Dtype, Matrix, Op, Tensor, TensorType } from "../ops/op.ts";

/** One application of an op. */
export interface Node {
  readonly op: Op<unknown>;
  readonly attributes: unknown;
  readonly inputs: readonly GraphTensor[];
  readonly outputs: readonly GraphTensor[];
}

/** A tensor of a traced graph. */
export class GraphTensor implements Tensor {
  readonly rows: number;
  readonly cols: number;
  readonly dtype: Dtype;
  /** What consumes it. */
  readonly consumers: Node[] = [];

  constructor(
    readonly backend: Graph,
    type: TensorType,
    /** What computes it; null for leaves. */
    readonly producer: Node | null,
    /** Leaves only: where it lies. */
    readonly leaf: Leaf | null,
  ) {
    this.rows = type.rows;
    this.cols = type.cols;
    this.dtype = type.dtype;
  }
}

/** A tensor that is there before the plan runs. */
export interface Leaf {
  readonly matrix: Matrix;
  /** Whether a gradient is wanted. */
  readonly trained: boolean;
  /** Where the gradient goes; null lets the planner choose. */
  readonly gradient: Matrix | null;
}

/** Records ops instead of running them. */
export class Graph implements Backend {
  readonly nodes: Node[] = [];

  /** A tensor in given memory: a parameter, token ids, a scalar. */
  leaf(matrix: Matrix, options: { trained?: boolean; gradient?: Matrix | null } = {}): GraphTensor {
    const { trained = false, gradient = null } = options;
    return new GraphTensor(this, matrix, null, { matrix, trained, gradient });
  }

  apply<A>(op: Op<A>, inputs: readonly Tensor[], attributes: A): Tensor[] {
    const own = inputs.map((tensor) => {
      if (tensor instanceof GraphTensor && tensor.backend === this) return tensor;
      throw new TypeError(`Cannot apply ${op.name}: an input belongs to another backend`);
    });
    const outputs: GraphTensor[] = [];
    const node: Node = { op: op as Op<unknown>, attributes, inputs: own, outputs };
    for (const type of op.types(own, attributes)) {
      outputs.push(new GraphTensor(this, type, node, null));
    }
    for (const input of own) input.consumers.push(node);
    this.nodes.push(node);
    return outputs;
  }
}

/** The columns of `root` that a tensor is, after following views. */
export interface Columns {
  readonly root: GraphTensor;
  readonly start: number;
  readonly cols: number;
}

/** Follows views to the tensor that owns the memory. */
export function resolveView(tensor: GraphTensor): Columns {
  let root = tensor;
  let start = 0;
  for (let p = root.producer; p?.op.view; p = root.producer) {
    start += p.op.view(p.attributes).start;
    root = p.inputs[0];
  }
  return { root, start, cols: tensor.cols };
}
