import type { Rng } from "../../src/rng.ts";
import { pick } from "./mutate.ts";

/** What stands at the edges of words and of kinds of characters. */
const EDGES = [..."slrevmtd'' \t\n\u00a0\u3000a9é鯨²!🐋𝔘𝟗\u0301"];

/**
 * Text of words, edges of words, runs and any characters. U+FEFF and U+0085 are left out: the
 * library that ids are compared with takes JavaScript's white space.
 */
export function randomText(rng: Rng, length: number): string {
  const parts = [
    () => pick(rng, EDGES),
    () => pick(rng, EDGES).repeat(1 + rng.below(9)),
    () => pick(rng, [" the", " whale", "tale", "'s", "'ll", " 'd", " 1851"]),
    () => String.fromCodePoint(rng.below(0x30000)),
  ];
  let text = "";
  for (let i = 0; i < length; i++) text += pick(rng, parts)();
  return text.toWellFormed().replaceAll(/[\ufeff\x85]/g, "x");
}
