/**
 * What the model must know of the stage that it is traced for.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import type { SelectorName } from "../ops/select/selectors/selectors.ts";
import type { Stage } from "../config/stage_fields.ts";

/** How attention and indexer are to be computed. */
export interface StageView {
  /** Who picks keys; `dense` is dense attention. */
  readonly selector: SelectorName;
  /** Keys of a query. */
  readonly indexTopk: number;
  /** Keys that the indexer's loss is over; `none`: no loss. */
  readonly kl: Stage["kl"];
  /** Whether the indexer is trained: its loss then comes with gradients. */
  readonly trainsIndexer: boolean;
  /** Whether the indexer is compared with dense attention (see `indexerMetrics`). */
  readonly measures: boolean;
  /** Whether whole maps of scores, attention and selection are kept, to be looked at. */
  readonly maps?: boolean;
  /** Whether the masks of what is selected are kept: `selected.0` … of the layers. */
  readonly selections?: boolean;
  /** Whether the sums for the latents' information density are made. */
  readonly density?: boolean;
  /** What of each layer of latent attention is kept as it is, to be measured. */
  readonly keeps?: readonly KeptTensor[];
  /** A layer that keeps its latents in so many bits, whatever `latentBits` is. */
  readonly latentBits?: {
    readonly layer: number;
    readonly bits: NonNullable<RunConfig["latentBits"]>;
  };
}

/**
 * What latent attention can keep, in the words of `latent_attention.ts`: map `latent.3` is the
 * latent of layer 3.
 */
export type KeptTensor = "latent" | "q" | "kv" | "kPe" | "o";

/** Plain dense attention, without indexer. */
export const denseView: StageView = {
  selector: "dense",
  indexTopk: 1,
  kl: "none",
  trainsIndexer: false,
  measures: false,
};

/** The view of a stage, for training it. */
export function viewOf(stage: Stage, config: RunConfig): StageView {
  return {
    selector: stage.attention === "dense" ? "dense" : config.selector,
    indexTopk: Math.min(stage.indexTopk, config.seqLen),
    kl: stage.kl,
    trainsIndexer: stage.trains !== "backbone",
    measures: false,
  };
}
