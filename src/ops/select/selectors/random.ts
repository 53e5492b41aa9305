import { positionTopk } from "../positions.ts";
import type { Selector } from "./selector.ts";

/** Keys at random: the floor for all others. */
export const random: Selector = {
  by: "chance",
  select({ batch, seqLen, topk, like, seed }) {
    return positionTopk(like, { batch, seqLen, topk, kind: "random", seed });
  },
};
