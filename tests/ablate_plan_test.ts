import assert from "node:assert/strict";
import { planRuns, replacements, sized } from "../src/ablate/plan.ts";
import { UserError } from "../src/errors.ts";
import type { Delta, Experiment } from "../src/config/experiment.ts";

Deno.test("a plan has all variants at all points of the grid, seed by seed", () => {
  const experiment: Experiment = {
    question: "?",
    config: { recipe: "dsa", "warmup.steps": 7 },
    axes: { "sparse.steps": [5, 6], qLoraRank: [null, 8] },
    variants: { plain: {}, block: { selector: "block", "warmup.steps": 9 } },
    seeds: [3, 4],
    sizes: { smoke: { config: { lr: 0.5 }, axes: { indexTopk: [2] }, seeds: [1] } },
  };
  const { runs, axes } = planRuns(experiment, ["indexHeadDim=24"]);
  assert.equal(runs.length, 16);
  assert.equal(runs[0].name, "plain_sparse.steps5_qLoraRank-none_s3");
  assert.equal(runs[15].name, "block_sparse.steps6_qLoraRank8_s4");
  assert(runs.slice(0, 8).every((run) => run.seed === 3 && run.config.seed === 3));
  assert.deepEqual(Object.keys(axes), ["variant", "sparse.steps", "qLoraRank"]);
  const { config, delta } = runs[15];
  assert.deepEqual(delta, {
    selector: "block",
    "warmup.steps": 9,
    "sparse.steps": 6,
    qLoraRank: 8,
  });
  assert.deepEqual(config.stages.map(({ steps }) => steps), [700, 9, 6]);
  assert.deepEqual([config.qLoraRank, config.selector, config.indexHeadDim], [8, "block", 24]);

  const smoke = planRuns(sized(experiment, "smoke"));
  assert.deepEqual(smoke.runs.map(({ name }) => name), [
    "plain_indexTopk2_s1",
    "block_indexTopk2_s1",
  ]);
  assert.equal(smoke.runs[0].config.lr, 0.5);
  assert.equal(smoke.runs[0].config.stages[1].steps, 7);
  assert.equal(planRuns({ question: "?", config: {} }).runs[0].name, "base_s0");
});

Deno.test("what was typed in place of what the experiment says is told", () => {
  const experiment = {
    question: "?",
    config: { data: "recall", lr: 1e-3, qLoraRank: null },
  } as const;
  const typed = ["data=copy", "lr=1e-3", "qLoraRank=8", "steps=5"];
  const told = replacements(planRuns(experiment, typed));
  assert.deepEqual(told, ["data=copy, not recall", "qLoraRank=8, not none"]);
});

Deno.test("what cannot be planned is refused with variant and field", () => {
  const base = { question: "?", config: {} };
  const cases: [Experiment, string[], RegExp][] = [
    [{ ...base, variants: { a: {}, b: { stepz: 3 } as Delta } }, [], /"stepz".*steps.*variant b/],
    [{ ...base, axes: { kvLoraRank: [8, "x"] } }, [], /kvLoraRank=x.*variant kvLoraRank-x/],
    [{ ...base, axes: { "warmpu.steps": [8] } }, [], /warmpu.*warmup.*variant warmpu.steps8/],
    [{ ...base, variants: { a: { qkRopeHeadDim: 7 } } }, [], /qkRopeHeadDim=7.*variant a/],
    [{ ...base, axes: { lr: [0.1] } }, ["lr=0.2"], /lr.*sets it for each/],
    [base, ["seed=2"], /seeds=0,1,2/],
    [base, ["steps=0"], /steps=0/],
    [{ ...base, axes: { lr: [0.1, 0.1] } }, [], /lr0\.1_s0 twice/],
    [{ ...base, axes: { lr: [] } }, [], /without variants/],
    [{ ...base, axes: { lr: [0.1] }, baseline: { lr: 0.2 } }, [], /baseline: .*lr0\.1/],
    [{ ...base, variants: { a: {} }, baseline: "b" }, [], /b as baseline: .* are a/],
    [{ ...base, axes: { device: ["cpu", "auto"] } }, [], /devices/],
    [{ ...base, evaluate: { x: { kvLoraRank: 8 } } }, [], /"x": .*weights.*variant base/],
    [{ ...base, evaluate: { x: { indexTopkk: 8 } as Delta } }, [], /indexTopk\?.*variant base/],
  ];
  for (const [experiment, typed, expected] of cases) {
    assert.throws(() => planRuns(experiment, typed), (error: Error) => {
      assert(error instanceof UserError, String(error));
      assert.match(error.message, /^Cannot [^\n]*[^.\n]$/);
      assert.match(error.message, expected);
      return true;
    });
  }
  assert.throws(() => sized({ ...base, sizes: { smoke: {} } }, "smoek"), /mean smoke\?/);
});
