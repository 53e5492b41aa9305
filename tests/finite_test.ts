/** Numbers that are not finite: they end a run, and take the place of nothing good. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { missingEvaluations } from "../src/ablate/evaluations.ts";
import { resolveConfig } from "../src/config/config.ts";
import type { Batch, Dataset } from "../src/data/dataset.ts";
import type { Engine, EngineState, Metrics } from "../src/engine.ts";
import { sumOfFile } from "../src/files/checksum.ts";
import { evaluateModel } from "../src/eval/evaluate_model.ts";
import { loadModel } from "../src/runs/load_model.ts";
import { NotFinite } from "../src/model/finite.ts";
import { sample } from "../src/infer/sample.ts";
import { initialParameters } from "../src/model/parameters.ts";
import { stageSpans } from "../src/config/stages.ts";
import { latestCheckpoint, loadCheckpoint, saveCheckpoint } from "../src/runs/checkpoint.ts";
import { Diverged } from "../src/runs/diverged.ts";
import { readMetrics, readSummary, RunFolder } from "../src/runs/run_folder.ts";
import { Rng } from "../src/rng.ts";
import { evaluate } from "../src/measure/evaluate.ts";
import { measureIndexer, swapTest } from "../src/measure/indexer.ts";
import { StepLog } from "../src/train/step_log.ts";
import { CLI, MODEL, outcome, run, TEXT, trainIn } from "./train_run.ts";
import { refuses } from "./user_error.ts";

const config = resolveConfig({ numHiddenLayers: 2, recipe: "dense", steps: 9 });

function newState(): EngineState {
  const zeros = () =>
    new Map([...initialParameters(config)].map(([name, { length }]) => [
      name,
      new Float32Array(length),
    ]));
  return { parameters: initialParameters(config), m: zeros(), v: zeros() };
}

Deno.test("a state that is not finite is never saved, and never loaded", async () => {
  const root = await Deno.makeTempDir();
  const folder = RunFolder.create(config, { experiment: "e", root }).path;
  const snapshot = { config, tokenizer: null };
  const good = await saveCheckpoint(folder, { ...snapshot, step: 1, state: newState() });
  const name = "model.layers.1.mlp.down_proj.weight";
  const cases = [
    ["parameters", name, NaN, `${name} \\(layer 1\\) holds NaN at 5`],
    ["m", "model.norm.weight", Infinity, "first moment of model\\.norm\\.weight \\(outside"],
    ["v", name, -Infinity, `second moment of ${name} \\(layer 1\\) holds -Infinity at 5`],
  ] as const;
  for (const [part, tensor, value, message] of cases) {
    const state = newState();
    state[part].get(tensor)![5] = value;
    await assert.rejects(saveCheckpoint(folder, { ...snapshot, step: 2, state }), (error) => {
      assert(error instanceof Diverged && error.step === 2);
      assert.match(error.message, new RegExp(`step 2 \\(stage dense\\): ${message}`));
      return true;
    });
  }
  assert.equal(await latestCheckpoint(folder), good);

  // Zeros of the new moments become NaN on the disk, as an older program may have left them.
  const intact = await Deno.readTextFile(join(good, "manifest.json"));
  for (const file of ["model", "optimizer"]) {
    const manifest = JSON.parse(intact);
    const path = join(good, `${file}.safetensors`);
    const bytes = await Deno.readFile(path);
    const damaged = bytes.slice();
    new DataView(damaged.buffer).setUint32(bytes.length - 4, 0x7fc00000, true);
    await Deno.writeFile(path, damaged);
    manifest.files[`${file}.safetensors`] = sumOfFile(path);
    await Deno.writeTextFile(join(good, "manifest.json"), JSON.stringify(manifest));
    await refuses(
      () => loadCheckpoint(good),
      /Cannot load .*: \S+ holds NaN at \d+; take an earlier/,
    );
    await Deno.writeFile(path, bytes);
    await Deno.writeTextFile(join(good, "manifest.json"), intact);
  }
  await loadCheckpoint(good);
  await Deno.remove(root, { recursive: true });
});

/** An engine whose steps have made these metrics. */
function engineWith(rows: Metrics[]): Engine {
  const engine = {
    metrics: () => Promise.resolve(rows),
    exportState: () => Promise.resolve(newState()),
  };
  return engine as unknown as Engine;
}

Deno.test("a divergence has the step whose numbers are not finite", async () => {
  const [span] = stageSpans(config.stages);
  const job = { config, progress: { update() {}, note() {} }, skipped: { count: 0 } };
  for (const bad of [0, 1, 4]) {
    const rows = Array.from(
      { length: 5 },
      (_, i) => ({ loss: i === bad ? NaN : 1, "grad/norm/backbone": 1 }),
    );
    const log = new StepLog(job, { span, engine: engineWith(rows), first: 3 });
    await assert.rejects(log.read(8), (error) => {
      assert(error instanceof Diverged);
      assert.equal(error.step, 3 + bad + 1);
      assert.match(error.message, /loss is NaN, all weights and moments are finite/);
      return true;
    });
  }
});

Deno.test("a run whose last update is too large has failed, though its losses were finite", async () => {
  const cwd = await Deno.makeTempDir();
  const args = [...MODEL, "recipe=dense", "name=wild", "steps=1", "lr=4e38"];
  const { code, stderr } = await run(CLI, args, cwd);
  assert.equal(code, 1, stderr);
  const error =
    /error: Training diverged at step 1 \(stage dense\): val\/loss is NaN, \S+ \(.*\) holds -?(Infinity|NaN) at \d+; lower lr or clip: resume=runs\/wild lr=/;
  assert.match(stderr, error);
  assert.equal(readSummary(join(cwd, "runs/wild"))!.status, "failed");
  assert.deepEqual(readMetrics(join(cwd, "runs/wild/metrics.jsonl")), []);
  await refuses(() => latestCheckpoint(join(cwd, "runs/wild")), /holds no checkpoint/);
  // Nothing was saved: it starts again, with another rate.
  await trainIn(cwd, "resume=runs/wild", "lr=1e-3");
  const { state } = await outcome(join(cwd, "runs/wild"));
  const fresh = await trainIn(cwd, ...MODEL, "recipe=dense", "name=tame", "steps=1", "lr=1e-3");
  assert.deepEqual(state, (await outcome(fresh)).state);
  await Deno.remove(cwd, { recursive: true });
});

