import { positionTopk } from "../positions.ts";
import type { Selector } from "./selector.ts";

/** The last keys: a sliding window. */
export const recency: Selector = {
  by: "positions",
  select({ batch, seqLen, topk, like }) {
    return positionTopk(like, { batch, seqLen, topk, kind: "recency" });
  },
};
