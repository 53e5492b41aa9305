import assert from "node:assert/strict";
import { type ConfigInput, resolveConfig } from "../src/config/config.ts";
import { UserError } from "../src/errors.ts";
import { recipes, stageAt, stageSpans, usesIndexer } from "../src/config/stages.ts";
import type { StageInput } from "../src/config/stage_fields.ts";
import { userError } from "./user_error.ts";
import { stepHyper, trainedGroups } from "../src/train/hyper.ts";

const seed = Math.floor(Math.random() * 2 ** 32);
/** A fresh whole number in [low, low + 100). */
function fresh(low: number, salt: number): number {
  return low + Math.floor(seed / 7 ** salt) % 100;
}

function stagesOf(words: string, base: ConfigInput = {}) {
  return resolveConfig(base, words.split(" ").filter(Boolean)).stages;
}

/** Spans and configuration of a run, by the name of the stage. */
function spansOf(words: string) {
  const config = resolveConfig({}, words.split(" "));
  const spans = stageSpans(config.stages);
  const byName = Object.fromEntries(spans.map((span) => [span.stage.name, span]));
  const hyper = (name: string, step: number) => stepHyper(config, byName[name], step);
  return { config, spans, byName, hyper };
}

Deno.test("each recipe has its stages, trained as the report says", () => {
  for (const [recipe, inputs] of Object.entries(recipes)) {
    const stages = stagesOf(`recipe=${recipe}`);
    assert.deepEqual(stages.map(({ name }) => name), inputs.map(({ name }) => name));
    assert.equal(usesIndexer({ stages }), recipe !== "dense");
  }
  const steps = fresh(100, 0);
  const stages = stagesOf(`recipe=dsa_twin steps=${steps} lr=0.01 minLr=0.2`);
  const how = stages.map(({ attention, trains, kl, from }) =>
    `${attention} ${trains} ${kl} ${from}`
  );
  // The last one makes the model that evaluations and samples are of.
  assert.deepEqual(how, [
    "dense backbone none null",
    "dense indexer dense null",
    "dense backbone none dense",
    "sparse both selected warmup",
  ]);
  const [dense, , twin, sparse] = stages;
  assert.deepEqual([dense.steps, sparse.steps], [steps, Math.round(steps / 5)], `seed ${seed}`);
  assert.equal(twin.steps, sparse.steps);
  // The low rate that the dense stage ended with, for the sparse stage and its rival alike.
  assert.deepEqual([dense.lr, sparse.lr, twin.lr], [0.01, 0.002, 0.002]);
  assert.deepEqual([sparse.schedule, twin.schedule], ["constant", "constant"]);

  const [scratch] = stagesOf(`recipe=sparse steps=${steps} lr=0.01`);
  assert.deepEqual([scratch.steps, scratch.lr, scratch.kl], [steps, 0.01, "selected"]);
  assert.equal(resolveConfig({}, ["attention=gqa"]).recipe, "dense");
  assert.equal(usesIndexer(resolveConfig({}, ["attention=gqa"])), false);
});

Deno.test("typed keys of a stage win over the experiment's, and those over the recipe's", () => {
  const base = { stages: [{ name: "dense" }, { name: "sparse", steps: 30, indexTopk: 9 }] };
  const steps = fresh(1, 1);
  const [dense, sparse] = stagesOf(`sparse.steps=${steps} sparse.lr=1e-4 indexTopk=20`, base);
  assert.deepEqual([sparse.steps, sparse.lr, sparse.indexTopk], [steps, 1e-4, 9], `seed ${seed}`);
  assert.deepEqual([dense.indexTopk, dense.steps], [20, 700]);
  assert.equal(stagesOf("steps=40 dense.steps=50", base)[0].steps, 50);
  assert.equal(stagesOf("sparse.from=dense", base)[1].from, "dense");
  assert.equal(stagesOf("sparse.from=none", base)[1].from, null);
  // A name without a template of its own is dense training.
  assert.equal(stagesOf("", { stages: [{ name: "again" }] })[0].trains, "backbone");
});

