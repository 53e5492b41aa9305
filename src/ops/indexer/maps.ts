import {
  type IndexerAttributes,
  recordScores,
  recordTarget,
  requireIndexer,
  type TeacherTensors,
  twinScores,
} from "./teacher.ts";
import { matrixType, type Op, type Tensor, type TfMatrix } from "../op.ts";

/** Whole matrices of index scores and attention; see {@linkcode attentionMaps}. */
export const attentionMapsOp: Op<IndexerAttributes> = {
  name: "attentionMaps",
  stopsGradient: true,
  types(inputs, attributes) {
    requireIndexer("attentionMaps", inputs, attributes);
    const { batch, seqLen } = attributes;
    return [matrixType(batch * seqLen, seqLen), matrixType(batch * seqLen, seqLen)];
  },
  twin(tf, inputs, attributes) {
    const { batch, seqLen } = attributes;
    const { scores, target } = twinScores(tf, inputs, attributes);
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
    recordScores(r, inputs, indexer, chunk, scores);
    recordTarget(r, inputs.slice(3), teacher, chunk, target);
  },
};

/**
 * Index scores and attention of all pairs, for looking at short sequences: the only place where the
 * memory for pairs is not bounded. Only entries with s ≤ t mean anything.
 *
 * @param teacher the inputs of `mlaAttention`, and its `lse`
 * @returns `scores` and `attention` (mean over the heads), `[batch · seqLen, seqLen]` each
 * @throws {RangeError} if shapes and sizes do not fit
 */
export function attentionMaps(
  { qI, kI, w }: { qI: Tensor; kI: Tensor; w: Tensor },
  { q, kv, kPe, lse }: TeacherTensors,
  attributes: IndexerAttributes,
): { scores: Tensor; attention: Tensor } {
  const inputs = [qI, kI, w, q, kv, kPe, lse];
  const [scores, attention] = qI.backend.apply(attentionMapsOp, inputs, attributes);
  return { scores, attention };
}
