import { oracleTopk } from "../oracle.ts";
import type { Selector } from "./selector.ts";

/** The keys that dense attention weighs most: the ceiling for all others. */
export const oracle: Selector = {
  by: "attention",
  select({ batch, seqLen, topk, ties, attention }) {
    const { q, kv, kPe, lse, teacher } = attention();
    return oracleTopk(q, kv, kPe, lse, { batch, seqLen, topk, ties, teacher });
  },
};
