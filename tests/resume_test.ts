import assert from "node:assert/strict";
import { join } from "node:path";
import { resolveConfig } from "../src/config/config.ts";
import { UserError } from "../src/errors.ts";
import { resumeConfig, withRates } from "../src/train/resume.ts";
import { RunFolder } from "../src/runs/run_folder.ts";

Deno.test("a resumed run may be longer, but not another model", () => {
  const saved = resolveConfig({ recipe: "dsa_twin", steps: 100, hiddenSize: 16, name: "x_001" });
  const typed = [
    "resume=runs/x_001",
    "sparse.steps=900",
    "logEvery=1",
    "evalBatches=3",
    "measureEvery=7",
    "device=cpu",
    "data=elsewhere/*.txt",
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
    data: "elsewhere/*.txt",
  });
  const alone = resolveConfig({ recipe: "dense", steps: 100 });
  assert.equal(resumeConfig(alone, ["steps=900"]).stages[0].steps, 900);
  const cases: [string, RegExp][] = [
    ["hiddenSize=32", /hiddenSize=32.*hiddenSize=16; leave it out, or start a new run/],
    ["clip=none", /clip=none.*clip=1/],
    ["qLoraRank=none", /qLoraRank=none.*qLoraRank=48/],
    ["attention=gqa", /attention=gqa.*attention=mla/],
    ["recipe=dense", /recipe=dense.*recipe=dsa_twin/],
    ["data=copy", /data=copy.*data=moby_dick/],
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

Deno.test("a run that has failed may change its rates, in stages that are not over", () => {
  const saved = resolveConfig({ recipe: "dsa", steps: 100, schedule: "constant" }, [
    "sparse.lr=1e-3",
  ]);
  const [dense, warmup, sparse] = saved.stages;
  const resume = (...words: string[]) => resumeConfig(saved, words, { failedAfter: 110 });
  const lower = resume(`lr=${saved.lr / 2}`, "clip=0.5");
  assert.equal(lower.lr, saved.lr / 2);
  assert.equal(lower.clip, 0.5);
  // The dense stage is over: its rate is what it was.
  assert.deepEqual(lower.stages, [
    dense,
    { ...warmup, lr: warmup.lr / 2 },
    { ...sparse, lr: 5e-4 },
  ]);
  const { stages } = resume("sparse.lr=1e-4", "indexerLr=1e-5");
  assert.deepEqual(stages[1], { ...warmup, indexerLr: 1e-5 });
  assert.deepEqual(stages[2], { ...sparse, lr: 1e-4, indexerLr: 1e-5 });
  for (const word of ["dense.lr=1e-4", "sparse.minLr=0.5", "warmup.steps=3"]) {
    assert.throws(() => resume(word), /other stages: .*after a failure also lr and indexerLr/);
  }
  for (const word of ["beta1=0.8", "hiddenSize=8"]) {
    assert.throws(() => resume(word), /leave it out/);
  }
});

Deno.test("a run that went back keeps its new rates if it stops before it saves again", async () => {
  const saved = resolveConfig({ recipe: "dsa", steps: 100, name: "x" });
  const root = await Deno.makeTempDir();
  const resumed = resumeConfig(saved, ["lr=1e-5", "clip=0.5"], { failedAfter: 0 });
  const { path } = RunFolder.create(resumed, { experiment: "e", root });
  assert.deepEqual(withRates(saved, path), resumed);
  await Deno.remove(join(path, "config.json"));
  assert.deepEqual(withRates(saved, path), saved);
  await Deno.remove(root, { recursive: true });
});
