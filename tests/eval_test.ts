import assert from "node:assert/strict";
import { join } from "node:path";
import { openDataset } from "../src/data/dataset.ts";
import { readDensity } from "../src/eval/density_file.ts";
import type { EvaluationReport } from "../src/eval/evaluate_model.ts";
import { modelParameters } from "../src/model/parameters.ts";
import { languageModel } from "../src/model/transformer.ts";
import { openDevice } from "../src/open_device.ts";
import { checkpointView, latestCheckpoint, loadCheckpoint } from "../src/runs/checkpoint.ts";
import { readMetrics } from "../src/runs/run_folder.ts";
import { EVAL, evaluated, GOLDEN, near, SMALL, TEXT_RUN, THREE_STAGES } from "./eval_run.ts";
import { run, TEXT, trainIn } from "./train_run.ts";

/** The script of `deno task sample`. */
const SAMPLE = new URL("../src/commands/sample.ts", import.meta.url).pathname;

/** Losses and answers of the first validation batch by plain loops over the logits. */
async function countByHand(folder: string) {
  const checkpoint = await loadCheckpoint(await latestCheckpoint(folder), { optimizer: false });
  const { config, state } = checkpoint;
  const dataset = await openDataset({ ...config, taskOptions: config });
  const batch = dataset.batch("validation", 0);
  using device = await openDevice("auto");
  using engine = await device.open({
    parameters: modelParameters(config),
    initial: state.parameters,
    loss: languageModel(config, { stage: checkpointView(checkpoint) }),
    batchSize: config.batchSize,
    seqLen: config.seqLen,
    trained: [],
  });
  const logits = await engine.logits(batch.tokens);
  const row = (i: number) => [...logits.subarray(i * config.vocabSize, (i + 1) * config.vocabSize)];
  const losses: { position: number; nats: number }[] = [];
  batch.targets.forEach((target, i) => {
    if (target < 0) return;
    const sum = row(i).reduce((sum, x) => sum + Math.exp(x), 0);
    losses.push({ position: i % config.seqLen, nats: Math.log(sum) - row(i)[target] });
  });
  const answers = (batch.answers ?? []).map(({ position, distance }) => ({
    distance,
    right: row(position).every((x) => x <= row(position)[batch.targets[position]]),
  }));
  return { losses, answers };
}

function checkPositions(
  { positions, loss }: EvaluationReport,
  losses: readonly { position: number; nats: number }[],
): void {
  const mean = (all: readonly { nats: number }[]) =>
    all.reduce((sum, { nats }) => sum + nats, 0) / all.length;
  near(loss, mean(losses), 1e-4, "loss");
  assert.equal(positions.reduce((sum, { count }) => sum + count, 0), losses.length);
  for (const { from, to, count, loss } of positions) {
    const inside = losses.filter(({ position }) => position >= from && position < to);
    assert.equal(count, inside.length);
    near(loss, mean(inside), 1e-4, `loss from ${from} to ${to}`);
  }
}

