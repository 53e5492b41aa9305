/**
 * Memory planning: which storages of a plan may share a buffer.
 *
 * @module
 */
import type { Storage } from "../ops/op.ts";

/** The first and last dispatch that touch a storage. */
export interface Lifetime {
  first: number;
  last: number;
}

/** One buffer and the storages that take turns in it. */
export interface Slot {
  /** Elements of 4 bytes. */
  size: number;
  storages: Storage[];
}

/**
 * Assigns storages to slots so that no two live at once share one. Largest first, each into the
 * slot that wastes least: close to the least memory possible for the few sizes a transformer has.
 */
export function planMemory(lifetimes: ReadonlyMap<Storage, Lifetime>): Slot[] {
  const slots: (Slot & { spans: Lifetime[] })[] = [];
  // Map order (creation) breaks ties, so the plan is the same every time.
  const largestFirst = [...lifetimes].sort(([a], [b]) => b.size - a.size);
  for (const [storage, span] of largestFirst) {
    const free = slots.filter((slot) =>
      slot.spans.every((s) => s.last < span.first || span.last < s.first)
    );
    const best = free.reduce<typeof free[0] | null>(
      (least, slot) => least && least.size <= slot.size ? least : slot,
      null,
    );
    if (best) {
      best.spans.push(span);
      best.storages.push(storage);
    } else {
      slots.push({ size: storage.size, storages: [storage], spans: [span] });
    }
  }
  return slots.map(({ size, storages }) => ({ size, storages }));
}
