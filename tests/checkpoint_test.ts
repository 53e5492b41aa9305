import assert from "node:assert/strict";
import { join } from "node:path";
import { resolveConfig, type RunConfig } from "../src/config/config.ts";
import type { EngineState } from "../src/engine.ts";
import { UserError } from "../src/errors.ts";
import { modelParameters } from "../src/model/parameters.ts";
import { Rng } from "../src/rng.ts";
import { readSafetensors } from "../src/files/safetensors.ts";
import {
  checkpointAt,
  checkpointView,
  keepLatestCheckpoint,
  latestCheckpoint,
  loadCheckpoint,
  saveCheckpoint,
} from "../src/runs/checkpoint.ts";
import type { Snapshot } from "../src/runs/checkpoint_files.ts";
import { readMetrics, RunFolder } from "../src/runs/run_folder.ts";

const seed = Math.floor(Math.random() * 2 ** 32);
const config = resolveConfig({
  vocabSize: 40,
  hiddenSize: 16,
  intermediateSize: 24,
  numHiddenLayers: 2,
  recipe: "dsa_twin",
  steps: 100,
  seqLen: 64,
  indexTopk: 9,
});

function snapshotOf(step: number, changes: Partial<RunConfig> = {}): Snapshot {
  const state: EngineState = { parameters: new Map(), m: new Map(), v: new Map() };
  for (const [kind, values] of Object.entries(state)) {
    for (const { name, rows, cols } of modelParameters(config)) {
      const data = new Float32Array(rows * cols);
      new Rng(seed, `${kind} ${step} ${name}`).fillNormal(data);
      values.set(name, data);
    }
  }
  const data = { files: ["a.txt"], bytes: 3, sha256: "ba78" };
  return { step, config: { ...config, ...changes }, state, tokenizer: { version: "1.0" }, data };
}

