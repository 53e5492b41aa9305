import assert from "node:assert/strict";
import { join } from "node:path";
import { openDataset } from "../src/data/dataset.ts";
import type { Engine } from "../src/engine.ts";
import type { EvaluationReport } from "../src/eval/evaluate_model.ts";
import { Buckets } from "../src/eval/positions.ts";
import { sample } from "../src/infer/sample.ts";
import { modelParameters } from "../src/model/parameters.ts";
import { languageModel } from "../src/model/transformer.ts";
import { openDevice } from "../src/open_device.ts";
import { Rng } from "../src/rng.ts";
import { checkpointView, latestCheckpoint, loadCheckpoint } from "../src/train/checkpoint.ts";
import { readMetrics } from "../src/train/run_folder.ts";

const TRAIN = new URL("../src/train/cli.ts", import.meta.url).pathname;
const EVAL = new URL("../src/eval/cli.ts", import.meta.url).pathname;
const SAMPLE = new URL("../src/infer/cli.ts", import.meta.url).pathname;
const TEXT = new URL("fixtures/moby_excerpt.txt", import.meta.url).pathname;
const GOLDEN = new URL("golden/even", import.meta.url).pathname;

const SMALL = [
  "hiddenSize=32",
  "numHiddenLayers=2",
  "numAttentionHeads=2",
  "intermediateSize=48",
  "indexTopk=8",
  "seqLen=32",
  "batchSize=2",
  "steps=4",
  "evalBatches=1",
  "sampleTokens=0",
  // Far from where it starts, so that no two selectors give the same loss.
  "initializerRange=0.3",
  "keepCheckpoints=3",
];
const THREE_STAGES = [...SMALL, "warmup.steps=4", "sparse.steps=4"];
const TEXT_RUN = [...THREE_STAGES, `data=${TEXT}`, "tokenizer=byte"];

async function run(script: string, args: string[], cwd: string) {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", script, ...args],
    cwd,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

async function trainIn(cwd: string, ...args: string[]): Promise<string> {
  const { code, stderr, stdout } = await run(TRAIN, args, cwd);
  assert.equal(code, 0, stderr);
  return join(cwd, stdout.trim().split("\n").at(-1)!);
}

async function evaluated(cwd: string, ...args: string[]): Promise<EvaluationReport> {
  const { code, stdout, stderr } = await run(EVAL, [...args, "--json"], cwd);
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout);
}

function near(got: number, want: number, relative = 1e-4, what = ""): void {
  const difference = Math.abs(got - want);
  assert(difference <= relative * Math.abs(want) + 1e-7, `${what}: ${got} instead of ${want}`);
}

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

Deno.test("buckets are [0, 1), [1, 2), [2, 4), [4, 8) … and hold all values", () => {
  const seed = Date.now() % 2 ** 32;
  const buckets = new Buckets();
  const rng = new Rng(seed, "buckets");
  const values = Array.from(
    { length: 200 },
    () => ({ place: rng.below(100), value: rng.below(7) }),
  );
  for (const { place, value } of values) buckets.add(place, value);
  const got = buckets.read(100);
  for (const { from, to, count, mean } of got) {
    const inside = values.filter(({ place }) => place >= from && place < to);
    assert.equal(count, inside.length, `seed ${seed}`);
    near(mean, inside.reduce((sum, { value }) => sum + value, 0) / count, 1e-12, `seed ${seed}`);
  }
  assert.equal(got.reduce((sum, { count }) => sum + count, 0), 200);
  assert(got.at(-1)!.to <= 100, `seed ${seed}`);
  near(buckets.total().mean, values.reduce((sum, { value }) => sum + value, 0) / 200, 1e-12);

  const edges = new Buckets();
  for (const place of [0, 1, 2, 3, 4, 7, 8]) edges.add(place, 1);
  assert.deepEqual(
    edges.read().map(({ from, to, count }) => [from, to, count]),
    [[0, 1, 1], [1, 2, 1], [2, 4, 2], [4, 8, 2], [8, 16, 1]],
  );
});

