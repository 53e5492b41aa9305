/**
 * What the indexer's loss is to be.
 *
 * @module
 */
import type { SelectionForm } from "../../kernels/attention/attention.ts";
import type { IndexerAttributes } from "./teacher.ts";

/** Attributes of `indexerLoss`. */
export interface IndexerLossAttributes extends IndexerAttributes {
  /**
   * `sum`, the default: one divergence a row, of the heads' scores and attention summed up. `each`:
   * the mean of one for each index head and the attention head of its number.
   */
  klHeads?: "sum" | "each";
  /** `forward`: KL(p‖q), p the teacher; `reverse`: KL(q‖p), p at least `TARGET_FLOOR`. */
  direction: "forward" | "reverse";
  /** Factor of this loss in the objective. */
  weight: number;
  /** Whether the gradients are computed along with the value. Without them none passes. */
  gradient: boolean;
  /**
   * Over a selection, `"masked"` computes all causal pairs, a chunk of queries at a time, and
   * `"gathered"` only the selected pairs. `"auto"`, the default, takes what is faster. With
   * `klHeads: "each"` it is masked.
   */
  form?: SelectionForm | "auto";
}
