import type { Selector } from "./selector.ts";

/** All keys: dense attention. */
export const dense: Selector = {
  name: "dense",
  select: () => null,
};
