/** Stages that end where an evaluation meets a criterion. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { planRuns } from "../src/ablate/plan.ts";
import { runAblation } from "../src/ablate/runner.ts";
import { requireSame } from "../src/ablate/run_state.ts";
import { stageIdentities } from "../src/ablate/trunks.ts";
import { summarize } from "../src/ablate/summary.ts";
import { resultsTable } from "../src/ablate/table.ts";
import { type ConfigInput, resolveConfig } from "../src/config/config.ts";
import { meets, parseCriterion } from "../src/config/criterion.ts";
import { checkpointAt, checkpointNames, loadCheckpoint } from "../src/runs/checkpoint.ts";
import { resumeConfig } from "../src/train/resume.ts";
import { readMetrics, readSummary } from "../src/runs/run_folder.ts";
import { CLI, command, decoder, MODEL, outcome, run, TEXT, trainIn } from "./train_run.ts";
import { userError } from "./user_error.ts";

Deno.test("a criterion is a metric of evaluations, an operator and a number", () => {
  assert.deepEqual(parseCriterion("val/loss<1.5e0"), {
    ...{ metric: "val/loss", operator: "<", bound: 1.5 },
  });
  const at = (text: string, value: number) =>
    meets(parseCriterion(text), { "val/accuracy": value });
  const cases = [[">=", false, true, true], [">", false, false, true], ["<=", true, true, false]];
  for (const [operator, ...want] of [...cases, ["<", true, false, false]]) {
    const got = [0.4, 0.5, 0.6].map((value) => at(`val/accuracy${operator}0.5`, value));
    assert.deepEqual(got, want, String(operator));
  }
  assert.equal(meets(parseCriterion("val/loss<9"), {}), false);
  const refused: [ConfigInput, string, RegExp][] = [
    [{}, "val/loss", /criterion "val\/loss": expected a metric, .*val\/accuracy>=0.99/],
    [{}, "val/loss<x", /expected a metric/],
    [{}, "val/los<1", /measure val\/loss, val\/bpb, val\/accuracy.*did you mean val\/loss/],
    [{ evalEvery: 0 }, "val/loss<1", /dense.until=val\/loss<1: .*evalEvery=0.*evalEvery=100/],
    [{}, "val/accuracy>0.5", /data=moby_dick has no val\/accuracy; use val\/loss or val\/bpb/],
    [{ data: "copy" }, "val/bpb<1", /data=copy has no val\/bpb/],
    [{ data: "copy" }, "val/accuracy>1", /nothing meets it, val\/accuracy is from 0 to 1/],
    [{ data: "copy" }, "val/accuracy<-0.1", /nothing meets it/],
    [{}, "val/loss<0", /nothing meets it, val\/loss is never below 0/],
    [{}, "val/bpb<=-1", /nothing meets it/],
  ];
  for (const [base, until, expected] of refused) {
    assert.match(userError(() => resolveConfig(base, [`dense.until=${until}`])), expected);
  }
  for (const until of ["val/accuracy>=1", "val/accuracy<=0", "val/loss>0"]) {
    assert.equal(parseCriterion(until).metric, until.match(/[a-z/]+/)![0]);
  }
  const ofWarmup = () => resolveConfig({ recipe: "dsa" }, ["warmup.until=val/loss<1"]);
  assert.match(userError(ofWarmup), /warmup.until=val\/loss<1: .*evaluations stay the same/);
});

Deno.test("going on with a run keeps what decided where its stages ended", () => {
  const saved = resolveConfig({ recipe: "dense", steps: 40 }, ["dense.until=val/loss<1"]);
  for (const typed of ["evalEvery=7", "evalBatches=3"]) {
    assert.match(userError(() => resumeConfig(saved, [typed])), new RegExp(`resume with ${typed}`));
    resumeConfig(resolveConfig({ recipe: "dense" }), [typed]);
  }
  const end = { criterion: "val/loss<1", steps: 15 };
  const longer = (met: boolean) => () =>
    resumeConfig(saved, ["dense.steps=60"], { ended: { dense: { ...end, met } } });
  assert.match(userError(longer(true)), /dense.steps=60: .*met val\/loss<1, after 15 steps/);
  assert.equal(longer(false)().stages[0].steps, 60);
});

Deno.test("a sparse stage and its twin end after the same steps", () => {
  for (const name of ["sparse", "twin"]) {
    const resolve = () => resolveConfig({ recipe: "dsa_twin" }, [`${name}.until=val/loss<1`]);
    assert.match(
      userError(resolve),
      new RegExp(`Cannot set ${name}.until=.*same tokens.*recipe=dsa`),
    );
  }
  const stages = [{ name: "dense" }, { name: "sparse", until: "val/loss<1" }, {
    ...{ name: "other", from: "dense" },
  }];
  assert.match(userError(() => resolveConfig({ stages })), /sparse and other are compared/);
  resolveConfig({ recipe: "dsa_twin" }, ["dense.until=val/loss<1"]);
  resolveConfig({ recipe: "dsa" }, ["sparse.until=val/loss<1"]);
});

Deno.test("an ablation goes on with other evaluations only where nothing ends by them", async () => {
  const folder = await Deno.makeTempDir();
  const of = (evalEvery: number, ...until: string[]) =>
    resolveConfig({ recipe: "dense", name: "x", evalEvery }, until);
  const same = (...until: string[]) => {
    Deno.writeTextFileSync(join(folder, "config.json"), JSON.stringify(of(5, ...until)));
    requireSame(folder, of(5, ...until));
    return () => requireSame(folder, of(7, ...until));
  };
  assert.match(userError(same("dense.until=val/loss<1")), /evalEvery/);
  same()();
  await Deno.remove(folder, { recursive: true });
});

Deno.test("when a stage is looked at is of its beginning, where that decides its end", () => {
  const of = (given: ConfigInput) => stageIdentities(resolveConfig({ recipe: "dsa", ...given }));
  const stages = [{ name: "dense", until: "val/loss<1" }, { name: "warmup" }];
  assert.notDeepEqual(of({ stages, evalEvery: 5 })[0], of({ stages, evalEvery: 6 })[0]);
  assert.deepEqual(of({ evalEvery: 5 }), of({ evalEvery: 6 }));
});

const SMALL = [
  ...MODEL.filter((word) => !/^(evalEvery|sampleEvery|saveEvery)/.test(word)),
  ...[
    "schedule=constant",
    "warmupSteps=0",
    "lr=0.003",
    "evalEvery=5",
    "saveEvery=3",
    "sampleEvery=0",
  ],
  ...["warmup.steps=6", "sparse.steps=6", "measureEvery=0", "keepCheckpoints=99"],
];

Deno.test("a stage ends where its criterion is met, and what comes after is as if it had not", async (t) => {
  const cwd = await Deno.makeTempDir();
  const plain = await trainIn(cwd, ...SMALL, "dense.steps=40", "name=plain");
  const losses = new Map(
    readMetrics(join(plain, "metrics.jsonl")).filter((row) => "val/loss" in row)
      .map((row) => [row.step, row["val/loss"]!]),
  );
  // Met at step 15 for the first time, and not at the first look.
  const bound = losses.get(15)!;
  assert(losses.get(5)! > bound && losses.get(10)! > bound, `${[...losses]}`);
  const criterion = `dense.until=val/loss<=${bound}`;
  const args = [...SMALL, "dense.steps=40", criterion];
  const { code, stdout, stderr } = await run(CLI, [...args, "name=early"], cwd);
  assert.equal(code, 0, stderr);
  const early = join(cwd, stdout.trim());
  assert.match(stderr, /stage dense: val\/loss<=[\d.]+ after 15 of 40 steps\n/);

  const stateAt = async (folder: string, step: number) =>
    (await loadCheckpoint(checkpointAt(folder, step))).state;
  const rows = readMetrics(join(early, "metrics.jsonl"));

  await t.step("its weights are those of a stage with that many steps", async () => {
    const short = await trainIn(cwd, ...SMALL, "dense.steps=15", "name=short");
    assert.deepEqual(await stateAt(early, 40), await stateAt(short, 15));
    assert.deepEqual(await stateAt(early, 12), await stateAt(plain, 12));
    // Other batches than those of a run that got there by its number of steps.
    assert.notDeepEqual(await stateAt(early, 52), await stateAt(short, 27));
  });

  await t.step("it is logged", () => {
    assert.equal(rows.some(({ step }) => step > 15 && step < 40), false);
    const at = (step: number) => rows.find((row) => row.step === step)!;
    assert.deepEqual([at(40)["until/steps"], at(40)["until/met"]], [15, 1]);
    assert.equal(at(40)["val/loss"], at(15)["val/loss"]);
    assert.equal("until/met" in at(15) || "until/met" in at(52), false);
    assert.equal(readSummary(early)!.final["until/met"], 1);
    assert.deepEqual(readSummary(early)!.until, {
      dense: { criterion: criterion.slice("dense.until=".length), met: true, steps: 15 },
    });
    // Two sequences of 32 tokens a step, of those that were done.
    assert.equal(at(44)["train/tokens"], (15 + 4) * 2 * 32);
  });

  await t.step("a run that goes on from before it ends it there, too", async () => {
    const want = await outcome(early);
    for (const last of [12, 9, 40, 43]) {
      const name = `from_${last}`;
      const copy = join(cwd, "runs", name);
      await new Deno.Command("cp", { args: ["-r", early, copy] }).output();
      for (const step of await checkpointNames(join(copy, "checkpoints"))) {
        const path = join(copy, "checkpoints", step);
        if (Number(step.slice(5)) > last) await Deno.remove(path, { recursive: true });
      }
      const summary = { ...readSummary(copy)!, status: "interrupted" };
      Deno.writeTextFileSync(join(copy, "summary.json"), JSON.stringify(summary));
      assert.deepEqual(await outcome(await trainIn(cwd, `resume=runs/${name}`)), want, name);
    }
  });

  await t.step("a signal at any time changes nothing", async () => {
    const want = await outcome(early);
    const child = command(CLI, [...args, "name=stopped"], cwd).spawn();
    const folder = join(cwd, "runs/stopped/checkpoints");
    const isUnderWay = async () => (await checkpointNames(folder).catch(() => [])).length > 2;
    while (!await isUnderWay()) await new Promise((resolve) => setTimeout(resolve, 5));
    child.kill("SIGTERM");
    const { code, stderr } = await child.output();
    if (code !== 0) assert.equal(code, 130, decoder.decode(stderr));
    assert.deepEqual(await outcome(await trainIn(cwd, "resume=runs/stopped")), want);
  });

  await t.step("one that never meets it is marked", async () => {
    const { code, stderr } = await run(
      CLI,
      [
        ...SMALL.filter((word) => !/^(warmup|sparse)\./.test(word)),
        ...["recipe=dense", "steps=12", "dense.until=val/loss<0.01", "name=never"],
      ],
      cwd,
    );
    assert.equal(code, 0, stderr);
    assert.match(stderr, /stage dense: val\/loss<0.01 was not met in 12 steps\n/);
    const { final } = readSummary(join(cwd, "runs/never"))!;
    assert.deepEqual([final["until/steps"], final["until/met"]], [12, 0]);
    assert.match(
      (await run(CLI, ["resume=runs/never", "evalEvery=4"], cwd)).stderr,
      /Cannot resume with evalEvery=4/,
    );
  });
  await Deno.remove(cwd, { recursive: true });
});

Deno.test("an ablation shares a beginning with a criterion, and counts those that did not meet it", async () => {
  const root = await Deno.makeTempDir();
  const plan = planRuns({
    question: "?",
    config: {
      ...{ data: TEXT, steps: 40, hiddenSize: 16, numHiddenLayers: 1, numAttentionHeads: 1 },
      ...{ intermediateSize: 16, batchSize: 1, seqLen: 16, warmupSteps: 1, qLoraRank: 4 },
      ...{ kvLoraRank: 4, qkNopeHeadDim: 4, qkRopeHeadDim: 2, vHeadDim: 4, indexNHeads: 1 },
      ...{ indexHeadDim: 4, evalBatches: 1, sampleTokens: 0, autotune: false, lr: 0.003 },
      ...{ evalEvery: 5, measureEvery: 0, "warmup.steps": 3, "sparse.steps": 3 },
    },
    axes: { "sparse.indexTopk": [2, 4], "dense.until": ["val/loss<99", "val/loss<0.01"] },
  });
  const results = await runAblation({
    ...{ experiment: "x", size: "real", plan, folder: join(root, "x"), argv: [] },
    shouldStop: () => false,
  });
  const told = results.runs.map(({ metrics }) =>
    ["dense/until/met", "dense/until/steps"].map((name) => metrics[name])
  );
  assert.deepEqual(told, [[1, 5], [0, 40], [1, 5], [0, 40]]);
  // Branches go on from where the beginning ended, with the same steps.
  const loss = results.runs.map(({ metrics }) => metrics["dense/val/loss"]);
  assert.equal(loss[0], loss[2]);
  assert.deepEqual(results.summary.map(({ n, unmet }) => [n, unmet]), [
    ...[[1, undefined], [0, 1], [1, undefined], [0, 1]],
  ]);
  assert.match(resultsTable(results), /0 \(1 unmet\) +criterion not met/);
  await Deno.remove(root, { recursive: true });
});

Deno.test("means are over runs whose stages met their criteria", () => {
  const made = (seed: number, met: number, loss: number) => ({
    ...{ variant: "a", seed, axes: {}, folder: "", status: "done" as const, delta: {}, costs: {} },
    metrics: { "val/loss": loss, "dense/until/met": met },
  });
  const [row] = summarize([made(0, 1, 2), made(1, 0, 9), made(2, 1, 4)]);
  assert.deepEqual([row.n, row.unmet, row.metrics["val/loss"].mean], [2, 1, 3]);
});