Deno.test("resolved stages resolve to themselves, through JSON", () => {
  for (const recipe of Object.keys(recipes)) {
    const words = [`recipe=${recipe}`, `steps=${fresh(20, 2)}`, `indexTopk=${fresh(1, 3)}`];
    const name = recipe === "dense" ? "dense" : "sparse";
    const config = resolveConfig({}, [...words, `${name}.lr=0.5`, `${name}.optimizer=reset`]);
    assert.deepEqual(resolveConfig(JSON.parse(JSON.stringify(config))), config, `seed ${seed}`);
  }
  const saved = resolveConfig({ recipe: "dsa" }, ["warmup.steps=33"]);
  const longer = resolveConfig(saved, ["sparse.steps=44"]);
  assert.deepEqual(longer.stages.map(({ steps }) => steps), [700, 33, 44]);
});

Deno.test("without an indexer there are no stages that teach one", () => {
  const stages = (given: ConfigInput, ...typed: string[]) =>
    resolveConfig({ indexKeyInput: "native", ...given }, typed).stages;
  const told = (given: ConfigInput, ...typed: string[]) =>
    stages(given, ...typed).map(({ name, trains, kl, from }) => [name, trains, kl, from]);
  const plain = [["dense", "backbone", "none", null], ["sparse", "backbone", "none", null]];
  assert.deepEqual(told({ recipe: "dsa" }), plain);
  // A grid over indexKeyInput says how long warm-ups are: those that there are.
  assert.deepEqual(told({ recipe: "dsa" }, "warmup.steps=300"), plain);
  const [dense, ...others] = told({ recipe: "dsa_twin" });
  assert.deepEqual(dense, plain[0]);
  assert.deepEqual(others, [
    ["twin", "backbone", "none", "dense"],
    ["sparse", "backbone", "none", "dense"],
  ]);
  // What would start where such a stage ended starts where it started.
  const again = {
    stages: [{ name: "a" }, { name: "b" }, { name: "warmup", from: "a" }, { name: "c" }],
  };
  assert.deepEqual(told(again).map(([name, , , from]) => [name, from]), [
    ["a", null],
    ["b", null],
    ["c", "a"],
  ]);
  const refused: [ConfigInput, string[], RegExp][] = [
    [{}, ["sparse.kl=selected"], /sparse.kl=selected: .*no indexer.*use sparse.kl=none/],
    [{}, ["sparse.trains=both"], /sparse.trains=both: .*no indexer.*use sparse.trains=backbone/],
    [{ stages: [{ name: "warmup" }] }, [], /train warmup with indexKeyInput=native: .*hidden/],
  ];
  for (const [given, typed, expected] of refused) {
    assert.match(userError(() => stages(given, ...typed)), expected);
  }
});

Deno.test("an indexer that the model's own loss teaches has no warm-up and no KL", () => {
  const given = { indexActivation: "none", recipe: "dsa" } as const;
  const told = (indexLoss: "lm" | "both", ...typed: string[]) =>
    resolveConfig({ ...given, indexLoss }, typed).stages.map((
      { name, trains, kl },
    ) => [name, trains, kl]);
  const dense = ["dense", "backbone", "none"];
  assert.deepEqual(told("lm", "warmup.steps=9"), [dense, ["sparse", "both", "none"]]);
  const both = [["warmup", "indexer", "dense"], ["sparse", "both", "selected"]];
  assert.deepEqual(told("both"), [dense, ...both]);
  assert.deepEqual(told("both", "sparse.kl=none").at(-1), ["sparse", "both", "none"]);
  const refused: [() => unknown, RegExp][] = [
    [
      () => told("lm", "sparse.kl=selected"),
      /sparse.kl=selected: .*sparse.kl=none or indexLoss=both/,
    ],
    [() => told("lm", "dense.trains=both"), /dense.trains=both/],
    [
      () => resolveConfig({ ...given, indexLoss: "lm", stages: [{ name: "warmup" }] }),
      /train warmup with indexLoss=lm: .*indexLoss=both/,
    ],
  ];
  for (const [run, expected] of refused) assert.match(userError(run), expected);
});

