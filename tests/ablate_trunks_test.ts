/** Which runs of an ablation share their beginnings. */
import assert from "node:assert/strict";
import { planRuns } from "../src/ablate/plan.ts";
import { assignTrunks, stageIdentities, type Trunk } from "../src/ablate/trunks.ts";
import {
  type ConfigInput,
  type ConfigKey,
  configKeys,
  fields,
  resolveConfig,
  type RunConfig,
} from "../src/config/config.ts";
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
    [2, { indexTies: "newest" }],
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

Deno.test("what beginnings are shared over, whatever its value, changes no weight and no measurement", () => {
  const shared = configKeys.filter((key) => ["run", "log"].includes(fields[key].effect));
  assert.deepEqual(shared.join(" ").split(" "), [
    ...["name", "resume", "otherData", "preset", "autotune", "profile", "plan"],
    ...["recompute", "logEvery", "evalEvery", "saveEvery", "saveMinutes", "keepCheckpoints"],
    ...["sampleEvery", "sampleTokens", "samplePrompt", "temperature", "measureEvery"],
  ]);
});

/** Another value than that of the configuration. */
function otherValue(key: ConfigKey): unknown {
  const { kind, values } = fields[key];
  const value = config[key];
  if (values) return values.find((other) => other !== value);
  if (kind === "boolean") return !value;
  if (kind === "text") return `${value}_`;
  if (kind === "numbers") return [0.5];
  return Number(value ?? 1) * 2 + 2;
}

const config = resolveConfig({ recipe: "dsa" });

for (const key of configKeys) {
  const { effect, reach } = fields[key];
  Deno.test(`${key} acts on ${effect}${reach ? ` by ${reach}` : ""}: beginnings are shared by that`, () => {
    const isShared = effect === "run" || effect === "log";
    const before = stageIdentities(config);
    const changed = { ...config, [key]: otherValue(key) } as RunConfig;
    const after = stageIdentities(changed);
    const differs = before.map((identity, i) => identity !== after[i]);
    if (isShared || reach === "stages") {
      assert.deepEqual(differs, [false, false, false]);
    } else {
      const first = { indexer: 1, selection: 2, everywhere: 0 }[reach ?? "everywhere"];
      assert.deepEqual(differs, differs.map((_, i) => i >= first));
    }
    if (reach !== "stages" || key === "steps" || key === "recipe") return;
    // What acts by way of the stages is in them.
    const schedule = key === "decaySteps" ? "wsd" : "cosine";
    const with_ = (given: ConfigInput) => stageIdentities(resolveConfig({ schedule, ...given }));
    const value = key === "schedule" ? "wsd" : key === "minLr" ? 0.5 : Number(config[key]) + 1;
    assert.notDeepEqual(with_({ [key]: value }), with_({}));
  });
}
