/**
 * What the families of kernels of the indexer's gradients have in common.
 *
 * @module
 */
import type { Indexer } from "./indexer.ts";
import type { Capabilities } from "../wgsl/device.ts";
import type { Layout } from "../wgsl/operand.ts";

/** What both passes read. R is the number of queries of a sequence. */
export interface IndexGradientSpec {
  /** [batch · R, heads · dim]: the queries of rows `firstRow …` of a sequence. */
  readonly q: Layout;
  /** [batch · keys, dim]: the keys of the sequence from its start. */
  readonly k: Layout;
  /** [batch · R, heads]. */
  readonly w: Layout;
  /** [batch · R, keys]: the gradient of the scores. What lies above the diagonal is not read. */
  readonly gradScores: Layout;
  /** The signs of the products, where `readsSigns` of `gradient.ts` asks for them; see `signs.ts`. */
  readonly signs?: Layout;
  /** Position of the first query in its sequence. */
  readonly firstRow: number;
  readonly indexer: Indexer;
  /** Sequences side by side, default 1. */
  readonly batch?: number;
  readonly capabilities: Capabilities;
}

/** What a family of kernels adds to a pass. */
export interface GradientCode {
  readonly declarations: string;
  readonly body: string;
  readonly workgroup: number;
  /** Queries or keys of one workgroup. */
  readonly tileRows: number;
  /** Floating-point operations for a visible pair of a head. */
  readonly flopsPerPair: number;
  /** Iterations of an invocation that goes through so many keys, or queries. */
  iterations(streamed: number): number;
}
