/**
 * Traces a model for one plan, and lays out what it reports.
 *
 * @module
 */
import type { LossFunction, LossResult, Metrics, ParameterSpec } from "../../engine.ts";
import type { Matrix, Storage } from "../../ops/op.ts";
import type { ArenaLayout } from "./arena.ts";
import { Graph, type GraphTensor } from "../../graph/graph.ts";
import type { InputLayout } from "./inputs.ts";
import { columnsOf } from "../../ops/matrix.ts";

/** Where a model's parameters lie. */
export interface ModelMemory {
  readonly layout: ArenaLayout;
  readonly weights: Storage;
  readonly gradients: Storage;
  /** Groups that get gradients. */
  readonly trained: readonly string[];
}

/** Runs `loss` on tensors that record what is done to them. */
export function traceModel(
  loss: LossFunction,
  inputs: InputLayout,
  memory: ModelMemory,
): { graph: Graph; result: LossResult } {
  const graph = new Graph();
  const result = loss(parameterLeaves(graph, memory), {
    batch: inputs.batch,
    seqLen: inputs.seqLen,
    tokens: graph.leaf(inputs.tokens),
    positions: graph.leaf(inputs.positions),
    targets: graph.leaf(inputs.targets),
    inverseCount: graph.leaf(inputs.inverseCount),
  });
  return { graph, result };
}

/** A graph's parameters by name. */
export function parameterLeaves(
  graph: Graph,
  { layout, weights, gradients, trained }: ModelMemory,
): (name: string) => GraphTensor {
  const specs = new Map<string, ParameterSpec>(layout.parameters.map((p) => [p.name, p]));
  const leaves = new Map<string, GraphTensor>();
  return (name) => {
    const known = leaves.get(name);
    if (known) return known;
    const spec = specs.get(name);
    if (!spec) throw new TypeError(`The model has no parameter ${name}`);
    const leaf = graph.leaf(layout.matrix(weights, spec), {
      trained: trained.includes(spec.group),
      gradient: layout.matrix(gradients, spec),
    });
    leaves.set(name, leaf);
    return leaf;
  };
}

/** Names of a row that holds all metrics side by side; a metric of n columns gives n names. */
export function metricNames(metrics: LossResult["metrics"]): string[] {
  return Object.entries(metrics).flatMap(([name, { cols }]) =>
    cols === 1 ? [name] : Array.from({ length: cols }, (_, i) => `${name}/${i}`)
  );
}

/** The numbers of such a row by name. */
export function namedMetrics(names: readonly string[], row: Float32Array): Metrics {
  return Object.fromEntries(names.map((name, i) => [name, row[i]]));
}

/** The columns of `row` that each metric is to be computed into. */
export function metricPlaces(
  metrics: LossResult["metrics"],
  row: Matrix,
): Map<GraphTensor, Matrix> {
  const places = new Map<GraphTensor, Matrix>();
  let column = 0;
  for (const tensor of Object.values(metrics)) {
    places.set(tensor as GraphTensor, columnsOf(row, column, tensor.cols));
    column += tensor.cols;
  }
  return places;
}