/** Runs `body` with the path of a new run. */
async function withRun(body: (run: string) => Promise<void>): Promise<void> {
  const root = await Deno.makeTempDir();
  try {
    await body(RunFolder.create(config, { experiment: "x", root }).path);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

function names(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
}

async function refused(promise: Promise<unknown>, expected: RegExp): Promise<void> {
  await assert.rejects(promise, (error: Error) => {
    assert(error instanceof UserError, `not a UserError: ${error}`);
    assert.match(error.message, /^[^\n]*[^.\n]$/);
    assert.match(error.message, expected);
    return true;
  });
}

Deno.test("a checkpoint gives back what was saved, bit for bit", () =>
  withRun(async (run) => {
    const snapshot = snapshotOf(7);
    const path = await saveCheckpoint(run, snapshot);
    assert.equal(path, join(run, "checkpoints", "step_000007"));
    assert.equal(await latestCheckpoint(run), path);
    const { path: _, logs, ...found } = await loadCheckpoint(path);
    assert.deepEqual(found, snapshot, `seed ${seed}`);
    assert.deepEqual([logs.metrics, logs.samples], [0, 0]);
    const model = await loadCheckpoint(path, { optimizer: false });
    assert.deepEqual(model.state, { ...snapshot.state, m: new Map(), v: new Map() });

    const hf = JSON.parse(Deno.readTextFileSync(join(path, "config.json")));
    assert.deepEqual(hf.architectures, ["DeepseekV32ForCausalLM"]);
    const { tensors, metadata } = await readSafetensors(join(path, "model.safetensors"));
    assert.equal(metadata.format, "pt");
    assert.deepEqual(tensors.get("model.norm.weight")!.shape, [16]);
    assert.deepEqual(tensors.get("lm_head.weight")!.shape, [40, 16]);
    const router = tensors.get("model.layers.1.self_attn.indexer.weights_proj.weight")!;
    assert.deepEqual(router.shape, [config.indexNHeads, 16]);
  }));

Deno.test("a checkpoint has the attention of the stage it was saved in", () =>
  withRun(async (run) => {
    // dense ends at 100, warmup at 120, the dense twin at 140, sparse at 160.
    const cases: [number, string, number][] = [
      [0, "dense", 64],
      [100, "dense", 64],
      [120, "dense", 64],
      [121, "dense", 64],
      [140, "dense", 64],
      [141, "learned", 9],
      [160, "learned", 9],
      [9999, "learned", 9],
    ];
    for (const [step, selector, indexTopk] of cases) {
      const path = await saveCheckpoint(run, snapshotOf(step));
      const hf = JSON.parse(Deno.readTextFileSync(join(path, "config.json")));
      assert.equal(hf.index_topk, indexTopk, `step ${step}`);
      const { kl, trainsIndexer, ...view } = checkpointView(await loadCheckpoint(path));
      assert.deepEqual([view.selector, kl, trainsIndexer], [selector, "none", false]);
    }
  }));

Deno.test("a checkpoint that a later stage starts from is kept", () =>
  withRun(async (run) => {
    for (const step of [50, 100, 110, 120, 130, 140]) {
      await saveCheckpoint(run, snapshotOf(step, { keepCheckpoints: 1 }));
    }
    // The twin starts at 100, the sparse stage at 120.
    assert.deepEqual(names(join(run, "checkpoints")), [
      "step_000100",
      "step_000120",
      "step_000140",
    ]);
    assert.equal((await loadCheckpoint(checkpointAt(run, 100))).step, 100);
  }));

Deno.test("the end of the last stage with an indexer is kept, whatever comes after it", () =>
  withRun(async (run) => {
    const { stages } = resolveConfig({
      stages: [
        ...[{ name: "dense", steps: 30 }, { name: "warmup", steps: 10 }],
        ...[{ name: "sparse", steps: 20 }, { name: "twin", steps: 20 }],
      ],
      warmupSteps: 0,
    });
    for (const step of [30, 40, 50, 60, 70, 80]) {
      await saveCheckpoint(run, snapshotOf(step, { keepCheckpoints: 1, stages }));
    }
    const kept = names(join(run, "checkpoints"));
    assert.deepEqual(kept, ["step_000030", "step_000060", "step_000080"]);
    await keepLatestCheckpoint(run, { ...config, stages });
    assert.deepEqual(names(join(run, "checkpoints")), ["step_000060", "step_000080"]);
    const view = checkpointView(await loadCheckpoint(checkpointAt(run, 60)));
    assert.equal(view.selector, "learned");
  }));

Deno.test("the newest checkpoints are kept, the others removed", () =>
  withRun(async (run) => {
    for (const step of [5, 10, 999_999, 1_000_000]) {
      await saveCheckpoint(run, snapshotOf(step, { keepCheckpoints: 2 }));
    }
    assert.deepEqual(names(join(run, "checkpoints")), ["step_1000000", "step_999999"]);
    assert.match(await latestCheckpoint(run), /step_1000000$/);
    assert.equal((await loadCheckpoint(await latestCheckpoint(run))).step, 1_000_000);
  }));

Deno.test("what a killed run left half-written is passed over and removed", () =>
  withRun(async (run) => {
    const path = await saveCheckpoint(run, snapshotOf(5));
    const folder = join(run, "checkpoints");
    for (const left of ["step_000010.partial", "step_000003.removed"]) {
      Deno.mkdirSync(join(folder, left));
      Deno.writeTextFileSync(join(folder, left, "model.safetensors"), "cut o");
    }
    assert.equal(await latestCheckpoint(run), path);
    await saveCheckpoint(run, snapshotOf(10));
    assert.deepEqual(names(folder), ["step_000005", "step_000010"]);
  }));

Deno.test("a full disk leaves the earlier checkpoint and no rubbish", () =>
  withRun(async (run) => {
    const path = await saveCheckpoint(run, snapshotOf(5, { keepCheckpoints: 1 }));
    const full = snapshotOf(10, { keepCheckpoints: 1 });
    const values = full.state.v.get("lm_head.weight")!;
    // The writer asks for the memory when it has written all the files before.
    Object.defineProperty(values, "buffer", {
      get: () => {
        throw Object.assign(new Error("No space left on device (os error 28)"), { code: "ENOSPC" });
      },
    });
    await assert.rejects(
      saveCheckpoint(run, full),
      /^WriteError: Cannot save \S*step_000010: No space left.*earlier checkpoints are intact.*resume=/,
    );
    assert.deepEqual(names(join(run, "checkpoints")), ["step_000005"]);
    assert.equal((await loadCheckpoint(path)).step, 5);
    await saveCheckpoint(run, snapshotOf(10, { keepCheckpoints: 1 }));
    assert.deepEqual(names(join(run, "checkpoints")), ["step_000010"]);
  }));

Deno.test("runs without a checkpoint are told so", () =>
  withRun(async (run) => {
    await refused(latestCheckpoint(run), /holds no checkpoint.*start a new run/);
    await refused(latestCheckpoint(`${run}_none`), /there is no such folder/);
    await refused(loadCheckpoint(join(run, "checkpoints", "step_000001")), /no such folder/);
    await refused(loadCheckpoint(run), /state\.json is missing/);
    const path = await saveCheckpoint(run, snapshotOf(5));
    await refused(latestCheckpoint(path), new RegExp(`it is a checkpoint; give its run, ${run}$`));
  }));

Deno.test("damaged and foreign checkpoints are refused by name", () =>
  withRun(async (run) => {
    const path = await saveCheckpoint(run, snapshotOf(5));
    // Without the checksums that would show any change.
    Deno.removeSync(join(path, "manifest.json"));
    const edit = (key: string, value: unknown) => (file: string) => {
      const state = JSON.parse(Deno.readTextFileSync(file));
      Deno.writeTextFileSync(file, JSON.stringify({ ...state, [key]: value }));
    };
    edit("version", 2)(join(path, "state.json"));
    const cut = (file: string) => Deno.truncateSync(file, Deno.statSync(file).size - 3);
    const cases: [string, (file: string) => void, RegExp][] = [
      ["state.json", Deno.removeSync, /state\.json is missing/],
      ["state.json", (file) => Deno.truncateSync(file, 50), /state\.json is damaged/],
      ["state.json", edit("format", "other"), /no checkpoint of latentk/],
      ["state.json", edit("version", 99), /version is 99/],
      ["state.json", edit("version", { toString: 1 }), /version is {"toString":1}/],
      ["state.json", edit("step", "5"), /state\.json is damaged/],
      ["state.json", edit("config", { ...config, stepz: 5 }), /state\.json: .*"stepz"/],
      ["state.json", edit("config", { ...config, kvLoraRank: 7 }), /kv_.* is F32 .*needs F32/],
      [
        "state.json",
        edit("config", { ...config, numHiddenLayers: 1 }),
        /no parameter model\.layers\.1/,
      ],
      ["state.json", edit("config", { ...config, numHiddenLayers: 3 }), /layers\.2\..*is missing/],
      ["model.safetensors", Deno.removeSync, /model\.safetensors: there is no such file/],
      ["model.safetensors", cut, /model\.safetensors: .*damaged/],
      ["optimizer.safetensors", cut, /optimizer\.safetensors: .*damaged/],
      ["tokenizer.json", cut, /tokenizer\.json is damaged/],
    ];
    for (const [name, damage, expected] of cases) {
      const file = join(path, name);
      const before = Deno.readFileSync(file);
      damage(file);
      await refused(loadCheckpoint(path), expected);
      Deno.writeFileSync(file, before);
    }
    await loadCheckpoint(path);
  }));

/** A run that logs a row a step and saves every third step, as fast as it can, for ever. */
const endlessRun = (run: string) => `
import { resolveConfig } from "${import.meta.resolve("../src/config/config.ts")}";
import { modelParameters } from "${import.meta.resolve("../src/model/parameters.ts")}";
import * as checkpoint from "${import.meta.resolve("../src/runs/checkpoint.ts")}";
import { RunFolder } from "${import.meta.resolve("../src/runs/run_folder.ts")}";
const path = await checkpoint.latestCheckpoint(${JSON.stringify(run)});
const { step: from, config, logs } = await checkpoint.loadCheckpoint(path);
const folder = RunFolder.resume(${JSON.stringify(run)}, { config, logs });
console.log("running");
for (let step = from + 1;; step++) {
  folder.log(step, { "train/loss": 1 / step });
  if (step % 3) continue;
  const values = () => new Map(modelParameters(config).map(({ name, rows, cols }) =>
    [name, new Float32Array(rows * cols).fill(step)]));
  const state = { parameters: values(), m: values(), v: values() };
  await checkpoint.saveCheckpoint(folder.path, { step, config, state, tokenizer: null });
}`;

Deno.test("kill -9 at any moment leaves a run that goes on where its checkpoint was", () =>
  withRun(async (run) => {
    await saveCheckpoint(run, { ...snapshotOf(0), tokenizer: null });
    let last = 0;
    for (let round = 0; round < 3 || last === 0; round++) {
      assert(round < 20, "no run came to its first checkpoint");
      const child = new Deno.Command(Deno.execPath(), {
        args: ["eval", endlessRun(run)],
        stdout: "piped",
      }).spawn();
      const reader = child.stdout.getReader();
      assert.equal((await reader.read()).done, false, "the run did not start");
      const ms = (20 + Math.random() * 200) * (1 + round / 3);
      await new Promise((resolve) => setTimeout(resolve, ms));
      child.kill("SIGKILL");
      await reader.cancel();
      await child.status;

      const found = await loadCheckpoint(await latestCheckpoint(run));
      assert(found.step >= last && found.step % 3 === 0, `killed after ${ms} ms`);
      last = found.step;
      if (last === 0) continue;
      for (const tensors of Object.values(found.state)) {
        for (const data of tensors.values()) {
          assert(data.every((value: number) => value === last), `killed after ${ms} ms`);
        }
      }
      RunFolder.resume(run, found);
      const steps = readMetrics(join(run, "metrics.jsonl")).map(({ step }) => step);
      assert.deepEqual(steps, Array.from({ length: last }, (_, i) => i + 1));
    }
  }));
