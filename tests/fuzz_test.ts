/** Every fuzzer at a small size; `deno task fuzz minutes=…` runs them at any. */
import assert from "node:assert/strict";
import { fuzzers } from "./fuzz/all.ts";
import { campaign } from "./fuzz/campaign.ts";
import type { Fuzzer } from "./fuzz/fuzzer.ts";

/** Longest time of one fuzzer, in milliseconds. A round is shorter on an idle machine. */
const MILLISECONDS = 2000;

for (const fuzzer of fuzzers) {
  Deno.test(`fuzz: ${fuzzer.name}`, async () => {
    const tally = await campaign(fuzzer, { seed: 1, milliseconds: MILLISECONDS, rounds: 1 });
    assert(tally.cases > 0);
    assert.deepEqual(tally.failures, []);
  });
}

Deno.test("a campaign tells the seed that brings a failure back", async () => {
  const broken: Fuzzer = {
    name: "broken",
    run({ seed, until }) {
      let cases = 0;
      while (!until()) cases++;
      const failures = seed === 7 ? [{ input: "x", error: "Error: 1\n  at line 2" }] : [];
      return Promise.resolve({ cases, failures: [...failures, ...failures] });
    },
  };
  const tally = await campaign(broken, { seed: 5, milliseconds: 60_000, rounds: 4 });
  assert.equal(tally.cases, 1000);
  assert.equal(tally.failed, 2);
  assert.deepEqual(tally.failures, [{ seed: 7, input: "x", error: "Error: 1\n  at line 2" }]);
});
