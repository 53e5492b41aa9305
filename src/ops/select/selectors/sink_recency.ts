import { positionTopk } from "../positions.ts";
import type { Selector } from "./selector.ts";

/** The first and the last keys. */
export const sinkRecency: Selector = {
  by: "positions",
  select({ batch, seqLen, topk, like, sinks }) {
    return positionTopk(like, {
      batch,
      seqLen,
      topk,
      kind: "sinkRecency",
      sinks: Math.min(sinks, topk),
    });
  },
};