Deno.test("what cannot be is refused by its key, with a way out", () => {
  const twice: StageInput[] = [{ name: "a" }, { name: "a" }];
  const cases: [string, RegExp, ConfigInput?][] = [
    ["warmpu.steps=3", /warmpu\.steps: .*did you mean warmup\?/],
    ["xyzzy.lr=3", /xyzzy\.lr: .*this run has dense, warmup, sparse/],
    ["recipe=dense warmup.steps=3", /no stage "warmup".*this run has dense/],
    ["warmup.stepz=3", /warmup\.stepz: did you mean warmup\.steps\?/],
    ["warmup.qqqqqq=3", /warmup\.qqqqqq: a stage has steps, attention/],
    ["xyzzy.qqqqqq=3", /xyzzy\.qqqqqq: there is no stage "xyzzy"; this run has dense/],
    ["warmup.steps=0", /warmup\.steps=0: expected a whole number from 1/],
    ["sparse.trains=bth", /sparse\.trains=bth.*did you mean both\?/],
    ["warmup.minLr=2", /warmup\.minLr=2.*to 1/],
    ["sparse.from=twin", /sparse\.from=twin: earlier stages are dense, warmup/],
    ["dense.from=dense", /dense\.from=dense: it is the first stage/],
    ["sparse.warmupSteps=999", /sparse\.warmupSteps=999: more than sparse\.steps=140/],
    ["dense.kl=selected", /dense\.kl=selected: .*dense\.attention=dense; use dense/],
    ["warmup.kl=none", /warmup\.trains=indexer: .*warmup\.kl.*dense or selected/],
    ["dense.trains=both", /dense\.trains=both: .*dense\.kl/],
    ["attention=gqa dense.kl=dense", /dense\.kl=dense: only attention=mla/],
    ["attention=gqa dense.attention=sparse", /dense\.attention=sparse: only attention=mla/],
    ["", /a\.name=a: two stages.*rename/, { stages: twice }],
    ["", /a\.stepz/, { stages: [{ name: "a", stepz: 3 } as StageInput] }],
  ];
  for (const [words, expected, base] of cases) {
    assert.throws(() => stagesOf(words, base), (error: Error) => {
      assert(error instanceof UserError, `${words}: ${error}`);
      assert.match(error.message, /^[A-Z][^\n]*[^.\n]$/);
      assert.match(error.message, expected);
      return true;
    });
  }
});

Deno.test("stages follow each other or the one that they name", () => {
  const [dense, warmup, twin, sparse] = [fresh(10, 0), fresh(10, 1), fresh(10, 2), fresh(10, 3)];
  const { config, spans } = spansOf(
    `recipe=dsa_twin dense.steps=${dense} dense.warmupSteps=1 warmup.steps=${warmup} ` +
      `sparse.steps=${sparse} twin.steps=${twin}`,
  );
  assert.deepEqual(
    spans.map(({ index, start, end }) => [index, start, end]),
    [
      [0, 0, dense],
      [1, dense, dense + warmup],
      [2, dense + warmup, dense + warmup + twin],
      [3, dense + warmup + twin, dense + warmup + twin + sparse],
    ],
    `seed ${seed}`,
  );
  const before = spans.map(({ before }) => before?.stage.name ?? null);
  assert.deepEqual(before, [null, "dense", "dense", "warmup"]);
  const steps = [0, dense, dense + 1, dense + warmup, dense + warmup + 1, 9999];
  const names = steps.map((step) => stageAt(config.stages, step).name);
  assert.deepEqual(names, ["dense", "dense", "warmup", "warmup", "twin", "sparse"]);
});

