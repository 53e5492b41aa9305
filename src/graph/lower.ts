/**
 * From a traced graph to a list of dispatches: forward, then reverse-mode differentiation.
 *
 * @module
 */
import type { Matrix, Storage } from "../ops/op.ts";
import type { Capabilities } from "../kernels/wgsl/device.ts";
import { type BackwardOptions, BackwardPass } from "./backward_pass.ts";
import { type ForwardOptions, ForwardPass } from "./forward_pass.ts";
import type { Graph, GraphTensor } from "./graph.ts";
import { type Dispatch, PlanRecorder } from "./plan_recorder.ts";

/** Dispatches in order, and the memory that the planner may place as it likes. */
export interface Program {
  readonly dispatches: readonly Dispatch[];
  /** Storages with no place yet. */
  readonly temporaries: ReadonlySet<Storage>;
  /** Temporaries whose content must outlive the program. */
  readonly kept: ReadonlySet<Storage>;
  /** May be used further, e.g. to append an optimizer. */
  readonly recorder: PlanRecorder;
  /** Where each kept tensor, and each gradient the caller asked for, lies. */
  locate(tensor: GraphTensor): Matrix;
  gradient(tensor: GraphTensor): Matrix;
}

/** What to compute of a graph. */
export interface LowerOptions extends ForwardOptions, BackwardOptions {
  readonly capabilities: Capabilities;
}

/** Lowers a graph. */
export function lower(graph: Graph, options: LowerOptions): Program {
  const recorder = new PlanRecorder(options.capabilities);
  const forward = new ForwardPass(recorder, graph, options);
  const backward = new BackwardPass(recorder, graph, forward, options);
  return {
    recorder,
    dispatches: recorder.dispatches,
    temporaries: recorder.temporaries,
    kept: recorder.kept,
    locate: (tensor) => forward.matrix(tensor),
    gradient: (tensor) => backward.result(tensor),
  };
}