Deno.test("a run of three stages", async (t) => {
  const cwd = await Deno.makeTempDir();
  const folder = await trainIn(cwd, ...TEXT_RUN, "name=text");
  const report = await evaluated(cwd, "runs/text");
  const logged = readMetrics(join(folder, "metrics.jsonl")).at(-1)! as Record<string, number>;
  const swap = report.swap!;

  await t.step("the report is that of the log", () => {
    const keys = ["folder", "step", "device", "data", "batches", "loss", "bitsPerByte"];
    const rest = [
      "positions",
      "accuracy",
      "accuracyByDistance",
      "index",
      "goldRecallByDistance",
      "swap",
    ];
    assert.deepEqual(Object.keys(report), [...keys, ...rest]);
    const { folder, step, data, batches, accuracy, accuracyByDistance } = report;
    assert.deepEqual([folder, step, data, batches], ["runs/text", 12, TEXT, 1]);
    assert.deepEqual([accuracy, accuracyByDistance], [null, []]);
    near(report.loss, logged["val/loss"], 1e-6, "loss");
    near(report.bitsPerByte!, logged["val/bpb"], 1e-6, "bits per byte");
    assert.deepEqual(Object.keys(swap), ["dense", "learned", "oracle", "random", "recency"]);
    for (const [name, nats] of Object.entries(swap)) near(nats, logged[`swap/${name}`], 1e-6, name);
    near(report.loss, swap.learned, 1e-6, "its own attention");
    assert.equal(new Set(Object.values(swap)).size, 5);
    const { mean, layers } = report.index!;
    for (const [name, value] of Object.entries(mean)) {
      near(value, logged[`index/${name}`], 1e-6, name);
      if (name === "neighbour_overlap") continue;
      const values = layers.map((layer) => layer[name] as number);
      near((values[0] + values[1]) / 2, value, 1e-6, name);
    }
    assert(mean.captured_mass > 0 && mean.captured_mass <= mean.oracle_mass);
    for (const { distance } of layers) {
      assert.equal(distance.length, 6);
      near(distance.reduce((a, b) => a + b), 1, 1e-5, "shares by distance");
    }
  });

  await t.step("selectors are compared with as many keys as the same bytes allow", async () => {
    const { selectors, ...rest } = await evaluated(cwd, "runs/text", "--selectors");
    assert.deepEqual(rest, report);
    const [dense, ...others] = selectors!;
    const { config } = await loadCheckpoint(await latestCheckpoint(folder));
    near(dense.loss, swap.dense, 1e-6, "dense");
    assert.deepEqual([dense.selector, dense.keys, dense.budget], ["dense", 32, null]);
    assert.deepEqual([...new Set(others.map(({ budget }) => budget))], [2, 4, 8, 16]);
    const names = ["learned", "block", "random", "recency", "sinkRecency", "oracle"];
    for (const budget of [2, 4, 8, 16]) {
      const rows = others.filter((row) => row.budget === budget);
      assert.deepEqual(rows.map(({ selector }) => selector), names);
      const [learned] = rows;
      assert.equal(learned.keys, budget);
      for (const { selector, keys, readBytes, isOver, accuracy } of rows) {
        assert.equal(isOver, selector === "oracle");
        if (isOver) assert.deepEqual([keys, readBytes], [budget, dense.readBytes]);
        else assert(readBytes <= learned.readBytes, `${selector} at ${budget}`);
        assert.equal(accuracy, null);
      }
      // A latent with its rope key is 40 numbers, an index key 12, of 32 tokens.
      const { keys } = rows.find(({ selector }) => selector === "recency")!;
      assert.equal(keys, Math.min(32, Math.floor(budget + 32 * 12 / 40)), `${budget}`);
    }
    const at8 = Object.fromEntries(
      others.filter(({ budget }) => budget === config.indexTopk).map((row) => [row.selector, row]),
    );
    near(at8.learned.loss, swap.learned, 1e-6, "learned");
    near(at8.oracle.loss, swap.oracle, 1e-6, "oracle");
    // Sequences are as long as each other: the mean of their differences is that of the losses.
    near(at8.learned.toDense.estimate, swap.learned - swap.dense, 1e-3, "to dense");
    assert.equal(at8.learned.toDense.n, config.batchSize * report.batches);
    assert.equal(dense.toDense.estimate, 0);
  });

  await t.step("the density of its latents, in the report of the run, too", async () => {
    const { density, ...rest } = await evaluated(cwd, "runs/text", "--density");
    assert.deepEqual(rest, report);
    const { config } = await loadCheckpoint(await latestCheckpoint(folder));
    const { kvLoraRank, topk, tokens, probed, layers } = density!;
    assert.deepEqual([kvLoraRank, topk, tokens], [config.kvLoraRank, 8, 32]);
    assert.deepEqual([probed.rows, probed.other, layers.length], [64, 0, 2]);
    for (const [i, layer] of layers.entries()) {
      near(layer.spectralRank, logged[`latent/${i}/spectral_rank`], 1e-6, "spectral rank");
      near(layer.effectiveRank, logged[`latent/${i}/effective_rank`], 1e-6, "effective rank");
      near(layer.reconstructionError, logged[`latent/${i}/reconstruction_error`], 1e-6, "error");
      near(layer.heads.shared, logged[`index/${i}/oracle_mass`], 1e-5, "mass for all heads");
      assert(layer.functionalRank! >= 0 && layer.functionalRank! <= kvLoraRank);
      const lost = layer.projected.map(({ distortion }) => distortion);
      assert.deepEqual(
        layer.projected.map(({ rank }) => rank),
        [2, 4, 8].map((n) => kvLoraRank / n),
      );
      assert(lost[0] > 0 && lost[0] < lost[1] && lost[1] < lost[2], `${lost}`);
      assert.deepEqual(layer.quantised.map(({ bits }) => bits), ["8", "fp8", "4", "2"]);
      assert.deepEqual(layer.probes.map(({ distance }) => distance), [0, 1, 2, 4]);
    }
    const kept = { step: 12, data: TEXT, ...density! };
    assert.deepEqual(readDensity(folder), kept);
    const checkpoint = "runs/text/checkpoints/step_000004";
    const [first] = (await evaluated(cwd, checkpoint, "--density")).density!.layers;
    assert.notEqual(first.spectralRank, layers[0].spectralRank);
    assert.deepEqual(readDensity(folder), kept, "of the run's latest checkpoint alone");
    assert.equal(readDensity(join(cwd, checkpoint)), null);
    Deno.writeTextFileSync(join(folder, "density.json"), "{}");
    assert.equal(readDensity(folder), null, "a damaged file counts nothing");
    const { code, stdout } = await run(EVAL, ["runs/text", "--density"], cwd);
    assert.equal(code, 0);
    for (
      const row of [
        /^functional rank, of \d+( +\d+){2}$/m,
        /^distortion, fp8( +\d\S+){2}$/m,
        /^bits of token t − 4( +-?\d\.\d{3} of \d\.\d{3}){2}$/m,
        /^head tax( +0\.\d{4}){2}$/m,
      ]
    ) assert.match(stdout, row);
  });

  await t.step("losses by position are those of the logits", async () => {
    const { losses } = await countByHand(folder);
    checkPositions(report, losses);
    const edges = report.positions.map(({ from, to }) => [from, to]);
    assert.deepEqual(edges, [[0, 1], [1, 2], [2, 4], [4, 8], [8, 16], [16, 32]]);
  });

  await t.step("a checkpoint attends as in its own stage", async () => {
    const dense = await evaluated(cwd, "runs/text/checkpoints/step_000004");
    assert.equal(dense.step, 4);
    near(dense.loss, dense.swap!.dense, 1e-6);
    assert(Math.abs(dense.loss - dense.swap!.learned) > 1e-4);
  });

  await t.step("with k of all keys every selector is dense", async () => {
    const all = await evaluated(cwd, "runs/text", "indexTopk=32");
    for (const nats of [all.loss, ...Object.values(all.swap!)]) near(nats, swap.dense, 1e-5);
    const few = await evaluated(cwd, "runs/text", "indexTopk=4");
    assert(few.index!.mean.captured_mass < report.index!.mean.captured_mass);
  });

  await t.step("longer sequences than in training", async () => {
    const long = await evaluated(cwd, "runs/text", "seqLen=128", "evalBatches=2");
    assert.equal(long.batches, 2);
    assert.deepEqual(long.positions.at(-1), {
      ...{ from: 64, to: 128, count: 4 * 64 },
      loss: long.positions.at(-1)!.loss,
    });
    assert.equal(long.index!.layers[0].distance.length, 8);
  });

  await t.step("on the CPU", async () => {
    const cpu = await evaluated(cwd, "runs/text", "device=cpu");
    assert.match(cpu.device, /^cpu/);
    near(cpu.loss, report.loss, 1e-3, "loss");
    for (const [name, nats] of Object.entries(cpu.swap!)) near(nats, swap[name], 1e-3, name);
  });

  await t.step("a folder in Hugging Face's layout", async () => {
    const from = await latestCheckpoint(folder);
    await Deno.mkdir(join(cwd, "model"));
    for (const file of ["config.json", "model.safetensors", "tokenizer.json"]) {
      await Deno.copyFile(join(from, file), join(cwd, "model", file));
    }
    const keys = [`data=${TEXT}`, "batchSize=2", "evalBatches=1"];
    const copy = await evaluated(cwd, "model", ...keys);
    assert.deepEqual([copy.folder, copy.step], ["model", null]);
    assert.deepEqual(
      { ...copy, folder: "", step: 0 },
      { ...report, folder: "", step: 0 },
    );
  });

  await t.step("tables for people", async () => {
    const { code, stdout, stderr } = await run(EVAL, ["runs/text"], cwd);
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^runs\/text, step 12 \(stage sparse\): mla, sparse attention to 8 lat/);
    assert(stdout.includes(`loss ${report.loss.toFixed(4)} nats`), stdout);
    for (
      const row of [/^position +tokens +loss$/m, /^16-31 +32 +\d/m, /^captured_mass( +0\.\d+){3}$/m]
    ) {
      assert.match(stdout, row);
    }
    for (const [name, nats] of Object.entries(swap)) {
      assert.match(stdout, new RegExp(`^${name} +${nats.toFixed(4)} `, "m"));
    }
  });
  await Deno.remove(cwd, { recursive: true });
});

