import { randomScore, randomScores, recentIndices } from "../../kernels/select/positions.ts";
import { matrixType, type Op, requireShapes, type Tensor } from "../op.ts";
import { recordTopk, requireSizes, type SelectionSizes, twinTopk } from "./chunks.ts";

/** Attributes of {@linkcode positionTopk}. */
export interface PositionTopkAttributes extends SelectionSizes {
  /** `recency`: the last keys; `sinkRecency`: the first and the last; `random`: any. */
  kind: "random" | "recency" | "sinkRecency";
  /** Of `random`: a whole number from 0 to 2³² − 1. */
  seed?: number;
  /** Of `sinkRecency`: how many of the topk keys are the first of the sequence. */
  sinks?: number;
}

/** Keys by position alone; see {@linkcode positionTopk}. */
export const positionTopkOp: Op<PositionTopkAttributes> = {
  name: "positionTopk",
  stopsGradient: true,
  types(inputs, { batch, seqLen, topk, kind, seed = 0, sinks = 0 }) {
    requireSizes("positionTopk", { batch, seqLen, topk });
    const rows = batch * seqLen;
    requireShapes(
      inputs.length === 1 && inputs[0].rows === rows,
      "positionTopk",
      inputs,
      `one matrix of ${rows} rows`,
    );
    if (seed !== seed >>> 0) {
      throw new RangeError(
        `Cannot apply positionTopk: seed is ${seed}, not a whole number from 0 to 2³² − 1`,
      );
    }
    if (kind === "sinkRecency" && !(Number.isInteger(sinks) && sinks >= 0 && sinks <= topk)) {
      throw new RangeError(
        `Cannot apply positionTopk: sinks is ${sinks}, not a whole number from 0 to topk = ${topk}`,
      );
    }
    return [matrixType(rows, topk, "i32")];
  },
  twin(tf, _inputs, attributes) {
    const { batch, seqLen, kind, seed = 0, sinks = 0 } = attributes;
    const score = (t: number, s: number) => {
      if (kind === "random") return randomScore(seed, t, s);
      return kind === "sinkRecency" && s < sinks ? seqLen + s : s;
    };
    const scores = Float32Array.from(
      { length: batch * seqLen * seqLen },
      (_, i) => score(Math.floor(i / seqLen) % seqLen, i % seqLen),
    );
    return [twinTopk(tf, tf.tensor3d(scores, [batch, seqLen, seqLen]), attributes)];
  },
  forward(r, _inputs, [indices], attributes) {
    const { seqLen, kind, seed = 0, sinks = 0 } = attributes;
    if (kind === "random") {
      recordTopk(r, attributes, [], indices, ({ firstRow, batch }, scores) => {
        r.dispatch(randomScores({ scores, firstRow, batch, seed }));
        return scores;
      });
      return;
    }
    let firstRow = 0;
    r.byRows([indices], (indices) => {
      const spec = { indices, firstRow, seqLen, sinks: kind === "recency" ? 0 : sinks };
      r.dispatch(recentIndices(spec));
      firstRow += indices.rows;
    });
  },
};

/**
 * Selects keys without looking at them: the `topk` last ones, the `sinks` first and topk − sinks last
 * ones (StreamingLLM, arXiv:2309.17453), or `topk` at random. A random selection depends on seed and
 * position alone, so it is the same in every sequence and every run. No gradient passes.
 *
 * @param like a matrix of batch · seqLen rows: only says where the result belongs
 * @returns i32 [batch · seqLen, topk]: min(topk, t + 1) positions, ascending, then -1
 * @throws {RangeError} if shapes and sizes do not fit
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { positionTopk } from "./positions.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const x = backend.tensor([0, 0, 0, 0], 4, 1);
 * const sizes = { batch: 1, seqLen: 4, topk: 2 };
 * const indices = positionTopk(x, { ...sizes, kind: "sinkRecency", sinks: 1 });
 * assert.deepEqual([...backend.read(indices)], [0, -1, 0, 1, 0, 2, 0, 3]);
 * ```
 */
export function positionTopk(like: Tensor, attributes: PositionTopkAttributes): Tensor {
  return like.backend.apply(positionTopkOp, [like], attributes)[0];
}
