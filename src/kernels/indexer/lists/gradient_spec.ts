/**
 * What the gradients along lists read.
 *
 * @module
 */
import type { Indexer } from "../indexer.ts";
import type { Capabilities } from "../../wgsl/device.ts";
import type { Layout } from "../../wgsl/operand.ts";

/** What both passes read. */
export interface GatherGradientSpec {
  /** [rows, heads · dim]. */
  readonly q: Layout;
  /** [rows, dim]. */
  readonly k: Layout;
  /** [rows, heads]. */
  readonly w: Layout;
  /** Tokens of a sequence. */
  readonly seqLen: number;
  readonly indexer: Indexer;
  readonly capabilities: Capabilities;
}
