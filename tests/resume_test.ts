import assert from "node:assert/strict";
import { resolveConfig } from "../src/config/config.ts";
import { UserError } from "../src/errors.ts";
import { resumeConfig } from "../src/train/resume.ts";

Deno.test("a resumed run may be longer, but not another model", () => {
  const saved = resolveConfig({ recipe: "dsa_twin", steps: 100, hiddenSize: 16, name: "x_001" });
  const typed = [
    "resume=runs/x_001",
    "sparse.steps=900",
    "logEvery=1",
    "evalBatches=3",
    "measureEvery=7",
    "device=cpu",
    "hiddenSize=16",
  ];
  const [dense, warmup, twin, sparse] = saved.stages;
  assert.deepEqual(resumeConfig(saved, typed), {
    ...saved,
    resume: "runs/x_001",
    stages: [dense, warmup, twin, { ...sparse, steps: 900 }],
    logEvery: 1,
    evalBatches: 3,
    measureEvery: 7,
    device: "cpu",
  });
  const alone = resolveConfig({ recipe: "dense", steps: 100 });
  assert.equal(resumeConfig(alone, ["steps=900"]).stages[0].steps, 900);
  const cases: [string, RegExp][] = [
    ["hiddenSize=32", /hiddenSize=32.*hiddenSize=16; leave it out, or start a new run/],
    ["clip=none", /clip=none.*clip=1/],
    ["qLoraRank=none", /qLoraRank=none.*qLoraRank=48/],
    ["attention=gqa", /attention=gqa.*attention=mla/],
    ["recipe=dense", /recipe=dense.*recipe=dsa_twin/],
    ["data=sotu", /data=sotu.*data=moby_dick/],
    ["lr=1", /lr=1:.*lr=0\.004/],
    ["seed=1", /seed=1/],
    ["preset=small", /preset=small/],
    ["name=y", /name=y.*name=x_001/],
    ["needleDepths=0.5", /needleDepths=0\.5.*none/],
    ["steps=900", /other stages: .*\(sparse\.steps=…\)/],
    ["warmup.steps=900", /other stages/],
    ["sparse.lr=1", /other stages/],
  ];
  for (const [word, expected] of cases) {
    assert.throws(() => resumeConfig(saved, [word]), (error) => {
      assert(error instanceof UserError);
      assert.match(error.message, expected);
      return true;
    });
  }
});
