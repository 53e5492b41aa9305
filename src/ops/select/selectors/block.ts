import { indexTopk } from "../index.ts";
import type { Selector } from "./selector.ts";

/** The blocks of keys that the lightning indexer scores highest. */
export const block: Selector = {
  by: "index",
  select({ batch, seqLen, topk, ties, indexer, block }) {
    const { qI, kI, w, indexer: own } = indexer();
    return indexTopk(qI, kI, w, { batch, seqLen, topk, ties, indexer: own, block });
  },
};