Deno.test("a failed run goes back to its last good checkpoint, and on with other rates", async () => {
  const cwd = await Deno.makeTempDir();
  const words = [...MODEL, "recipe=dsa", "steps=9", "warmup.steps=3", "sparse.steps=6"];
  const { code, stderr } = await run(CLI, [...words, "name=wild", "sparse.lr=4e38"], cwd);
  assert.equal(code, 1, stderr);
  assert.match(stderr, /diverged at step 1\d \(stage sparse\)/);
  assert.match(await latestCheckpoint(join(cwd, "runs/wild")), /step_000012$/);
  const wrong = await run(CLI, ["resume=runs/wild", "dense.lr=1e-3"], cwd);
  assert.match(wrong.stderr, /other stages: .*of stages that are not over/);
  await trainIn(cwd, "resume=runs/wild", "sparse.lr=1e-3");
  const tame = await trainIn(cwd, ...words, "name=tame", "sparse.lr=1e-3");
  assert.deepEqual(await outcome(join(cwd, "runs/wild")), await outcome(tame));
  // A run that is done keeps its rates.
  const done = await run(CLI, ["resume=runs/wild", "lr=1e-3"], cwd);
  assert.equal(done.code, 2);
  await Deno.remove(cwd, { recursive: true });
});

Deno.test("evaluations, swap tests and samples that are not finite are refused where they are made", async () => {
  const batch: Batch = {
    tokens: Int32Array.of(1, 2),
    targets: Int32Array.of(2, 3),
    count: 2,
    answers: [{ position: 0, distance: 1 }],
  };
  const engine = {
    ...engineWith([]),
    evaluate: () => Promise.resolve({ loss: 2, "index/0/0": NaN }),
    logits: () => Promise.resolve(Float32Array.of(NaN, 0, 0, 0, NaN, 0, 0, 0)),
  } as unknown as Engine;
  const stage = config.stages[0];
  const blind = {
    ...engine,
    evaluate: () => Promise.resolve({ loss: NaN }),
    logits: () => Promise.resolve(new Float32Array(8)),
  } as unknown as Engine;
  const dataset = {
    batch: () => batch,
    validationBatches: 1,
  } as unknown as Dataset;
  const cases: [() => Promise<unknown>, RegExp][] = [
    [() => evaluate(blind, { dataset, batches: 1 }), /^val\/loss is NaN$/],
    // NaN logits have no largest one: no answer would be right, which is a number.
    [() => evaluate(engine, { dataset, batches: 1 }), /largest logit is NaN/],
    [() => measureIndexer(engine, { config, stage, batch }), /^index\/0\/\S+ is NaN$/],
    [() => swapTest(blind, { config, stage, batches: [batch] }), /^swap\/dense is NaN$/],
    [
      () =>
        sample(engine, {
          ...{ prompt: [1], count: 1, temperature: 0, seqLen: 2, vocabSize: 4 },
          decoding: null,
          rng: new Rng(1, "x"),
        }),
      /largest logit is NaN/,
    ],
  ];
  for (const [action, message] of cases) {
    await assert.rejects(action, (error) => {
      assert(error instanceof NotFinite, String(error));
      assert.match(error.message, message);
      return true;
    });
  }
});

Deno.test("a model of finite weights whose losses are not finite is not evaluated", async () => {
  const root = await Deno.makeTempDir();
  const small = resolveConfig({ recipe: "dense", data: TEXT, tokenizer: "byte" }, [
    ...["hiddenSize=32", "numHiddenLayers=1", "numAttentionHeads=2", "intermediateSize=48"],
    ...["batchSize=2", "seqLen=32", "evalBatches=1"],
  ]);
  const folder = RunFolder.create(small, { experiment: "e", root }).path;
  const parameters = initialParameters(small);
  const zeros = new Map(
    [...parameters].map(([name, { length }]) => [name, new Float32Array(length)]),
  );
  for (const name of ["model.norm.weight", "lm_head.weight"]) parameters.get(name)!.fill(3e38);
  const state = { parameters, m: zeros, v: zeros };
  await saveCheckpoint(folder, { config: small, tokenizer: null, step: 1, state });
  const model = await loadModel(folder);
  await refuses(() => evaluateModel(model), /Cannot evaluate .*: loss is NaN, though its weights/);
  await Deno.remove(root, { recursive: true });
});

Deno.test("an evaluation of a run that was not finite is to be made again", async () => {
  const folder = await Deno.makeTempDir();
  const evaluate = { "k=2": { indexTopk: 2 }, "k=4": { indexTopk: 4 } };
  const saved = (loss: number | null) => ({ "val/loss": loss, "val/bpb": 1 });
  const all = {
    "k=2": { keys: evaluate["k=2"], metrics: saved(null) },
    "k=4": { keys: evaluate["k=4"], metrics: saved(2) },
  };
  await Deno.writeTextFile(join(folder, "evaluations.json"), JSON.stringify(all));
  assert.deepEqual(missingEvaluations(folder, evaluate), [["k=2", evaluate["k=2"]]]);
  await Deno.remove(folder, { recursive: true });
});