Deno.test("a task: accuracy, also by distance", async () => {
  const cwd = await Deno.makeTempDir();
  const task = ["data=recall", "taskVocab=6", "numPairs=2"];
  const folder = await trainIn(cwd, ...THREE_STAGES, ...task, "name=task");
  const report = await evaluated(cwd, "runs/task");
  const { losses, answers } = await countByHand(folder);
  checkPositions(report, losses);
  const share = (all: readonly { right: boolean }[]) =>
    all.filter(({ right }) => right).length / all.length;
  assert.equal(report.bitsPerByte, null);
  near(report.accuracy!, share(answers), 1e-12, "accuracy");
  assert(report.accuracyByDistance.length > 0);
  let counted = 0;
  for (const { from, to, count, accuracy } of report.accuracyByDistance) {
    const inside = answers.filter(({ distance }) => distance >= from && distance < to);
    assert.equal(count, inside.length);
    near(accuracy, share(inside), 1e-12, `accuracy from ${from} to ${to}`);
    counted += count;
  }
  assert.equal(counted, answers.length);

  const more = await evaluated(cwd, "runs/task", "evalBatches=12");
  const other = await evaluated(cwd, "runs/task", "evalBatches=12", "seed=5");
  assert.equal(more.accuracyByDistance.reduce((sum, { count }) => sum + count, 0), 12 * 2 * 2);
  assert(more.accuracy! > 0 && more.accuracy! < 1, "some answers are right, some wrong");
  assert.notEqual(more.loss, other.loss);
  // Each distance has as many answers, and those of all of them are the share of the indexer's table.
  const { goldRecallByDistance: gold, index } = report;
  assert.deepEqual(
    gold.map(({ from, to, count }) => [from, to, count]),
    report.accuracyByDistance.map(({ from, to, count }) => [from, to, count]),
  );
  const all = gold.reduce((sum, { count }) => sum + count, 0);
  const mean = (of: (row: typeof gold[number]) => number) =>
    gold.reduce((sum, row) => sum + row.count * of(row), 0) / all;
  near(mean(({ any }) => any), index!.mean.gold_recall_any as number, 1e-6, "any layer");
  near(mean(({ layers }) => layers[1]), index!.layers[1].gold_recall as number, 1e-6, "layer 1");
  // Brackets that are closed are not as many in each batch.
  const brackets = ["data=dyck", "taskVocab=9", "maxDepth=3", "evalBatches=5", "name=dyck"];
  await trainIn(cwd, ...THREE_STAGES, ...brackets);
  const { goldRecallByDistance: rows, index: own } = await evaluated(
    cwd,
    "runs/dyck",
    "evalBatches=5",
  );
  const closed = rows.reduce((sum, { count }) => sum + count, 0);
  const any = rows.reduce((sum, row) => sum + row.count * row.any, 0) / closed;
  near(any, own!.mean.gold_recall_any as number, 1e-6, "any layer, of all brackets");
  const { stdout } = await run(EVAL, ["runs/task", "--selectors"], cwd);
  assert.match(stdout, /^distance +answers +right$/m);
  assert.match(stdout, /^gold at distance +answers +any layer +layer 0 +layer 1$/m);
  assert.match(stdout, /to dense +right +gold recall$/m);
  await Deno.remove(cwd, { recursive: true });
});