Deno.test("the same update of the backbone sees the same batch, whatever lies between", () => {
  const [dense, long, short] = [fresh(10, 0), fresh(150, 1), fresh(10, 2)];
  /** The training batch of each update of the backbone on the way to the end of a stage. */
  const batchesTo = (stages: StageInput[], name: string): number[] => {
    const config = resolveConfig({
      warmupSteps: 0,
      stages: [{ name: "dense", steps: dense }, ...stages],
    });
    const spans = stageSpans(config.stages);
    const batches: number[] = [];
    let span = spans.find(({ stage }) => stage.name === name) ?? null;
    for (; span; span = span.before) {
      const { stage: { steps, trains }, firstBatch } = span;
      if (trains === "indexer") continue;
      batches.unshift(...Array.from({ length: steps }, (_, i) => firstBatch + i));
    }
    return batches;
  };
  const warmup = (steps: number) => ({ name: "warmup", steps });
  const steps = fresh(10, 3);
  const [sparse, twin] = [{ name: "sparse", steps }, { name: "twin", steps }];
  const cases: [StageInput[], string][] = [
    [[warmup(short), sparse], "sparse"],
    [[warmup(long), sparse], "sparse"],
    [[sparse], "sparse"],
    // Beside each other, in either order; a dense baseline has nothing else.
    [[warmup(long), twin, { ...sparse, from: "warmup" }], "sparse"],
    [[warmup(long), twin, { ...sparse, from: "warmup" }], "twin"],
    [[warmup(short), sparse, twin], "twin"],
    [[twin, { ...warmup(short), from: "dense" }, sparse], "sparse"],
    [[twin], "twin"],
  ];
  // Each batch once, in order, none left out.
  const want = Array.from({ length: dense + steps }, (_, i) => i);
  for (const [stages, name] of cases) {
    assert.deepEqual(batchesTo(stages, name), want, `${JSON.stringify(stages)}, seed ${seed}`);
  }
  // A stage that goes on after another has what comes next.
  const on = [twin, { ...sparse, from: "twin" }];
  assert.deepEqual(batchesTo(on, "sparse").at(-1), dense + 2 * steps - 1, `seed ${seed}`);
  // A warm-up reads ahead, where it starts.
  const { byName } = spansOf(`recipe=dsa dense.steps=${dense} dense.warmupSteps=0`);
  assert.equal(byName.warmup.firstBatch, dense);
});

Deno.test("a stage updates the groups that it trains, each at its own rate", () => {
  assert.deepEqual(trainedGroups({ trains: "backbone" }), ["backbone"]);
  assert.deepEqual(trainedGroups({ trains: "indexer" }), ["indexer"]);
  assert.deepEqual(trainedGroups({ trains: "both" }), ["backbone", "indexer"]);
  const { hyper } = spansOf(
    "recipe=dsa indexerLr=0.5 sparse.lr=0.25 sparse.schedule=constant weightDecay=0.3 clip=none",
  );
  assert.deepEqual(Object.keys(hyper("dense", 0).groups), ["backbone"]);
  assert.deepEqual(Object.keys(hyper("warmup", 0).groups), ["indexer"]);
  const { backbone, indexer } = hyper("sparse", 3).groups;
  assert.deepEqual([backbone.lr, indexer.lr], [0.25, 0.5]);
  assert.deepEqual([backbone.weightDecay, backbone.clip], [0.3, 0]);
});

Deno.test("Adam's count of updates goes on where moments are kept", () => {
  const [dense, warmup] = [fresh(10, 4), fresh(10, 5)];
  const words = `recipe=dsa_twin steps=${dense} warmup.steps=${warmup}`;
  const updates = (words: string, name: string, step: number) => {
    const { groups } = spansOf(words).hyper(name, step);
    return Object.fromEntries(Object.entries(groups).map(([group, { update }]) => [group, update]));
  };
  assert.deepEqual(updates(words, "dense", 0), { backbone: 1 });
  assert.deepEqual(updates(words, "dense", 4), { backbone: 5 });
  assert.deepEqual(updates(words, "warmup", 2), { indexer: 3 });
  // The warm-up left the backbone's moments alone.
  const kept = { backbone: dense + 1, indexer: warmup + 1 };
  assert.deepEqual(updates(words, "sparse", 0), kept, `seed ${seed}`);
  assert.deepEqual(updates(words, "twin", 1), { backbone: dense + 2 }, `seed ${seed}`);
  const reset = `${words} sparse.optimizer=reset`;
  assert.deepEqual(updates(reset, "sparse", 0), { backbone: 1, indexer: 1 });
  assert.deepEqual(updates(reset, "twin", 0), { backbone: dense + 1 }, `seed ${seed}`);
  // A stage that goes on from another does not count what lay between.
  const skip = updates(`${words} sparse.from=dense`, "sparse", 0);
  assert.deepEqual(skip, { backbone: dense + 1, indexer: 1 }, `seed ${seed}`);
});

Deno.test("a twin is trained as the sparse stage is, unless it is said otherwise", () => {
  const { byName } = spansOf("recipe=dsa_twin sparse.steps=30 sparse.lr=1e-5");
  assert.equal(byName.twin.stage.steps, 30);
  assert.equal(byName.twin.stage.lr, 1e-5);
  assert.equal(byName.twin.stage.attention, "dense");
  assert.equal(spansOf("recipe=dsa_twin sparse.steps=30 twin.steps=7").byName.twin.stage.steps, 7);
});
