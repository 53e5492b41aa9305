import {
  recordScores,
  recordTarget,
  requireIndexer,
  type ScoringTensors,
  type SelectingAttributes,
  type TeacherTensors,
  twinScores,
  twinTarget,
} from "./teacher.ts";
import { matrixType, type Op, type Tensor, type TfMatrix } from "../op.ts";

/** Whole matrices of index scores and attention; see {@linkcode attentionMaps}. */
export const attentionMapsOp: Op<SelectingAttributes> = {
  name: "attentionMaps",
  stopsGradient: true,
  types(inputs, attributes) {
    requireIndexer("attentionMaps", inputs, attributes);
    const { batch, seqLen } = attributes;
    return [matrixType(batch * seqLen, seqLen), matrixType(batch * seqLen, seqLen)];
  },
  twin(tf, inputs, attributes) {
    const { batch, seqLen, indexer } = attributes;
    const target = twinTarget(tf, inputs.slice(-4), attributes);
    const { scores } = indexer
      ? twinScores(tf, inputs, { ...attributes, indexer })
      : { scores: target };
    return [scores, target].map((x) => tf.reshape(x, [batch * seqLen, seqLen]) as TfMatrix);
  },
  forward(r, inputs, [scores, target], attributes) {
    const { batch, seqLen, indexer, teacher } = attributes;
    const chunk = {
      batch,
      firstRow: 0,
      rows: seqLen,
      keys: seqLen,
      isFirst: true,
      queriesOf: <T>(m: T) => m,
      keysOf: <T>(m: T) => m,
    };
    const taught = inputs.slice(-4);
    if (indexer) recordScores(r, inputs, indexer, chunk, scores);
    else recordTarget(r, taught, teacher, chunk, scores);
    recordTarget(r, taught, teacher, chunk, target);
  },
};

/**
 * Index scores and attention of all pairs, for looking at short sequences: the only place where the
 * memory for pairs is not bounded. Only entries with s ≤ t mean anything.
 *
 * @param indexer whose scores; null: attention stands for them
 * @param teacher the inputs of `mlaAttention`, and its `lse`
 * @returns `scores` and `attention` (mean over the heads), `[batch · seqLen, seqLen]` each
 * @throws {RangeError} if shapes and sizes do not fit
 */
export function attentionMaps(
  indexer: ScoringTensors | null,
  { q, kv, kPe, lse }: TeacherTensors,
  attributes: SelectingAttributes,
): { scores: Tensor; attention: Tensor } {
  const scoring = indexer ? [indexer.qI, indexer.kI, indexer.w] : [];
  const inputs = [...scoring, q, kv, kPe, lse];
  const [scores, attention] = q.backend.apply(attentionMapsOp, inputs, attributes);
  return { scores, attention };
}
