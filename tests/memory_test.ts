import assert from "node:assert/strict";
import type { Storage } from "../src/ops/op.ts";
import { type Lifetime, planMemory } from "../src/graph/memory.ts";

function random(count: number): Map<Storage, Lifetime> {
  return new Map(Array.from({ length: count }, (_, i) => {
    const first = Math.floor(Math.random() * 50);
    const last = first + Math.floor(Math.random() * 10);
    return [{ label: `${i}`, size: 1 + Math.floor(Math.random() * 100) }, { first, last }];
  }));
}

Deno.test("planMemory() never lets two live storages share a slot", () => {
  const lifetimes = random(200);
  const slots = planMemory(lifetimes);
  assert.equal(slots.reduce((sum, s) => sum + s.storages.length, 0), 200);
  for (const { size, storages } of slots) {
    for (const a of storages) {
      assert(a.size <= size);
      for (const b of storages) {
        const [x, y] = [lifetimes.get(a)!, lifetimes.get(b)!];
        assert(a === b || x.last < y.first || y.last < x.first);
      }
    }
  }
});

Deno.test("planMemory() needs little more than what is live at once", () => {
  const lifetimes = random(200);
  const total = planMemory(lifetimes).reduce((sum, s) => sum + s.size, 0);
  let most = 0;
  for (let t = 0; t < 60; t++) {
    let live = 0;
    for (const [{ size }, { first, last }] of lifetimes) if (first <= t && t <= last) live += size;
    most = Math.max(most, live);
  }
  assert(total <= 1.5 * most, `${total} for ${most} live`);
});

Deno.test("planMemory() does not reuse the operand of the dispatch that writes the result", () => {
  const a = { label: "a", size: 8 }, b = { label: "b", size: 8 };
  const slots = planMemory(new Map([[a, { first: 0, last: 1 }], [b, { first: 1, last: 2 }]]));
  assert.equal(slots.length, 2);
});
