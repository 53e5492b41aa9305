/**
 * The selector interface: who chooses the keys of sparse attention.
 *
 * @module
 */
import type { Indexer, Teacher } from "../../../kernels/indexer/indexer.ts";
import type { Pool } from "../../../kernels/select/block_pool.ts";
import type { TieRule } from "../../../kernels/select/top_k.ts";
import type { ScoringTensors, TeacherTensors } from "../../indexer/teacher.ts";
import type { Tensor } from "../../op.ts";

/** The indexer's tensors, as `indexTopk` takes them. */
export interface IndexerTensors extends ScoringTensors {
  /** What they do not tell. */
  readonly indexer: Indexer;
}

/** The attention's tensors, as `oracleTopk` takes them. */
export interface AttentionTensors extends TeacherTensors {
  /** What they do not tell. */
  readonly teacher: Teacher;
}

/** What a selector may look at. Tensors are made only for those that ask for them. */
export interface SelectionContext {
  /** Sequences. */
  readonly batch: number;
  /** Positions of a sequence. */
  readonly seqLen: number;
  /** Keys per query. */
  readonly topk: number;
  /** Which of keys with equal scores is selected first, where scores select. */
  readonly ties: TieRule;
  /** Any matrix with a row per token. */
  readonly like: Tensor;
  /** The indexer's tensors. */
  indexer(): IndexerTensors;
  /** The attention's tensors; computes dense attention for its `lse`. */
  attention(): AttentionTensors;
  /** Of the random selector; should differ from layer to layer. */
  readonly seed: number;
  /** Keys that sink+recency takes from the start. */
  readonly sinks: number;
  /** Blocks of the block selector. */
  readonly block: { readonly size: number; readonly pool: Pool };
}

/** Chooses the keys of sparse attention. To add one, write its file and list it in `selectors.ts`. */
export interface Selector {
  /** What it goes by, which decides what it reads: costs follow from it. */
  readonly by: "index" | "attention" | "positions" | "chance" | "nothing";
  /**
   * The selection.
   *
   * @returns i32 [batch · seqLen, topk]: min(topk, t + 1) of the positions 0 … t, ascending, then -1;
   * null for all of them
   */
  select(context: SelectionContext): Tensor | null;
}
