/**
 * From the {@linkcode GradientSink} of a recorder to the operands of a kernel.
 *
 * @module
 */
import type { Sink } from "../kernels/wgsl/sink.ts";
import type { GradientSink, Matrix, Recorder } from "./op.ts";

/** The kernel's view of a sink. */
export function kernelSink({ into, add }: GradientSink): Sink {
  return { into, add: add === null ? "none" : add === into ? "inPlace" : add };
}

/** Operands of a sink, last in a dispatch. */
export function sinkOperands({ into, add }: GradientSink): Matrix[] {
  return add === null || add === into ? [into] : [into, add];
}

/** The sink for what comes after a first kernel has written to `sink`. */
export function furtherSink({ into }: GradientSink): GradientSink {
  return { into, add: into };
}

/** {@linkcode Recorder.byRows} over matrices and a sink with as many rows. */
export function byRowsWithSink(
  r: Recorder,
  matrices: readonly Matrix[],
  sink: GradientSink,
  body: (parts: Matrix[], sink: GradientSink) => void,
): void {
  r.byRows([...matrices, ...sinkOperands(sink)], (...parts) => {
    const [into, other] = parts.slice(matrices.length);
    const add = sink.add === null ? null : other ?? into;
    body(parts.slice(0, matrices.length), { into, add });
  });
}
