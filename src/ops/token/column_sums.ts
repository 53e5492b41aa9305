/**
 * Gradients of what all rows share: column sums in two stages.
 *
 * @module
 */
import { columnBlocks, sumOfBlocks } from "../../kernels/token/column_sum.ts";
import type { GradientSink, Matrix, Recorder } from "../op.ts";
import { furtherSink } from "../sink.ts";

/**
 * Writes a sum over all rows of `matrices` to `sink` [1, cols]. `partials` records the kernel that
 * sums each of equal runs of the rows of `parts` into one row of `sink.into`.
 */
export function sumOverRows(
  r: Recorder,
  matrices: readonly Matrix[],
  sink: GradientSink,
  partials: (parts: Matrix[], sink: GradientSink) => void,
): void {
  const { software } = r.capabilities;
  let target = sink;
  r.byRows(matrices, (...parts) => {
    const blocks = columnBlocks(parts[0].rows, software);
    if (blocks === 1) {
      partials(parts, target);
    } else {
      const into = r.temporary(blocks, sink.into.cols);
      partials(parts, { into, add: null });
      r.dispatch(sumOfBlocks(into, target, software));
    }
    target = furtherSink(sink);
  });
}
