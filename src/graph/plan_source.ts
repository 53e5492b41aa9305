/**
 * A recorded program before it has its memory.
 *
 * @module
 */
import type { Storage } from "../ops/op.ts";
import type { Lifetime } from "./memory.ts";
import type { Dispatch } from "./plan_recorder.ts";

/** What a plan is made from. */
export interface PlanSource {
  readonly dispatches: readonly Dispatch[];
  readonly temporaries: ReadonlySet<Storage>;
  readonly kept: ReadonlySet<Storage>;
}

/** The first and last dispatch that touch each temporary; what is kept lives to the end. */
export function lifetimes({ dispatches, temporaries, kept }: PlanSource): Map<Storage, Lifetime> {
  const out = new Map<Storage, Lifetime>();
  dispatches.forEach(({ operands }, i) => {
    for (const { storage } of operands) {
      if (!temporaries.has(storage)) continue;
      const span = out.get(storage);
      if (span) span.last = i;
      else out.set(storage, { first: i, last: i });
    }
  });
  for (const storage of kept) {
    const span = out.get(storage);
    if (span) span.last = Infinity;
  }
  return out;
}
