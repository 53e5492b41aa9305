import assert from "node:assert/strict";
import { join } from "node:path";
import { fitAdditive } from "../src/ablate/fit.ts";
import { planRuns, sized } from "../src/ablate/plan.ts";
import type { AblationResults, RunResult } from "../src/ablate/results.ts";
import { estimate, fitGrid, summarize } from "../src/ablate/summary.ts";
import { resultsTable } from "../src/ablate/table.ts";
import { assignTrunks, stageIdentities, type Trunk } from "../src/ablate/trunks.ts";
import { UserError } from "../src/errors.ts";
import { type Delta, type Experiment, resolveDelta } from "../src/experiment.ts";
import { Rng } from "../src/rng.ts";
import { latestCheckpoint, loadCheckpoint } from "../src/train/checkpoint.ts";
import { type MetricsRow, readMetrics } from "../src/train/run_folder.ts";

const seed = Math.floor(Math.random() * 2 ** 32);
const CLI = new URL("../src/ablate/cli.ts", import.meta.url).pathname;
const TEXT = new URL("fixtures/moby_excerpt.txt", import.meta.url).pathname;
/** A model small enough to train for a few steps in a moment, through stages that go back. */
const CONFIG: Delta = {
  data: TEXT,
  hiddenSize: 32,
  numHiddenLayers: 1,
  numAttentionHeads: 2,
  intermediateSize: 48,
  batchSize: 2,
  seqLen: 32,
  steps: 20,
  logEvery: 4,
  evalEvery: 0,
  evalBatches: 1,
  saveEvery: 8,
  measureEvery: 0,
  sampleTokens: 0,
  stages: [
    { name: "dense", steps: 20 },
    { name: "warmup", steps: 10 },
    { name: "twin", steps: 8, from: "dense" },
    { name: "sparse", steps: 8, from: "warmup" },
  ],
};
const MANY: Experiment = {
  question: "Do runs share their beginnings?",
  config: CONFIG,
  variants: {
    few: { indexTopk: 4 },
    more: { indexTopk: 9 },
    heads: { indexNHeads: 3 },
    wild: { lr: 1e30, clip: null, warmupSteps: 0 },
  },
  tabulate: ["sparse/val/loss", "twin/val/loss"],
  baseline: "more",
  evaluate: { "k=2": { indexTopk: 2 } },
};

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
    [2, { indexTopk: 5 }],
    [2, { "sparse.steps": 5 }],
    [2, { selector: "block" }],
    [2, { klTarget: "renormalized" }],
    [1, { "warmup.steps": 5 }],
    [1, { indexerLr: 0.1 }],
    [1, { indexNHeads: 3 }],
    [1, { klDirection: "reverse" }],
    [0, { seed: 1 }],
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
  const grid = trunksOf({ axes: { kvLoraRank: [8, 16], indexTopk: [4, 8] }, seeds: [0, 1] });
  assert.equal(new Set(grid).size, 4);
  assert(grid.every((trunk) => path(trunk) === "warmup" && trunk!.until === 840));
  assert.deepEqual(trunksOf({ axes: { lr: [0.1, 0.2] } }), [null, null]);
  // A dense run ends where the others' dense stage does.
  const mixed = trunksOf({ variants: { plain: { recipe: "dense" }, a: {}, b: { indexTopk: 8 } } });
  assert.deepEqual(mixed.map(path), ["dense", "dense>warmup", "dense>warmup"]);
  // Trunks end where a later stage starts from.
  assert.deepEqual(assignTrunks(planRuns(MANY).runs).map(path), [
    "dense>warmup>twin",
    "dense>warmup>twin",
    "dense",
    "",
  ]);
});

