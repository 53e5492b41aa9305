/**
 * All selectors, by name.
 *
 * @module
 */
import { block } from "./block.ts";
import { dense } from "./dense.ts";
import { learned } from "./learned.ts";
import { oracle } from "./oracle.ts";
import { random } from "./random.ts";
import { recency } from "./recency.ts";
import type { Selector } from "./selector.ts";
import { sinkRecency } from "./sink_recency.ts";

/** The selectors that configurations can name. */
export const selectors = {
  dense,
  learned,
  block,
  random,
  recency,
  sinkRecency,
  oracle,
} satisfies Record<string, Selector>;

/** A name of one of {@linkcode selectors}. */
export type SelectorName = keyof typeof selectors;

/** Names of those that leave keys out. */
export const sparseSelectors = Object.keys(selectors).filter((name) => name !== "dense") as Exclude<
  SelectorName,
  "dense"
>[];
