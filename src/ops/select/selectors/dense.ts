import type { Selector } from "./selector.ts";

/** All keys: dense attention. */
export const dense: Selector = {
  by: "nothing",
  select: () => null,
};
