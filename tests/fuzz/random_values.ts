/** Values of configuration keys: usual ones, those at the limits, and wrong ones. */
import type { Field } from "../../src/config/fields.ts";
import type { Rng } from "../../src/rng.ts";
import { pick } from "./mutate.ts";
import { randomText } from "./random_text.ts";

const WHOLE = [0, 1, 2, 3, 4, 5, 7, 8, 12, 16, 24, 33, 64, 100, 65_536, 2 ** 31 - 1, 2 ** 31, 1e15];
const REAL = [0, 5e-324, 1e-30, 1e-8, 1e-3, 0.1, 0.5, 0.999, 1, 1.5, 3, 1e4, 1e38, 4e38, 1e308];
const WRONG = [-1, 0.5, Infinity, NaN, "", "none", "1e3", "two\nlines", true, null, [], [1], {}];

/** A value for a field, of its own kind nine times in ten. */
export function randomValue(rng: Rng, field: Field<unknown>): unknown {
  const { kind, values, nullable } = field;
  if (rng.below(10) === 0) return pick(rng, WRONG);
  if (nullable && rng.below(4) === 0) return null;
  if (rng.below(5) === 0) return field.default;
  if (values) return pick(rng, values);
  switch (kind) {
    case "boolean":
      return rng.below(2) === 0;
    case "text":
      return rng.below(2) ? pick(rng, ["a", "copy", "recall", "needle"]) : randomText(rng, 3);
    case "numbers":
      return Array.from({ length: rng.below(4) }, () => pick(rng, REAL));
    case "integer":
      return rng.below(3) ? 1 + rng.below(40) : pick(rng, WHOLE);
    case "number":
      return pick(rng, REAL);
  }
}