Deno.test("a model without indexer", async () => {
  const cwd = await Deno.makeTempDir();
  await trainIn(cwd, ...SMALL, `data=${TEXT}`, "attention=gqa", "name=gqa");
  const report = await evaluated(cwd, "runs/gqa");
  assert.deepEqual([report.step, report.index, report.swap], [4, null, null]);
  const { code, stderr } = await run(EVAL, ["runs/gqa", "--selectors"], cwd);
  assert.equal(code, 2);
  assert.match(
    stderr,
    /^error: Cannot compare selectors of runs\/gqa: attention=gqa .*--selectors\n$/,
  );
  const density = await run(EVAL, ["runs/gqa", "--density"], cwd);
  assert.equal(density.code, 2);
  assert.match(density.stderr, /^error: Cannot measure the density of runs\/gqa: .*--density\n$/);
  assert(report.loss > 0);
  await Deno.remove(cwd, { recursive: true });
});

Deno.test("a model that selects by attention itself is trained, evaluated and sampled", async () => {
  const cwd = await Deno.makeTempDir();
  const folder = await trainIn(cwd, ...TEXT_RUN, "indexKeyInput=native", "recipe=dsa");
  const { step, index, swap } = await evaluated(cwd, folder);
  assert.equal(step, 8, "there is no warm-up");
  assert.equal(index!.mean.set_overlap, 1);
  assert.equal(swap!.learned, swap!.oracle);
  assert(Deno.readTextFileSync(join(folder, "report.html")).includes("Captured attention mass"));
  const { code, stdout, stderr } = await run(SAMPLE, [folder, "sampleTokens=30"], cwd);
  assert.equal(code, 0, stderr);
  assert(stdout.length > 8, stdout);
  await Deno.remove(cwd, { recursive: true });
});

Deno.test("a model's own number of tokens is the task's, where it has no text", async () => {
  const cwd = await Deno.makeTempDir();
  await Deno.mkdir(join(cwd, "golden"));
  await Deno.copyFile(join(GOLDEN, "config.json"), join(cwd, "golden/config.json"));
  await Deno.copyFile(
    join(GOLDEN, "weights.safetensors"),
    join(cwd, "golden/model.safetensors"),
  );
  const report = await evaluated(cwd, "golden", "data=copy", "seqLen=32", "evalBatches=1");
  assert.deepEqual([report.data, report.accuracyByDistance.length], ["copy", 1]);
  // Its weights are random: it cannot know the answers.
  assert(report.loss > 1 && report.accuracy! < 0.5, `${report.loss}, ${report.accuracy}`);
  await Deno.remove(cwd, { recursive: true });
});
