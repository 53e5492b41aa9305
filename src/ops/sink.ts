/**
 * Where gradients are written.
 *
 * @module
 */
import { sinkMatrices } from "../kernels/wgsl/sink.ts";
import type { GradientSink, Matrix, Recorder } from "./op.ts";

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
  r.byRows([...matrices, ...sinkMatrices(sink)], (...parts) => {
    const [into, other] = parts.slice(matrices.length);
    const add = sink.add === null ? null : other ?? into;
    body(parts.slice(0, matrices.length), { into, add });
  });
}
