import assert from "node:assert/strict";
import { join } from "node:path";
import { resolveConfig } from "../src/config/config.ts";
import { loadModel } from "../src/runs/load_model.ts";
import { modelParameters } from "../src/model/parameters.ts";
import { readRun } from "../src/report/run/run_data.ts";
import { writeReportAfterTraining } from "../src/report/run/run_report.ts";
import { Rng } from "../src/rng.ts";
import { loadNewest, setAsideLater } from "../src/runs/newest_checkpoint.ts";
import { checkpointAt, loadCheckpoint, saveCheckpoint } from "../src/runs/checkpoint.ts";
import { RunFolder } from "../src/runs/run_folder.ts";
import { refuses } from "./user_error.ts";

const seed = Math.floor(Math.random() * 2 ** 32);
const config = resolveConfig({
  vocabSize: 40,
  hiddenSize: 16,
  intermediateSize: 24,
  numHiddenLayers: 1,
  recipe: "dense",
  steps: 100,
  keepCheckpoints: 5,
});

async function save(run: string, step: number): Promise<string> {
  const values = () =>
    new Map(
      modelParameters(config).map(({ name, rows, cols }) => [
        name,
        new Float32Array(rows * cols).fill(step),
      ]),
    );
  const state = { parameters: values(), m: values(), v: values() };
  return await saveCheckpoint(run, { step, config, state, tokenizer: { version: "1.0" } });
}

