/**
 * The indexer's loss over a selection of keys, recorded along the lists of the selection.
 *
 * @module
 */
import { gatherGradientK, gatherGradientQ } from "../../kernels/indexer/lists/gradient.ts";
import { listGradients } from "../../kernels/indexer/lists/list_gradients.ts";
import { gatherScores, gatherTarget } from "../../kernels/indexer/lists/pairs.ts";
import { targetOfScores } from "../../kernels/indexer/lists/teacher_of_scores.ts";
import { indexerKl } from "../../kernels/indexer/kl.ts";
import type { Named } from "../../kernels/attention/attention.ts";
import { byBatch } from "../by_batch.ts";
import { recordLists } from "../attention/selection.ts";
import type { IndexerLossAttributes } from "./loss_attributes.ts";
import { leavesScores } from "../attention/listed_scores.ts";
import type { Matrix, Recorder } from "../op.ts";

/**
 * Records the divergence of each row and, if wanted, the gradients of qI, kI and w. Scores and
 * teacher are compact: column i of a row is for the i-th key of its list.
 *
 * @param inputs qI, kI, w, q, kv, kPe, lse, mask, indices and perhaps the teacher's scores
 * @param rows [N, 1]: the divergences
 */
export function recordGatheredLoss(
  r: Recorder,
  [qI, kI, w, q, kv, kPe, lse, mask, indices, scores]: readonly Matrix[],
  rows: Matrix,
  [dq, dk, dw]: readonly Matrix[],
  attributes: IndexerLossAttributes,
): void {
  const { batch, seqLen, indexer, teacher, direction, weight, gradient } = attributes;
  const { capabilities } = r;
  const spec = {
    ...teacher,
    extent: { batch, seqLen },
    selection: { form: "gathered", topk: indices.cols },
  } as const;
  const left: Named<Matrix> = scores && leavesScores(spec, capabilities) ? { scores } : {};
  const written: Named<Matrix> = gradient ? { dq, dk, dw } : {};
  const bound = {
    own: { qI, kI, w, kl: rows },
    teacher: { q, kv, kPe, lse },
    selection: { mask, indices },
    left,
    gradients: written,
  };
  byBatch(r, spec, bound, ({ extent }, parts) => {
    const { qI, kI, w, kl } = parts.own;
    const { q, kv, kPe, lse } = parts.teacher;
    const { mask, indices } = parts.selection;
    const width = Math.min(indices.cols, seqLen);
    const scores = r.temporary(indices.rows, width);
    const target = r.temporary(indices.rows, width);
    const index = { q: qI, k: kI, w, seqLen, indexer, capabilities };
    r.dispatch(gatherScores({ ...index, indices, scores }));
    if (parts.left.scores) {
      r.dispatch(targetOfScores({ scores: parts.left.scores, lse, indices, target, seqLen }));
    } else {
      const taught = { q, kv, kPe, lse, teacher };
      r.dispatch(gatherTarget({ ...taught, indices, target, seqLen, capabilities }));
    }
    // Past the end of a list scores are very low and the teacher is 0: no mask is needed.
    const divergence = indexerKl({
      ...{ scores, target, mask: null, kl, firstRow: 0, batch: extent.batch, direction },
      gradient: gradient ? weight / (rows.rows * rows.cols) : null,
      software: capabilities.software,
    });
    r.dispatch(divergence);
    if (!gradient) return;
    const { dq, dk, dw } = parts.gradients;
    const lists = { indices, gradScores: target };
    r.dispatch(gatherGradientQ(index, lists, dq, dw));
    const { starts, queries } = recordLists(r, extent, { mask, indices });
    // The memory of the index scores is free again.
    const perKey = scores;
    const { software } = capabilities;
    const list = listGradients({ ...lists, starts, queries, listed: perKey, seqLen, software });
    r.dispatch(list);
    const gradK = gatherGradientK(index, { starts, queries, listed: perKey }, dk);
    r.dispatch(gradK);
  });
}