Deno.test("estimates and differences are those of the seeds", () => {
  const rng = new Rng(seed, "summary");
  const values = Float32Array.from({ length: 5 }, () => 0);
  rng.fillNormal(values, 1);
  const { mean, sd, n } = estimate([...values]);
  const direct = values.reduce((a, b) => a + b) / 5;
  assert(Math.abs(mean - direct) < 1e-6 && n === 5, `seed ${seed}`);
  const variance = values.reduce((sum, v) => sum + (v - direct) ** 2, 0) / 4;
  assert(Math.abs(sd ** 2 - variance) < 1e-6, `seed ${seed}`);
  assert.equal(estimate([3]).sd, 0);

  const run = (k: number, seed: number, loss: number | null): RunResult => ({
    ...{ variant: `k${k}`, axes: { k, d: 1 }, seed, folder: "", delta: {}, costs: {} },
    status: loss === null ? "failed" : "done",
    metrics: loss === null ? {} : { loss },
    evaluations: loss === null ? {} : { "k=2": { loss: 2 * loss } },
  });
  const runs = [run(1, 0, 5), run(2, 0, 1), run(1, 1, 7), run(2, 1, null), run(2, 2, 9)];
  const [one, two] = summarize(runs, { k: 2 });
  assert.deepEqual([one.n, two.n], [2, 2]);
  assert.equal(one.metrics.loss.mean, 6);
  assert.equal(one.metrics["k=2/loss"].mean, 12);
  // Only seed 0 has both.
  assert.deepEqual(one.difference!.loss, { mean: 4, sd: 0, n: 1 });
  assert.equal(two.difference, undefined);
  assert.equal(summarize(runs)[0].difference, undefined);
  const axes = { k: [1, 2], d: [1] };
  assert.deepEqual(fitGrid(runs, { axes, metrics: ["loss"] }), [], "one axis with several values");
  const grid = [1, 2].flatMap((d) =>
    [1, 2].flatMap((k) => [0, 1].map((s) => ({ ...run(k, s, d * k + s), axes: { k, d } })))
  );
  const [fit] = fitGrid(grid, { axes: { k: [1, 2], d: [1, 2] }, metrics: ["loss", "none"] });
  assert.equal(fit.mean, 2.75);
  assert.deepEqual([fit.rows, fit.cols, fit.residuals[0][0]], ["k", "d", 0.25]);
  // A seed that one cell lacks is left out of all.
  const [partial] = fitGrid(grid.slice(0, -1), {
    axes: { k: [1, 2], d: [1, 2] },
    metrics: ["loss"],
  });
  assert.equal(partial.mean, 2.25);
});

Deno.test("the additive fit recovers effects and interaction", () => {
  const rng = new Rng(seed, "fit");
  const draw = (n: number) => {
    const values = new Float32Array(n);
    rng.fillNormal(values, 1);
    const mean = values.reduce((a, b) => a + b) / n;
    return [...values].map((v) => v - mean);
  };
  const [rowEffects, colEffects] = [draw(4), draw(5)];
  const rowValues = [8, 16, 32, 64], colValues = [1, 2, 3, 4, null];
  const about = { rows: "d", cols: "k", metric: "loss", rowValues, colValues };
  const additive = rowEffects.map((r) => colEffects.map((c) => [3 + r + c]));
  const fit = fitAdditive({ ...about, cells: additive });
  assert(Math.abs(fit.mean - 3) < 1e-12);
  rowValues.forEach((v, i) => assert(Math.abs(fit.rowEffects[v] - rowEffects[i]) < 1e-12));
  assert(Math.abs(fit.colEffects.none - colEffects[4]) < 1e-12);
  assert.equal(fit.interaction, 0, `seed ${seed}`);
  assert.equal(fit.seedSd, 0);

  // A product of two centred effects is all interaction.
  const [a, b] = [draw(4), draw(5)];
  const planted = rowEffects.map((r, i) =>
    colEffects.map((c, j) => [-0.5, 0.5].map((noise) => 3 + r + c + a[i] * b[j] + noise))
  );
  const other = fitAdditive({ ...about, cells: planted });
  const squares = (values: number[]) => values.reduce((sum, v) => sum + v * v, 0);
  const cells = rowEffects.flatMap((r, i) => colEffects.map((c, j) => r + c + a[i] * b[j]));
  const product = a.flatMap((x) => b.map((y) => x * y));
  assert(Math.abs(other.interaction - squares(product) / squares(cells)) < 1e-9, `seed ${seed}`);
  assert(Math.abs(other.residuals[2][3] - a[2] * b[3]) < 1e-9, `seed ${seed}`);
  assert(Math.abs(other.maxResidual - Math.max(...product.map(Math.abs))) < 1e-9);
  assert(Math.abs(other.seedSd - Math.SQRT1_2) < 1e-9);
  // What a seed adds to all cells alike is no noise of the residuals.
  assert(other.interactionNoise < 1e-12);
  const noisy = rowEffects.map((r) =>
    colEffects.map((c) => Array.from({ length: 200 }, () => 3 + r + c + draw(2)[0]))
  );
  const noise = fitAdditive({ ...about, cells: noisy });
  // Without interaction the two agree but for chance: a chi-squared of 12 degrees over its mean.
  const ratio = noise.interaction / noise.interactionNoise;
  assert(ratio > 0.1 && ratio < 4, `${ratio}, seed ${seed}`);
  for (const cells of [[], [[[]]], [[[1], [1, 2]]]]) {
    assert.throws(() => fitAdditive({ ...about, cells }), RangeError);
  }
});

const decoder = new TextDecoder();

function command(cwd: string, args: string[]): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", CLI, ...args],
    cwd,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