/** Runs `body` with a run that has logged a row a step and saved at the steps 10, 20 and 30. */
async function withRun(body: (run: string) => Promise<void>): Promise<void> {
  const root = await Deno.makeTempDir();
  try {
    const run = RunFolder.create(config, { experiment: "x", root });
    for (let step = 1; step <= 30; step++) {
      run.log(step, { "train/loss": 1 / step });
      if (step % 10 === 0) await save(run.path, step);
    }
    await body(run.path);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

function edit(file: string, change: (content: Record<string, unknown>) => void): void {
  const content = JSON.parse(Deno.readTextFileSync(file));
  change(content);
  Deno.writeTextFileSync(file, JSON.stringify(content));
}

/** Makes a checkpoint one of version 2, which had no checksums. */
function makeOld(path: string): void {
  Deno.removeSync(join(path, "manifest.json"));
  edit(join(path, "state.json"), (state) => state.version = 2);
}

/** What `loadNewest` finds, and says. */
async function newest(run: string, forResume = true): Promise<{ step: number; notes: string[] }> {
  const notes: string[] = [];
  const { step } = await loadNewest(run, { forResume, note: (line) => notes.push(line) });
  return { step, notes };
}

Deno.test("any changed bit, cut or lost file of a checkpoint is noticed", () =>
  withRun(async (run) => {
    const path = checkpointAt(run, 30);
    const rng = new Rng(seed, "damage");
    for (const { name } of [...Deno.readDirSync(path)]) {
      const file = join(path, name);
      const good = Deno.readFileSync(file);
      for (let i = 0; i < 40; i++) {
        const bad = good.slice();
        bad[rng.below(bad.length)] ^= 1 << rng.below(8);
        Deno.writeFileSync(file, bad);
        await refuses(() => loadCheckpoint(path), /^Cannot (read|load) .*step_000030/);
      }
      Deno.writeFileSync(file, good.subarray(0, rng.below(good.length)));
      await refuses(() => loadCheckpoint(path), /step_000030/);
      Deno.removeSync(file);
      await refuses(() => loadCheckpoint(path), /no such file|is missing/);
      Deno.writeFileSync(file, good);
    }
    assert.equal((await loadCheckpoint(path)).step, 30);
  }));

Deno.test("the newest good checkpoint wins, and the others are named in a line each", () =>
  withRun(async (run) => {
    assert.deepEqual(await newest(run), { step: 30, notes: [] });
    Deno.truncateSync(join(checkpointAt(run, 30), "optimizer.safetensors"), 99);
    const { step, notes } = await newest(run);
    assert.equal(step, 20);
    assert.equal(notes.length, 1);
    assert.match(notes[0], /^passing over step_000030: .*optimizer\.safetensors: [^\n]*damaged/);
    // A model is whole without the moments of its optimizer.
    assert.deepEqual(await newest(run, false), { step: 30, notes: [] });
    assert.equal((await loadModel(run)).step, 30);

    Deno.truncateSync(join(checkpointAt(run, 30), "model.safetensors"), 99);
    assert.equal((await loadModel(run)).step, 20);
    Deno.removeSync(join(checkpointAt(run, 20), "state.json"));
    assert.equal((await newest(run)).step, 10);
    assert.equal((await loadModel(run)).step, 10);
    Deno.removeSync(join(checkpointAt(run, 10), "manifest.json"));
    await refuses(() => newest(run), /step_000030.*of 3 checkpoints none is good/);
    await refuses(() => loadModel(run), /step_000030.*of 3 checkpoints none is good/);
  }));

Deno.test("a run that goes on before a damaged checkpoint saves that step again", () =>
  withRun(async (run) => {
    const path = checkpointAt(run, 30);
    Deno.truncateSync(join(path, "model.safetensors"), 99);
    const { step, logs } = await loadNewest(run, { forResume: true, note: () => {} });
    setAsideLater(run, step);
    RunFolder.resume(run, { config, logs }).log(30, { "train/loss": 1 });
    await save(run, 30);
    assert.equal((await loadCheckpoint(path)).step, 30);
    const names = [...Deno.readDirSync(join(run, "checkpoints"))].map(({ name }) => name).sort();
    assert.deepEqual(
      names,
      ["step_000010", "step_000020", "step_000030", "step_000030.damaged"],
    );
  }));

Deno.test("the step of folder, state, weights and moments is one", () =>
  withRun(async (run) => {
    const [older, path] = [checkpointAt(run, 20), checkpointAt(run, 30)];
    Deno.renameSync(path, checkpointAt(run, 40));
    await refuses(() => loadCheckpoint(checkpointAt(run, 40)), /state\.json is of step 30/);
    Deno.renameSync(checkpointAt(run, 40), path);
    // A copy under a name of its own is as good.
    Deno.renameSync(path, join(run, "best"));
    assert.equal((await loadCheckpoint(join(run, "best"))).step, 30);
    Deno.renameSync(join(run, "best"), path);
    for (const checkpoint of [older, path]) makeOld(checkpoint);
    assert.equal((await loadCheckpoint(path)).step, 30, "version 2 is read");
    for (const name of ["model.safetensors", "optimizer.safetensors"]) {
      const file = join(path, name);
      const good = Deno.readFileSync(file);
      Deno.copyFileSync(join(older, name), file);
      await refuses(() => loadCheckpoint(path), /is of step 20, state\.json of step 30/);
      Deno.writeFileSync(file, good);
    }
  }));

Deno.test("a run goes on only where its metrics are those that it had", () =>
  withRun(async (run) => {
    const metrics = join(run, "metrics.jsonl");
    const { logs: { metrics: end } } = await loadCheckpoint(checkpointAt(run, 20));
    Deno.truncateSync(metrics, end + 5);
    const { step, notes } = await newest(run);
    assert.equal(step, 20);
    assert.match(notes.join(), /^passing over step_000030: .*metrics\.jsonl is cut off/);
    Deno.truncateSync(metrics, 5);
    await refuses(() => newest(run), /metrics\.jsonl is cut off.*put it back, or start a new run/);
    assert.equal((await loadModel(run)).step, 30, "the model is whole");
  }));

Deno.test("a damaged env.json, summary.json or report does not end a run", () =>
  withRun(async (run) => {
    for (const damaged of ["", "{", "[]", '{"started":5,"git":7,"status":"done","final":3}']) {
      for (const name of ["env.json", "summary.json"]) {
        Deno.writeTextFileSync(join(run, name), damaged);
      }
      const { summary, environment } = readRun(run);
      assert.deepEqual([summary, environment], [null, {}]);
      assert.match(await writeReportAfterTraining(run), /^(report: |no report yet)/);
    }
    await Deno.remove(join(run, "report.html")).catch(() => {});
    Deno.mkdirSync(join(run, "report.html"));
    assert.match(await writeReportAfterTraining(run), /^no report yet \(/);
  }));
