/**
 * The update: global norms, clipping and AdamW over the flat arenas, and its numbers for a step.
 *
 * @module
 */
import type { StepHyper } from "../../engine.ts";
import { adamwKernel } from "../../kernels/step/adamw.ts";
import {
  normOfPartials,
  sumOfSquares,
  sumOfSquaresBlocks,
} from "../../kernels/step/sum_of_squares.ts";
import type { Matrix, Storage } from "../../ops/op.ts";
import type { ArenaLayout, ArenaRange } from "./arena.ts";
import type { PlanRecorder } from "../../graph/plan_recorder.ts";
import { columnsOf, matrixAt } from "../../ops/matrix.ts";

/** The numbers that leave values and moments as they are; see `ADAMW_HYPER`. */
const FROZEN = Float32Array.of(0, 0, 0, 1, 1, 1, 1, 1);

/** What the update works on. */
export interface UpdateOptions {
  readonly layout: ArenaLayout;
  /** The trained ranges. */
  readonly ranges: readonly ArenaRange[];
  readonly weights: Storage;
  readonly gradients: Storage;
  readonly m: Storage;
  readonly v: Storage;
  /** `[1, 1]` for each trained group: where its gradient's norm goes. */
  readonly norms: ReadonlyMap<string, Matrix>;
  /** `[1, 8]` for each range. */
  readonly hyper: readonly Matrix[];
}

/** Appends one update of all trained groups. */
export function recordUpdate(recorder: PlanRecorder, options: UpdateOptions): void {
  const { layout, ranges, weights, gradients, m, v, norms, hyper } = options;
  recorder.scope = "optimizer";
  for (const [group, norm] of norms) {
    const { start, end } = layout.groupSpan(group);
    const parts = flatParts(recorder, [gradients], start, end).map(([part]) => part);
    const blocks = parts.map((part) => sumOfSquaresBlocks(part.cols));
    const partials = recorder.temporary(1, blocks.reduce((a, b) => a + b));
    let first = 0;
    parts.forEach((x, i) => {
      const own = columnsOf(partials, first, blocks[i]);
      recorder.dispatch(sumOfSquares({ x, partials: own }));
      first += blocks[i];
    });
    recorder.dispatch(normOfPartials({ partials, norm }));
  }
  ranges.forEach(({ group, start, end }, i) => {
    const norm = norms.get(group)!;
    const buffers = [weights, gradients, m, v];
    for (const [p, g, first, second] of flatParts(recorder, buffers, start, end)) {
      const kernel = adamwKernel({ p, g, m: first, v: second, norm, hyper: hyper[i] });
      recorder.dispatch(kernel);
    }
  });
}

/** The optimizer's numbers of a step for each range. */
export function hyperRows(
  ranges: readonly ArenaRange[],
  { beta1, beta2, eps, groups }: StepHyper,
): Float32Array[] {
  return ranges.map(({ group, decay }) => {
    const own = groups[group];
    if (!own) return FROZEN;
    const { lr, weightDecay, clip, update } = own;
    return Float32Array.of(
      lr,
      decay ? weightDecay : 0,
      clip,
      beta1,
      beta2,
      eps,
      1 / (1 - beta1 ** update),
      1 / (1 - beta2 ** update),
    );
  });
}

/** The range `start … end` of flat storages as rows `[1, n]`, in parts that fit one binding. */
function flatParts(
  recorder: PlanRecorder,
  storages: readonly Storage[],
  start: number,
  end: number,
): Matrix[][] {
  // Rows of one vec4 each, so that the range can be split anywhere.
  const tall = storages.map((s) => matrixAt(s, start, { rows: (end - start) / 4, cols: 4 }));
  const parts: Matrix[][] = [];
  recorder.byRows(tall, (...matrices) => {
    parts.push(matrices.map((m) => ({ ...m, rows: 1, cols: m.rows * 4, stride: m.rows * 4 })));
  });
  return parts;
}
