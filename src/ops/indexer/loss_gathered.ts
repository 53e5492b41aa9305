/**
 * The indexer's loss over a selection of keys, recorded along the lists of the selection.
 *
 * @module
 */
import { gatherGradientK, gatherGradientQ } from "../../kernels/indexer/lists/gradient.ts";
import { listGradients } from "../../kernels/indexer/lists/list_gradients.ts";
import { gatherScores, gatherTarget } from "../../kernels/indexer/lists/pairs.ts";
import { targetOfScores } from "../../kernels/indexer/teacher_of_scores.ts";
import { indexerKl } from "../../kernels/indexer/kl.ts";
import { byBatch } from "../attention/passes.ts";
import { recordLists } from "../attention/selection.ts";
import type { IndexerLossAttributes } from "./loss_attributes.ts";
import { listedScores } from "../attention/listed_scores.ts";
import type { Matrix, Recorder } from "../op.ts";

/**
 * Records the divergence of each row and, if wanted, the gradients of qI, kI and w. Scores and
 * teacher are compact: column i of a row is for the i-th key of its list.
 *
 * @param inputs qI, kI, w, q, kv, kPe, lse, mask and indices
 * @param rows [N, 1]: the divergences
 */
export function recordGatheredLoss(
  r: Recorder,
  inputs: readonly Matrix[],
  rows: Matrix,
  gradients: readonly Matrix[],
  attributes: IndexerLossAttributes,
): void {
  const { batch, seqLen, direction, weight, gradient } = attributes;
  const { capabilities } = r;
  const bound = [...inputs, rows, ...gradients];
  byBatch(r, { extent: { batch, seqLen } }, bound, ({ extent }, parts) => {
    const [qI, kI, w, q, kv, kPe, lse, mask, indices, kl, dq, dk, dw] = parts;
    const width = Math.min(indices.cols, seqLen);
    const scores = r.temporary(indices.rows, width);
    const target = r.temporary(indices.rows, width);
    const index = {
      ...{ q: qI, k: kI, w, seqLen, capabilities },
      ...{ heads: attributes.indexHeads, dim: attributes.indexHeadDim },
      ...{ activation: attributes.activation, scale: attributes.indexScale },
    };
    r.dispatch(gatherScores({ ...index, indices, scores }), qI, kI, w, indices, scores);
    const listed = listedScores(r, attributes.scale, [q, kv, kPe, indices], lse);
    if (listed) {
      const teacher = { scores: listed, lse, indices, target };
      r.dispatch(targetOfScores({ ...teacher, seqLen }), ...Object.values(teacher));
    } else {
      const teacher = { q, kv, kPe, lse, indices, target };
      r.dispatch(
        gatherTarget({ ...attributes, ...teacher, capabilities }),
        ...Object.values(teacher),
      );
    }
    // Past the end of a list scores are very low and the teacher is 0: no mask is needed.
    const divergence = indexerKl({
      ...{ scores, target, mask: null, kl, firstRow: 0, batch: extent.batch, direction },
      gradient: gradient ? weight / (rows.rows * rows.cols) : null,
      software: capabilities.software,
    });
    r.dispatch(divergence, scores, target, kl);
    if (!gradient) return;
    const lists = { indices, gradScores: target };
    r.dispatch(gatherGradientQ(index, lists, dq, dw), qI, kI, w, indices, target, dq, dw);
    const [starts, queries] = recordLists(r, extent, { mask, indices });
    // The memory of the index scores is free again.
    const perKey = scores;
    const { software } = capabilities;
    const list = listGradients({ ...lists, starts, queries, listed: perKey, seqLen, software });
    r.dispatch(list, indices, target, starts, queries, perKey);
    const gradK = gatherGradientK(index, { starts, queries, listed: perKey }, dk);
    r.dispatch(gradK, qI, kI, w, starts, queries, perKey, dk);
  });
}