async function ablate(cwd: string, ...args: string[]) {
  const { code, stdout, stderr } = await command(cwd, args).output();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

async function writeExperiment(cwd: string, name: string, experiment: Experiment): Promise<string> {
  const text = `export const experiment = ${JSON.stringify(experiment)};\n`;
  await Deno.writeTextFile(join(cwd, name), text);
  return name;
}

function readResults(folder: string): AblationResults {
  return JSON.parse(Deno.readTextFileSync(join(folder, "results.json")));
}

/** Results without what depends on time and machine. */
function timeless({ runs, ...rest }: AblationResults) {
  const isTimeless = ([name]: [string, unknown]) => !name.startsWith("time/");
  return {
    ...rest,
    runs: runs.map(({ costs, ...run }) => ({
      ...run,
      costs: Object.fromEntries(Object.entries(costs).filter(isTimeless)),
    })),
  };
}

/** The files below a folder and when they were written. */
function written(folder: string): Map<string, number> {
  const files = new Map<string, number>();
  const walk = (path: string) => {
    for (const { name, isDirectory } of Deno.readDirSync(path)) {
      const own = join(path, name);
      if (isDirectory) walk(own);
      else files.set(own, Deno.statSync(own).mtime!.getTime());
    }
  };
  walk(folder);
  return files;
}

/** Training rows, and weights and moments at the end, of a run. */
async function outcome(folder: string) {
  const trained = (row: MetricsRow) =>
    Object.fromEntries(
      Object.entries(row).filter(([name]) => /^(step|stage|train\/|lr\/|grad\/|val\/)/.test(name)),
    );
  const { state, step } = await loadCheckpoint(await latestCheckpoint(folder));
  return { step, state, rows: readMetrics(join(folder, "metrics.jsonl")).map(trained) };
}

Deno.test("an ablation: shared beginnings, a failed variant, kill, budget", async (t) => {
  const cwd = await Deno.makeTempDir();
  const many = await writeExperiment(cwd, "many.ts", MANY);
  const whole = join(cwd, "runs/many");
  const started = performance.now();
  const { code, stdout, stderr } = await ablate(cwd, many);
  const seconds = (performance.now() - started) / 1000;
  assert.equal(code, 1, stderr);
  const results = readResults(whole);
  const byVariant = Object.fromEntries(results.runs.map((run) => [run.variant, run]));

  await t.step("a diverged variant is marked with its step, and the others go on", () => {
    assert.equal(stdout.trim().split("\n").at(-1), "runs/many");
    assert.deepEqual(
      results.runs.map(({ variant, status }) => [variant, status]),
      [["few", "done"], ["more", "done"], ["heads", "done"], ["wild", "failed"]],
    );
    assert(byVariant.wild.failedStep! >= 1 && byVariant.wild.failedStep! <= 20);
    assert.match(byVariant.wild.error!, /diverged at step/);
    assert.match(stdout, /wild +0 +failed at step \d+/);
    assert(results.finished);
    assert.deepEqual(byVariant.heads.delta, { indexNHeads: 3 });
  });

  await t.step("metrics, costs, evaluations and differences are there", () => {
    const { metrics, costs, evaluations } = byVariant.few;
    for (const name of ["sparse/val/loss", "twin/val/loss", "index/captured_mass", "swap/oracle"]) {
      assert(Number.isFinite(metrics[name]), name);
    }
    assert.equal(metrics["sparse/val/loss"], metrics["val/loss"]);
    const parts = ["projections", "core", "indexer", "mlp", "head"];
    const sum = parts.reduce((all, part) => all + costs[`flopsPerToken/${part}`], 0);
    assert(Math.abs(sum - costs["flopsPerToken/total"]) < 1e-6);
    assert(costs["flopsPerToken/teacher"] > 0 && costs["time/sparse/step_ms"] > 0);
    // Selecting reads less, and stores as much.
    const more = byVariant.more.costs;
    assert.equal(costs["cache/storedBytes"], more["cache/storedBytes"]);
    assert(costs["cache/readBytes"] < more["cache/readBytes"]);
    assert(Number.isFinite(evaluations!["k=2"]["index/captured_mass"]));
    const row = results.summary.find(({ variant }) => variant === "few")!;
    const difference = metrics["val/loss"] - byVariant.more.metrics["val/loss"];
    assert.equal(row.difference!["val/loss"].mean, difference);
    assert(row.metrics["k=2/val/loss"]);
    assert.equal(Deno.readTextFileSync(join(whole, "table.txt")), `${resultsTable(results)}\n`);
  });

  await t.step("beginnings are trained once, and branches are bitwise whole runs", async () => {
    const trunks = [...Deno.readDirSync(join(whole, "trunks"))].map(({ name }) => name);
    assert.deepEqual(trunks.map((name) => name.split("_")[0]).sort(), ["dense", "twin", "warmup"]);
    for (const variant of ["more", "heads"]) {
      const own = { [variant]: MANY.variants![variant] };
      const alone = { ...MANY, variants: own, baseline: variant, evaluate: {} };
      const name = await writeExperiment(cwd, `${variant}.ts`, alone);
      assert.equal((await ablate(cwd, name)).code, 0);
      const folder = join(cwd, "runs", variant);
      assert.throws(() => Deno.statSync(join(folder, "trunks")), Deno.errors.NotFound);
      const [branched, straight] = [whole, folder].map((f) => join(f, "runs", `${variant}_s0`));
      assert.deepEqual(await outcome(branched), await outcome(straight));
    }
  });

  await t.step("a second call has nothing to do", async () => {
    const before = written(join(whole, "runs"));
    assert.equal((await ablate(cwd, many)).code, 1);
    assert.deepEqual(written(join(whole, "runs")), before);
    assert.deepEqual(readResults(whole), results);
  });

  await t.step("killed half-way and started again, it repeats nothing that was done", async () => {
    const folder = join(cwd, "runs/killed");
    const child = command(cwd, [many, "name=killed"]).spawn();
    const branch = join(folder, "runs/more_s0/env.json");
    while (!await Deno.stat(branch).then(() => true, () => false)) {
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    child.kill("SIGKILL");
    assert.equal((await child.output()).code, 137);
    const done = ["runs/few_s0", "trunks"].map((path) => join(folder, path));
    const before = done.map(written);
    assert.equal((await ablate(cwd, many, "name=killed")).code, 1);
    assert.deepEqual(done.map(written), before);
    assert.deepEqual(timeless(readResults(folder)), timeless(results));
  });

  await t.step("a budget stops it, and the same command goes on", async () => {
    const folder = join(cwd, "runs/budget");
    const args = [many, "name=budget"];
    const none = await ablate(cwd, ...args, "budget=0s");
    assert.equal(none.code, 0, none.stderr);
    assert.equal(readResults(folder).finished, false);
    assert.match(none.stderr, /4 of 4 runs are left: the same command goes on/);
    let calls = 0;
    for (; !readResults(folder).finished; calls++) {
      assert(calls < 9, "it must get on");
      // More each time: others may be busy on this machine.
      const budget = `budget=${(seconds * (0.5 + 0.2 * calls)).toFixed(1)}s`;
      const { code, stderr } = await ablate(cwd, ...args, budget);
      assert.equal(code, readResults(folder).finished ? 1 : 0, stderr);
    }
    assert.deepEqual(timeless(readResults(folder)), timeless(results));
  });

  await t.step("Ctrl-C saves", async () => {
    const folder = join(cwd, "runs/interrupted");
    const child = command(cwd, [many, "name=interrupted"]).spawn();
    while (!await latestCheckpoint(join(folder, "runs/few_s0")).then(() => true, () => false)) {
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    child.kill("SIGINT");
    const { code, stderr } = await child.output();
    assert.equal(code, 130, decoder.decode(stderr));
    assert.equal(readResults(folder).finished, false);
  });

  await t.step("wrong fields and other configurations fail before anything runs", async () => {
    const wrong = await writeExperiment(cwd, "wrong.ts", {
      ...MANY,
      variants: { ...MANY.variants, wrong: { indexTopkk: 3 } as Delta },
    });
    const cases: [string[], RegExp][] = [
      [[wrong], /"indexTopkk": did you mean indexTopk\?.*\(variant wrong\)/],
      [[many, "steps=21"], /runs\/few_s0: it was made with steps=20, now it is 21; .*name=/],
      [[many, "name=fresh", "data=nowhere.txt"], /nowhere\.txt/],
      [[many, "budget=soon"], /budget=soon/],
      [[many, "seeds=a"], /seeds=a/],
      [[many, "size=smoke"], /size=smoke: use real/],
      [[many, "name=../x"], /name="\.\.\/x"/],
      [["missing.ts"], /"missing\.ts": there is no such file/],
      [["quikstart"], /did you mean quickstart\?/],
      [[], /give one experiment/],
    ];
    const before = written(join(cwd, "runs"));
    for (const [args, message] of cases) {
      const { code, stdout, stderr } = await ablate(cwd, ...args);
      assert.equal(code, 2, stderr);
      assert.equal(stdout, "");
      assert.match(stderr.trim().split("\n").at(-1)!, /^error: Cannot /);
      assert.match(stderr, message);
    }
    assert.deepEqual(written(join(cwd, "runs")), before);
  });
  await Deno.remove(cwd, { recursive: true });
});
