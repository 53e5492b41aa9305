import { gatherGradientK, gatherGradientQ } from "../kernels/indexer/lists/gradient.ts";
import { listGradients } from "../kernels/indexer/lists/list_gradients.ts";
import { gatherScores, gatherTarget } from "../kernels/indexer/lists/pairs.ts";
import { indexerKl } from "../kernels/indexer/kl.ts";
import type { Indexer, Teacher } from "../kernels/indexer/indexer.ts";
import {
  countQueries,
  listQueries,
  maskWords,
  scanStarts,
  startsCols,
} from "../kernels/select/lists.ts";
import { selectionMaskKernel } from "../kernels/select/mask.ts";
import type { Capabilities } from "../kernels/wgsl/device.ts";
import { type Case, randomValues, type Sizes } from "./kernel_case.ts";
import { callOn, layout } from "./run_kernels.ts";

/**
 * The indexer's loss over a selection with its gradients, along lists: all kernels that a GPU runs,
 * and the one that makes the mask for them.
 */
export function gatheredLossCase(
  { batch, seqLen, heads, nope, rope, value, indexHeads, indexDim: dim, topk }: Sizes,
  capabilities: Capabilities,
): Case {
  const rows = batch * seqLen;
  const of = (cols: number) => layout(rows, cols);
  const m = {
    ...{ qI: of(indexHeads * dim), kI: of(dim), w: of(indexHeads) },
    ...{ q: of(heads * (nope + rope)), kv: of(heads * (nope + value)), kPe: of(rope) },
    ...{ lse: of(heads), indices: of(topk), mask: of(maskWords(seqLen)), scores: of(topk) },
    ...{ target: of(topk), kl: of(1), gradQ: of(indexHeads * dim), gradW: of(indexHeads) },
    ...{ starts: layout(batch, startsCols(seqLen)), queries: of(topk), gradK: of(dim) },
  };
  const { software } = capabilities;
  const { indices, scores, target, starts, queries } = m;
  const indexer: Indexer = { heads: indexHeads, dim, activation: "relu", scale: 0.1 };
  const dims = { heads, kvHeads: heads, nope, rope, value, packed: true };
  const teacher: Teacher = { dims, scale: 0.1 };
  const index = { q: m.qI, k: m.kI, w: m.w, seqLen, indexer, capabilities };
  const lists = { indices, gradScores: target, starts, queries, listed: scores };
  const kl = { ...m, mask: null, firstRow: 0, batch, direction: "forward", gradient: 1 } as const;
  const kernels = [
    selectionMaskKernel(m),
    gatherScores({ ...index, indices, scores }),
    gatherTarget({ ...m, teacher, seqLen, capabilities }),
    indexerKl({ ...kl, software }),
    gatherGradientQ(index, lists, m.gradQ, m.gradW),
    countQueries(m.mask, starts, seqLen),
    scanStarts(starts),
    listQueries(m.mask, starts, queries, seqLen),
    listGradients({ ...lists, seqLen, software }),
    gatherGradientK(index, lists, m.gradK),
  ];
  // Keys spread evenly over those that a query sees.
  const keys = Int32Array.from({ length: rows * topk }, (_, i) => {
    const [seen, n] = [Math.floor(i / topk) % seqLen + 1, i % topk];
    return seen > topk ? Math.floor(n * seen / topk) : n < seen ? n : -1;
  });
  const matrices = Object.values(m);
  return {
    name: `indexer_loss_gathered ${rows}x${topk}x${indexHeads}x${dim}`,
    calls: kernels.map((kernel) => callOn(kernel, matrices)),
    arrays: Object.entries(m).map(([name, matrix]) =>
      name === "indices"
        ? keys
        : name === "lse"
        ? randomValues(matrix).fill(Math.log(topk))
        : randomValues(matrix)
    ),
  };
}
