/** Checks of the indexer's loss that its tests have in common. */
import { indexerLoss } from "../../src/ops/indexer/loss.ts";
import type { IndexerLossAttributes } from "../../src/ops/indexer/loss_attributes.ts";
import type { Tensor } from "../../src/ops/op.ts";
import { checkOp, type CheckOptions } from "../check_op.ts";
import { indexerInputs, indicesOf, maskOf, randomSelection } from "./indexer_case.ts";

/** The loss over all keys, or over the mask and the indices that the inputs end with. */
export function lossOf(
  [qI, kI, w, q, kv, kPe, lse, mask, indices]: readonly Tensor[],
  attributes: IndexerLossAttributes,
): Tensor {
  const selection = mask ? { mask, indices } : null;
  return indexerLoss(qI, kI, w, { q, kv, kPe, lse }, selection, attributes);
}

/** Checks value and gradients; `k` keys per row are selected, or none are. */
export function checkLoss(
  name: string,
  attributes: IndexerLossAttributes,
  k: number | null,
  restrictedLse: boolean,
  options: Partial<CheckOptions> = {},
  selection = k === null ? null : randomSelection(attributes, k),
): Promise<void> {
  const inputs = indexerInputs(attributes, restrictedLse ? selection : null);
  if (selection) inputs.push(maskOf(selection, attributes.seqLen), indicesOf(selection, k!));
  return checkOp(name, {
    inputs,
    apply: (inputs) => [lossOf(inputs, attributes)],
    losses: { 0: attributes.weight },
    ...options,
  });
}
