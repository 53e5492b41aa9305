import { indexTopk } from "../index.ts";
import type { Selector } from "./selector.ts";

/** The blocks of keys that the lightning indexer scores highest. */
export const block: Selector = {
  select({ batch, seqLen, topk, indexer, block }) {
    const { qI, kI, w, heads, activation, scale } = indexer();
    return indexTopk(qI, kI, w, { batch, seqLen, topk, heads, activation, scale, block });
  },
};
