/**
 * Plans made to see whether they could run: traced, differentiated and laid out, without memory on
 * the device and without a kernel compiled.
 *
 * @module
 */
import type { EngineOptions } from "../../engine.ts";
import { MemoryError } from "../../errors.ts";
import { freeMemory } from "../../files/host_memory.ts";
import type { GraphTensor } from "../../graph/graph.ts";
import { lower } from "../../graph/lower.ts";
import { planMemory } from "../../graph/memory.ts";
import { lifetimes } from "../../graph/plan_source.ts";
import { matrixAt } from "../../ops/matrix.ts";
import { formatBytes } from "../../text/units.ts";
import type { Gpu } from "../device/device.ts";
import { bindingSize, bufferSize } from "../plan/plan.ts";
import { ArenaLayout } from "./arena.ts";
import { inputLayout } from "./inputs.ts";
import { metricNames, metricPlaces, traceModel } from "./trace.ts";

/** What is rehearsed: the passes of a training step, or, with no group trained, an evaluation. */
export type Rehearsal = Required<
  Pick<EngineOptions, "parameters" | "loss" | "batchSize" | "seqLen" | "trained">
>;

/**
 * Makes the plan of a model without running it.
 *
 * @returns bytes that model and plan need on the device
 * @throws {MemoryError} if a buffer or binding is larger than the adapter's, or they are in all more
 * than a software adapter's machine has free
 * @throws {RangeError} if a kernel cannot be that large
 */
export function rehearse({ capabilities, limits }: Gpu, options: Rehearsal): number {
  const { parameters, loss, batchSize, seqLen, trained } = options;
  const layout = new ArenaLayout(parameters);
  const [weights, gradients] = ["parameters", "gradients"].map((label) => ({
    ...{ label, size: layout.size },
  }));
  const inputs = inputLayout({ batch: batchSize, seqLen, ranges: 0 });
  const model = { layout, weights, gradients, trained };
  const { graph, result } = traceModel(loss, inputs, model);
  const { length: cols } = metricNames(result.metrics);
  const places = metricPlaces(
    result.metrics,
    matrixAt({ label: "metrics", size: cols }, 0, { rows: 1, cols }),
  );
  const isTrained = trained.length > 0;
  const kept = [result.logits, result.nll, ...Object.values(result.maps ?? {})];
  const program = lower(graph, {
    ...{ capabilities, places },
    losses: (isTrained ? result.losses : [])
      .map(({ tensor, weight }) => ({ tensor: tensor as GraphTensor, weight })),
    keep: isTrained ? [] : kept.filter((tensor) => tensor !== undefined) as GraphTensor[],
  });
  for (const { operands } of program.dispatches) {
    for (const m of operands) bindingSize(m, capabilities.maxBindingBytes);
  }
  const buffers = [
    ...Array.from({ length: isTrained ? 4 : 1 }, () => weights),
    ...planMemory(lifetimes(program)).map(({ size }) => ({ label: "activations", size })),
  ];
  const bytes = buffers
    .map(({ label, size }) => bufferSize(label, size, limits.maxBufferSize))
    .reduce((all, size) => all + size, 0);
  const free = capabilities.software ? freeMemory() : Infinity;
  if (bytes > free) {
    throw new MemoryError(
      `model and activations need ${formatBytes(bytes)}, this machine has free ${
        formatBytes(free)
      }`,
    );
  }
  return bytes;
}
