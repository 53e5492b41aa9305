/** Numbers that are not finite: they end a run, and take the place of nothing good. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { resolveConfig } from "../src/config/config.ts";
import type { Engine, EngineState, Metrics } from "../src/engine.ts";
import { initialParameters } from "../src/model/parameters.ts";
import { stageSpans } from "../src/config/stages.ts";
import { latestCheckpoint, loadCheckpoint, saveCheckpoint } from "../src/runs/checkpoint.ts";
import { Diverged } from "../src/runs/diverged.ts";
import { readMetrics, readSummary, RunFolder } from "../src/runs/run_folder.ts";
import { StepLog } from "../src/train/step_log.ts";
import { CLI, MODEL, outcome, run, trainIn } from "./train_run.ts";
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
  for (const file of ["model", "optimizer"]) {
    const path = join(good, `${file}.safetensors`);
    const bytes = await Deno.readFile(path);
    const damaged = bytes.slice();
    new DataView(damaged.buffer).setUint32(bytes.length - 4, 0x7fc00000, true);
    await Deno.writeFile(path, damaged);
    await refuses(
      () => loadCheckpoint(good),
      /Cannot load .*: \S+ holds NaN at \d+; take an earlier/,
    );
    await Deno.writeFile(path, bytes);
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
  const job = { config, progress: { update() {}, note() {} } };
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
