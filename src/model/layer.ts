/**
 * What a layer gets and what it makes. N = batch · seqLen tokens.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import type { Tensor } from "../ops/op.ts";
import type { Rotation } from "../ops/token/rope.ts";
import type { IndexerTensors } from "../ops/select/selectors/selector.ts";
import type { StageView } from "./stage_view.ts";

/** What a layer needs for what it makes of each token by itself. */
export interface TokenContext {
  /** Dims and conventions. */
  readonly config: RunConfig;
  /** The layer's parameters, by the end of their name, e.g. `q_b_proj`. */
  readonly weight: (name: string, kind?: "weight" | "bias") => Tensor;
  /** Rotary embedding of rows at their tokens' positions. */
  readonly rotate: (x: Tensor, spec: Rotation) => Tensor;
}

/** What an attention layer gets besides its input. */
export interface LayerContext extends TokenContext {
  /** The stage it is traced for. */
  readonly stage: StageView;
  /** Number of the layer, from 0. */
  readonly index: number;
  /** Sequences. */
  readonly batch: number;
  /** Tokens of a sequence. */
  readonly seqLen: number;
  /** The selections of the nearest layer before it that has its own. */
  readonly shared: readonly Selection[] | null;
}

/** What an attention layer makes. */
export interface LayerResult {
  /** `[N, hiddenSize]`, with the residual. */
  readonly output: Tensor;
  /** Losses of its own, with their weights: the indexer's KL. */
  readonly losses?: readonly { tensor: Tensor; weight: number }[];
  /** What is to be reported, by the end of its name, which begins with `index/` and the layer. */
  readonly metrics?: Readonly<Record<string, Tensor>>;
  /** What is to be looked at, if the stage keeps maps, by the start of its name. */
  readonly maps?: Readonly<Record<string, Tensor>>;
  /** What its groups of heads attend to: selections of its own, or the shared ones. */
  readonly selections?: readonly Selection[];
}

/** Who looks at what, in a group of heads. Layers may share one (IndexCache, arXiv 2603.12201). */
export interface Selection {
  /** The indexer, made when it is first asked for. */
  readonly indexer: () => IndexerTensors;
  /** `[N, indexTopk]`, chosen by the stage's selector; null: dense attention. */
  readonly indices: Tensor | null;
  /** The same as bits; null with `indices`. */
  readonly mask: Tensor | null;
  /**
   * The mask that measurements describe, made when it is first asked for: `mask`, or in dense
   * attention what the indexer would select.
   */
  readonly measured: () => Tensor;
}