Deno.test("a run of three stages", async (t) => {
  const cwd = await Deno.makeTempDir();
  const folder = await trainIn(cwd, ...TEXT_RUN, "name=text");
  const report = await evaluated(cwd, "runs/text");
  const logged = readMetrics(join(folder, "metrics.jsonl")).at(-1)! as Record<string, number>;
  const swap = report.swap!;

  await t.step("the report is that of the log", () => {
    const keys = ["folder", "step", "device", "data", "batches", "loss", "bitsPerByte"];
    const rest = ["positions", "accuracy", "accuracyByDistance", "index", "swap"];
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
  const { stdout } = await run(EVAL, ["runs/task"], cwd);
  assert.match(stdout, /^distance +answers +right$/m);
  await Deno.remove(cwd, { recursive: true });
});

Deno.test("a model without indexer", async () => {
  const cwd = await Deno.makeTempDir();
  await trainIn(cwd, ...SMALL, `data=${TEXT}`, "attention=gqa", "name=gqa");
  const report = await evaluated(cwd, "runs/gqa");
  assert.deepEqual([report.step, report.index, report.swap], [4, null, null]);
  assert(report.loss > 0);
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

Deno.test("text is generated token by token, of the tokenizer's tokens only", async () => {
  // Likeliest is what stands one place on, but for the last, which is no token of the tokenizer.
  const windows: number[][] = [];
  const engine = {
    logits(window: Int32Array, row: number) {
      windows.push([...window.subarray(0, row + 1)]);
      const logits = Float32Array.of(0, 0, 0, 0, 9);
      logits[(window[row] + 1) % 4] = 5;
      return Promise.resolve(logits);
    },
  } as unknown as Engine;
  const options = { prompt: [2], count: 4, temperature: 0, seqLen: 3, rng: new Rng(1, "") };
  assert.deepEqual([...await sample(engine, { ...options, vocabSize: 4 })], [3, 0, 1, 2]);
  assert.deepEqual(windows, [[2], [2, 3], [2, 3, 0], [3, 0, 1]]);
  assert.equal((await sample(engine, options))[0], 4);
});

Deno.test("deno task sample", async (t) => {
  const cwd = await Deno.makeTempDir();
  const sampled = async (...args: string[]) => {
    const { code, stdout, stderr } = await run(SAMPLE, args, cwd);
    return { code, stdout, stderr };
  };
  const refuses = async (args: string[], message: RegExp) => {
    const { code, stdout, stderr } = await sampled(...args);
    assert.deepEqual([code, stdout], [2, ""], stderr);
    assert.match(stderr, /^error: Cannot [^\n]+\n$/);
    assert.match(stderr, message);
  };
  // More tokens than the tokenizer has: none of them may be drawn, in training neither.
  const more = ["vocabSize=400", "sampleTokens=40", "temperature=3"];
  const folder = await trainIn(cwd, ...TEXT_RUN, ...more, "name=text");
  const keys = ["prompt=Whale", "sampleTokens=20", "temperature=0"];
  const { code, stdout, stderr } = await sampled("runs/text", ...keys);
  assert.equal(code, 0, stderr);
  assert(stdout.startsWith("Whale") && stdout.length > 6, stdout);

  await t.step("a checkpoint, and a folder in Hugging Face's layout", async () => {
    const newest = await latestCheckpoint(folder);
    assert.equal((await sampled(newest, ...keys)).stdout, stdout);
    await Deno.mkdir(join(cwd, "model"));
    for (const file of ["config.json", "model.safetensors", "tokenizer.json"]) {
      await Deno.copyFile(join(newest, file), join(cwd, "model", file));
    }
    assert.equal((await sampled("model", ...keys)).stdout, stdout);
    await Deno.remove(join(cwd, "model/tokenizer.json"));
    await refuses(["model"], /sample model: tokenizer\.json is missing/);
  });

  await t.step("refuses what cannot be sampled", async () => {
    await trainIn(cwd, ...SMALL, "recipe=dense", "data=copy", "name=task");
    await Deno.mkdir(join(cwd, "abl"));
    await Deno.writeTextFile(join(cwd, "abl/results.json"), '{"runs":[]}');
    await refuses(["nowhere"], /sample nowhere: there is no such folder/);
    await refuses(["abl"], /sample abl: it is an ablation/);
    await refuses(["runs"], /sample runs: neither a run/);
    await refuses(["runs/task"], /sample runs\/task: data=copy has no text/);
    await refuses(["runs/text", "steps=5"], /"steps": sample takes prompt, sampleTokens/);
    await refuses(["runs/text", "runs/task"], /sample runs\/text and runs\/task: give one/);
  });

  await t.step("MoSA, whose heads look ahead, has no samples", async () => {
    const args = [...SMALL, "attention=mosa", `data=${TEXT}`, "name=mosa", "sampleEvery=2"];
    const trained = await run(TRAIN, [...args, "sampleTokens=5"], cwd);
    assert.equal(trained.code, 0, trained.stderr);
    assert.equal(trained.stderr.match(/^no samples: .*attention=mosa pick.*$/gm)?.length, 1);
    assert.equal(await Deno.readTextFile(join(cwd, "runs/mosa/samples.txt")), "");
    await refuses(["runs/mosa"], /sample runs\/mosa: heads of attention=mosa pick among all/);
  });
  await Deno.remove(cwd, { recursive: true });
});

const WRONG: [args: string[], message: RegExp][] = [
  [["runs/none"], /runs\/none: there is no such folder/],
  [["runs"], /runs: neither a run .* nor a model/],
  [["runs/new"], /runs\/new: the run has saved no checkpoint/],
  [["runs/good", "evalBatchs=3"], /"evalBatchs": did you mean evalBatches\?/],
  [["runs/good", "hiddenSize=64"], /"hiddenSize": eval takes device, data/],
  [["runs/good", "sparse.indexTopk=3"], /"sparse.indexTopk": .*indexTopk/],
  [["runs/good", "seqLen=one"], /seqLen=one: expected a whole number/],
  [["runs/good", "seqLen=300000"], /seqLen=300000: the text has only/],
  [["runs/good", "data=nowhere.txt"], /nowhere\.txt/],
  [["runs/good", "batchSize=4000", "seqLen=1024"], /[GM]iB.*lower batchSize \(4000\)/],
  [["runs/good", "runs/new"], /runs\/good and runs\/new/],
  [["runs/good", "--fast"], /"--fast": the options are --help, --json/],
  [["golden"], /golden: it does not tell its data; add data=/],
  [["golden", `data=${TEXT}`], /no tokenizer\.json, and its 40 tokens are not bytes/],
  [["runs/good", "data=copy"], /runs\/good on data=copy: its tokens are those of a text, .*use a/],
  [["runs/task", `data=${TEXT}`], /its tokens are the symbols of data=copy; use copy, recall or/],
  [["abl"], /abl: it is an ablation; give one of its runs, abl\/runs\/…/],
  [["foreign"], /foreign\/state\.json: it is no configuration of latentk \(.*"model_type"/],
  [["list"], /list\/state\.json: it is no configuration of latentk \(stages is no list/],
  [["weights"], /weights: config\.json is missing/],
  [["other", `data=${TEXT}`], /embed_tokens\.weight is F32 \[256,32\], .* F32 \[40,32\]/],
];

Deno.test("wrong input gives one clear line and exit code 2", async (t) => {
  const cwd = await Deno.makeTempDir();
  const good = await latestCheckpoint(await trainIn(cwd, ...TEXT_RUN, "name=good"));
  await trainIn(cwd, ...SMALL, "recipe=dense", "data=copy", "name=task");
  for (const folder of ["runs/new", "golden", "weights", "other", "abl", "foreign", "list"]) {
    await Deno.mkdir(join(cwd, folder));
  }
  await Deno.writeTextFile(join(cwd, "runs/new/metrics.jsonl"), "");
  await Deno.writeTextFile(join(cwd, "abl/results.json"), '{"runs":[]}');
  const state = JSON.parse(await Deno.readTextFile(join(good, "state.json")));
  for (const [folder, config] of [["foreign", { model_type: "gpt2" }], ["list", { stages: 3 }]]) {
    const text = JSON.stringify({ ...state, config });
    await Deno.writeTextFile(join(cwd, `${folder}/state.json`), text);
  }
  const copies = [
    [join(GOLDEN, "config.json"), "golden/config.json"],
    [join(GOLDEN, "weights.safetensors"), "golden/model.safetensors"],
    [join(good, "model.safetensors"), "weights/model.safetensors"],
    [join(good, "model.safetensors"), "other/model.safetensors"],
    [join(good, "tokenizer.json"), "other/tokenizer.json"],
    [join(GOLDEN, "config.json"), "other/config.json"],
  ];
  for (const [from, to] of copies) await Deno.copyFile(from, join(cwd, to));
  for (const [args, message] of WRONG) {
    await t.step(args.join(" ").replace(TEXT, "text"), async () => {
      const { code, stdout, stderr } = await run(EVAL, [...args, "--json"], cwd);
      assert.equal(code, 2, stderr);
      assert.equal(stdout, "");
      assert.match(stderr, /^error: Cannot [^\n]+\n$/);
      assert.match(stderr, message);
    });
  }
  await t.step("--help", async () => {
    const { code, stdout } = await run(EVAL, ["--help"], cwd);
    assert.equal(code, 0);
    assert.match(stdout, /usage: deno task eval/);
  });
  await Deno.remove(cwd, { recursive: true });
});
