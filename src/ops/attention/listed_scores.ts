/**
 * The scores that attention along lists has computed, kept for the teacher of the indexer.
 *
 * @module
 */
import type { AttentionSpec, Named } from "../../kernels/attention/attention.ts";
import type { Matrix, Recorder } from "../op.ts";

/** Most bytes of the scores along lists that are kept from attention to the indexer's loss. */
const SCORE_BYTES = 512 * 2 ** 20;

/** Scores have their factor in them. */
const listedBy = (scale: number) => `listed scores of scale ${scale}`;

/** Memory for the scores along lists, for {@linkcode listedScores}, if they are not too many. */
export function recordListedScores(
  r: Recorder,
  { dims, scale, selection }: AttentionSpec,
  inputs: Named<Matrix>,
  lse: Matrix,
): Matrix | null {
  const cols = dims.heads * selection!.topk;
  if (4 * lse.rows * cols > Math.min(SCORE_BYTES, r.capabilities.maxBindingBytes)) return null;
  const [scores] = r.derived(
    lse,
    listedBy(scale),
    () => [r.temporary(lse.rows, cols), ...Object.values(inputs)],
  );
  return scores;
}

/**
 * The scores [rows, heads * topk] that attention along lists has computed, if it has kept them and
 * this `scale` and these `inputs`, with the lists as the last, are what it has computed them from.
 */
export function listedScores(
  r: Recorder,
  scale: number,
  inputs: readonly Matrix[],
  lse: Matrix,
): Matrix | null {
  const [scores, ...from] = r.known(lse, listedBy(scale)) ?? [];
  const isSame = (a: Matrix, b: Matrix) =>
    a.storage === b.storage && a.base + a.offset === b.base + b.offset && a.rows === b.rows &&
    a.cols === b.cols && a.stride === b.stride;
  return from.length === inputs.length && from.every((m, i) => isSame(m, inputs[i]))
    ? scores
    : null;
}
