/** A run folder on a disk that fails, at every call that writes and in every way. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { resolveConfig } from "../src/config/config.ts";
import { initialParameters } from "../src/model/parameters.ts";
import { loadCheckpoint, newestCheckpoint, saveCheckpoint } from "../src/runs/checkpoint.ts";
import { readMetrics, RunFolder } from "../src/runs/run_folder.ts";
import { faults, withFault } from "./fuzz/faults.ts";

const config = resolveConfig({
  ...{ name: "x", hiddenSize: 4, numHiddenLayers: 1, numAttentionHeads: 1, intermediateSize: 4 },
  ...{ vocabSize: 4, seqLen: 4, recipe: "dense", steps: 2, warmupSteps: 0, keepCheckpoints: 1 },
});
const STEPS = 2;

/** Weights after some steps. */
function stateAt(step: number) {
  const all = initialParameters({ ...config, seed: step });
  return { parameters: all, m: all, v: all };
}

/** What a run writes while it trains, from a step on; `saved` is called when one is safe. */
async function goOn(run: RunFolder, from: number, saved: (step: number) => void): Promise<void> {
  for (let step = from + 1; step <= STEPS; step++) {
    run.log(step, { "train/loss": 1 / step });
    run.sample(step, `text ${step}`);
    const state = stateAt(step);
    await saveCheckpoint(run.path, { step, config, state, tokenizer: { step } });
    saved(step);
  }
  run.finish("done", { step: STEPS });
}

async function outcome(path: string) {
  const { step, state, tokenizer } = await loadCheckpoint((await newestCheckpoint(path))!);
  const rows = readMetrics(join(path, "metrics.jsonl")).map(({ t: _, ...row }) => row);
  const samples = Deno.readTextFileSync(join(path, "samples.txt"));
  return { step, state, tokenizer, rows, samples };
}

/** A run in a new folder, of which one call fails; what is left must be as good as none had. */
async function survives(
  fault: Parameters<typeof withFault>[0],
  whole: Awaited<ReturnType<typeof outcome>> | null,
): Promise<{ calls: number; outcome: Awaited<ReturnType<typeof outcome>> }> {
  const root = await Deno.makeTempDir();
  let safe = 0;
  const { error, calls } = await withFault(fault, async () => {
    const run = RunFolder.create(config, { experiment: "x", root });
    await goOn(run, 0, (step) => safe = step);
  });
  if (whole && error) {
    assert(error instanceof Error);
    assert(error.message.includes(root) && !error.message.includes("\n"), `${error.stack}`);
  }
  const path = join(root, "x");
  const newest = await newestCheckpoint(path);
  assert(newest || safe === 0, `the checkpoint of step ${safe} is lost`);
  if (newest) {
    const { step, state, logs, config } = await loadCheckpoint(newest);
    assert(step >= safe, `the newest is of step ${step}, that of ${safe} was safe`);
    assert.deepEqual(state, stateAt(step));
    await goOn(RunFolder.resume(path, { config, logs }), step, () => {});
  } else {
    await Deno.remove(path, { recursive: true }).catch(() => {});
    await goOn(RunFolder.create(config, { experiment: "x", root }), 0, () => {});
  }
  const after = await outcome(path);
  if (whole) assert.deepEqual(after, whole);
  await Deno.remove(root, { recursive: true });
  return { calls, outcome: after };
}

Deno.test("no write error loses what was saved, or keeps the run from being taken to its end", async () => {
  const none = { at: Infinity, error: faults.EIO, stays: false };
  const { calls, outcome: whole } = await survives(none, null);
  assert(calls > 50, `only ${calls} calls can fail`);
  const kinds = Object.entries(faults);
  for (let at = 0; at < calls; at++) {
    const [name, error] = kinds[at % kinds.length];
    const stays = Math.floor(at / kinds.length) % 2 === 1;
    await survives({ at, error, stays }, whole).catch((error) => {
      throw new Error(`${name}${stays ? " from" : " at"} call ${at}`, { cause: error });
    });
  }
});
