import assert from "node:assert/strict";
import { Buckets } from "../src/measure/positions.ts";
import { Rng } from "../src/rng.ts";
import { near } from "./eval_run.ts";

Deno.test("buckets are [0, 1), [1, 2), [2, 4), [4, 8) … and hold all values", () => {
  const seed = Date.now() % 2 ** 32;
  const buckets = new Buckets();
  const rng = new Rng(seed, "buckets");
  const values = Array.from(
    { length: 200 },
    () => ({ place: rng.below(100), value: rng.below(7) }),
  );
  for (const { place, value } of values) buckets.add(place, value);
  const got = buckets.read(100);
  for (const { from, to, count, mean } of got) {
    const inside = values.filter(({ place }) => place >= from && place < to);
    assert.equal(count, inside.length, `seed ${seed}`);
    near(mean, inside.reduce((sum, { value }) => sum + value, 0) / count, 1e-12, `seed ${seed}`);
  }
  assert.equal(got.reduce((sum, { count }) => sum + count, 0), 200);
  assert(got.at(-1)!.to <= 100, `seed ${seed}`);
  near(buckets.total().mean, values.reduce((sum, { value }) => sum + value, 0) / 200, 1e-12);

  const edges = new Buckets();
  for (const place of [0, 1, 2, 3, 4, 7, 8]) edges.add(place, 1);
  assert.deepEqual(
    edges.read().map(({ from, to, count }) => [from, to, count]),
    [[0, 1, 1], [1, 2, 1], [2, 4, 2], [4, 8, 2], [8, 16, 1]],
  );
});
