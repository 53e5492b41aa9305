/** Every experiment in every size: complete, without mistakes, and in the small size cheap. */
import assert from "node:assert/strict";
import { type PlannedRun, planRuns, REAL_SIZE, sized } from "../src/ablate/plan.ts";
import { assignTrunks, type Trunk } from "../src/ablate/trunks.ts";
import type { RunConfig } from "../src/config/config.ts";
import { cachePerToken, countParameters } from "../src/costs/costs.ts";
import { type Experiment, experimentNames, loadExperiment } from "../src/config/experiment.ts";
import { stageSpans, usesIndexer } from "../src/config/stages.ts";

/** Experiments with a question about variants. */
const ablations = experimentNames().filter((name) => name !== "quickstart");

/** Steps of all stages, or of those after `step`. */
function stepsOf({ stages }: RunConfig, after = 0): number {
  return stages.reduce((sum, { steps }) => sum + steps, -after);
}

async function planned(name: string, size: string) {
  const experiment = sized(await loadExperiment(name), size);
  const plan = planRuns(experiment);
  const trunks = assignTrunks(plan.runs);
  // Shared parts are trained once.
  const shared = new Map<string, Trunk>();
  for (let trunk of trunks) {
    for (; trunk; trunk = trunk.parent) shared.set(trunk.name, trunk);
  }
  let steps = 0;
  plan.runs.forEach(({ config }, i) => steps += stepsOf(config, trunks[i]?.until));
  for (const { until, parent } of shared.values()) steps += until - (parent?.until ?? 0);
  return { ...plan, experiment, trunks, steps };
}

/** Fails unless a metric to tabulate has a stage or evaluation that makes it, in some run. */
function assertMade(metric: string, experiment: Experiment, runs: readonly PlannedRun[]): void {
  const source = metric.match(/^(.+)\/(?:val|index|swap)\//)?.[1];
  if (source === undefined) return;
  const made = source in (experiment.evaluate ?? {}) ||
    runs.some(({ config }) => config.stages.some(({ name }) => name === source));
  assert(made, `nothing makes ${metric}`);
}

Deno.test("all experiments of the plan are there", () => {
  assert.deepEqual(ablations, [
    "baselines",
    "compression_sparsity",
    "compression_sparsity_recall",
    "gradient_routes",
    "index_keys",
    "index_sharing",
    "indexer_capacity",
    "k_mismatch",
    "key_sources",
    "length_scaling",
    "loss_design",
    "rope_in_latent",
    "selector",
    "tasks",
    "warmup_length",
  ]);
});

for (const name of ablations) {
  Deno.test(`${name}: question, expectation and runs of all sizes`, async () => {
    const { question, expect = "", sizes = {}, tabulate = [] } = await loadExperiment(name);
    assert.match(question, /^[A-Z].*\?$/);
    assert(expect.length > 40, "what the literature has");
    assert(tabulate.length > 0);
    assert("smoke" in sizes);
    for (const size of [REAL_SIZE, ...Object.keys(sizes)]) {
      const { runs, experiment } = await planned(name, size);
      assert(runs.length > 1, size);
      for (const metric of experiment.tabulate!) assertMade(metric, experiment, runs);
    }
  });

  Deno.test(`${name}: the smoke size is small, the real one large enough to tell`, async () => {
    const smoke = await planned(name, "smoke");
    assert(smoke.steps <= 800, `${smoke.steps} steps`);
    assert(smoke.runs.length <= 16, `${smoke.runs.length} runs`);
    for (const { config } of smoke.runs) {
      const { batchSize, seqLen, hiddenSize, numHiddenLayers } = config;
      assert(batchSize * seqLen <= 512 && hiddenSize <= 64 && numHiddenLayers <= 2);
      assert(config.evalBatches <= 2);
    }
    const { steps, runs } = await planned(name, REAL_SIZE);
    // At 3 to 12 ms a step, with a few seconds a run, minutes and not hours: trunks give power. A
    // stage that a criterion ends counts with its most, of which it mostly takes half.
    const isOpen = runs.some(({ config }) => config.stages.some(({ until }) => until !== null));
    const most = isOpen ? 260_000 : 100_000;
    assert(
      steps <= most && runs.length <= (isOpen ? 400 : 240),
      `${steps} steps, ${runs.length} runs`,
    );
  });
}

Deno.test("runs of the grid share all but their sparse stage, and its tokens are the twin's", async () => {
  for (const name of ["compression_sparsity", "compression_sparsity_recall"]) {
    const { runs, trunks, axes } = await planned(name, REAL_SIZE);
    const rows = axes.kvLoraRank.length * 3;
    assert.equal(new Set(trunks.map((trunk) => trunk?.name)).size, rows, name);
    for (const { config } of runs) {
      const [, , twin, sparse] = stageSpans(config.stages);
      assert.deepEqual([twin.stage.name, sparse.stage.name], ["twin", "sparse"]);
      assert.equal(twin.firstBatch, sparse.firstBatch);
      assert.equal(twin.stage.steps, sparse.stage.steps);
      assert.equal(twin.stage.lr, sparse.stage.lr);
    }
    // The last column is dense attention.
    assert.equal(axes["sparse.indexTopk"].at(-1), runs[0].config.seqLen);
  }
});

Deno.test("warm-ups of any length are followed by the same tokens, and the sparse model is the last", async () => {
  const { runs, trunks } = await planned("warmup_length", REAL_SIZE);
  for (const { variant, config } of runs) {
    const spans = stageSpans(config.stages);
    const last = spans.at(-1)!;
    assert.equal(last.stage.name, "sparse", variant);
    const twin = spans.find(({ stage }) => stage.name === "twin");
    const tokens = [last, ...(twin ? [twin] : [])].map(({ firstBatch, stage: { steps } }) => [
      firstBatch,
      firstBatch + steps,
    ]);
    const want = variant === "scratch" ? [[0, 1440]] : [[1200, 1440], [1200, 1440]];
    assert.deepEqual(tokens, want, variant);
  }
  // Dense stage and twin are trained once a seed.
  const twins = trunks.filter((trunk) => trunk?.name.startsWith("twin"));
  assert.equal(twins.length, 12);
  assert.equal(new Set(twins).size, 3);
});

Deno.test("dense baselines end on the tokens of the sparse stage", async () => {
  for (const name of ["baselines", "selector"]) {
    const { runs } = await planned(name, REAL_SIZE);
    for (const { variant, config } of runs) {
      const { firstBatch, stage } = stageSpans(config.stages).at(-1)!;
      assert.deepEqual([firstBatch, stage.steps], [1200, 240], `${name} ${variant}`);
    }
  }
});

Deno.test("baselines are of equal parameters, and where they say so of equal cache", async () => {
  const { runs } = await planned("baselines", REAL_SIZE);
  const mla = runs.find(({ variant }) => variant === "mla")!.config;
  const total = countParameters(mla).total;
  for (const { variant, config } of runs) {
    const parameters = countParameters(config).total;
    const difference = Math.abs(parameters / total - 1);
    assert(difference < 1e-3, `${variant}: ${parameters} parameters, mla ${total}`);
    const elements = cachePerToken(config).elementsPerLayer;
    if (/Cache80$|^mla$/.test(variant)) assert.equal(elements, 80, variant);
    // As many updates of the backbone, on as many tokens.
    const updates = config.stages.filter(({ trains }) => trains !== "indexer");
    assert.deepEqual(updates.map(({ steps }) => steps), [1200, 240], variant);
    assert.equal(usesIndexer(config), variant.startsWith("mlaDsa"), variant);
  }
});
