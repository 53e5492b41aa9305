/** Which runs of an ablation share their beginnings. */
import assert from "node:assert/strict";
import { planRuns } from "../src/ablate/plan.ts";
import { assignTrunks, stageIdentities, type Trunk } from "../src/ablate/trunks.ts";
import { type Delta, type Experiment, resolveDelta } from "../src/config/experiment.ts";
import { MANY } from "./ablate_experiment.ts";

/** `dense>warmup` for a trunk that ends with warm-up and starts from one of the dense stage. */
function path(trunk: Trunk | null): string {
  if (!trunk) return "";
  const own = trunk.name.split("_")[0];
  return trunk.parent ? `${path(trunk.parent)}>${own}` : own;
}

Deno.test("runs share the stages that are bitwise the same, and no others", () => {
  const common = (a: Delta, b: Delta) => {
    const [one, other] = [a, b].map((delta) =>
      stageIdentities(resolveDelta({ recipe: "dsa", ...delta }))
    );
    const first = one.findIndex((identity, i) => identity !== other[i]);
    return first < 0 ? one.length : first;
  };
  const cases: [number, Delta, Delta?][] = [
    [3, { evalEvery: 7, name: "a", logEvery: 1, measureEvery: 3, recompute: true }],
    [2, { "sparse.indexTopk": 5 }],
    // What a warm-up's indexer captures depends on k, though its weights do not.
    [1, { indexTopk: 5 }],
    [1, { "warmup.indexTopk": 5 }],
    [2, { "sparse.steps": 5 }],
    [2, { selector: "block" }],
    [2, { klTarget: "renormalized" }],
    [1, { "warmup.steps": 5 }],
    [1, { indexerLr: 0.1 }],
    [1, { indexNHeads: 3 }],
    [1, { klDirection: "reverse" }],
    [0, { seed: 1 }],
    [0, { evalBatches: 3 }],
    [0, { lr: 0.1 }],
    [0, { kvLoraRank: 8 }],
    [0, { batchSize: 3 }],
    [0, { weightDecay: 0.3 }],
    [0, { data: "copy" }],
    [0, { "dense.steps": 9, "dense.warmupSteps": 1 }],
  ];
  for (const [count, delta, other = {}] of cases) {
    assert.equal(common(delta, other), count, JSON.stringify(delta));
  }

  const trunksOf = (experiment: Partial<Experiment>) =>
    assignTrunks(planRuns({ question: "?", config: {}, ...experiment }).runs);
  for (
    const [key, shared, until] of [
      ["sparse.indexTopk", "warmup", 840],
      ["indexTopk", "dense", 700],
    ] as const
  ) {
    const grid = trunksOf({ axes: { kvLoraRank: [8, 16], [key]: [4, 8] }, seeds: [0, 1] });
    assert.equal(new Set(grid).size, 4);
    assert(grid.every((trunk) => path(trunk) === shared && trunk!.until === until), key);
  }
  assert.deepEqual(trunksOf({ axes: { lr: [0.1, 0.2] } }), [null, null]);
  // A dense run ends where the others' dense stage does.
  const b = { "sparse.indexTopk": 8 };
  const mixed = trunksOf({ variants: { plain: { recipe: "dense" }, a: {}, b } });
  assert.deepEqual(mixed.map(path), ["dense", "dense>warmup", "dense>warmup"]);
  // Trunks end where a later stage starts from.
  assert.deepEqual(assignTrunks(planRuns(MANY).runs).map(path), [
    "dense>warmup>twin",
    "dense>warmup>twin",
    "dense",
    "dense",
    "",
  ]);
});
