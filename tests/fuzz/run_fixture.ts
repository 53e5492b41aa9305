/**
 * A run folder without its training: all files are there, for those that read them.
 *
 * @module
 */
import { join } from "node:path";
import { resolveConfig } from "../../src/config/config.ts";
import { openRunData } from "../../src/train/run.ts";
import { initialParameters } from "../../src/model/parameters.ts";
import { saveCheckpoint } from "../../src/runs/checkpoint.ts";
import { RunFolder } from "../../src/runs/run_folder.ts";

/** Words enough for a tokenizer and some windows. */
const TEXT = "call me ishmael some years ago never mind how long precisely ".repeat(12);

/** Makes a small run of two stages, saved at its end, and its text beside it; returns its folder. */
export async function runFixture(root: string): Promise<string> {
  const data = join(root, "text.txt");
  await Deno.writeTextFile(data, TEXT);
  const asked = resolveConfig({
    ...{ data, tokenizer: "bpe", vocabSize: 260, hiddenSize: 8, numHiddenLayers: 1 },
    ...{ numAttentionHeads: 2, intermediateSize: 8, batchSize: 1, seqLen: 8, indexTopk: 2 },
    ...{ kvLoraRank: 4, qkNopeHeadDim: 4, qkRopeHeadDim: 4, vHeadDim: 4, indexHeadDim: 4 },
    ...{ indexNHeads: 2, steps: 4, warmupSteps: 1, recipe: "dsa", evalBatches: 1 },
  });
  const { config, dataset } = await openRunData(asked);
  const run = RunFolder.create(config, { experiment: "fuzzed", root });
  run.writeEnvironment({
    started: "2026-01-01T00:00:00.000Z",
    adapter: "none",
    git: { sha: "0".repeat(40), dirty: false },
    versions: { deno: "2" },
    os: "linux",
  });
  for (let step = 1; step <= 6; step++) {
    run.log(step, { stage: 0, lr: 1e-3, "train/loss": 6 - step, "grad/norm": 1 });
  }
  const measured = { captured_mass: 0.5, kl: 0.1, dense_kl: 0.2, teacher_entropy: 1, dead: 0 };
  const index = Object.entries(measured).flatMap(([name, value]) => [
    [`index/${name}`, value],
    [`index/0/${name}`, value],
  ]);
  run.log(7, {
    ...{ stage: 2, "val/loss": 1.5, "val/bpb": 2, "swap/learned": 2, "swap/dense": 2 },
    ...{ "index/0/distance/0": 0.5, "index/0/distance/1": 0.5, "time/tokens_per_s": 1e4 },
    ...{ "latent/0/effective_rank": 2, "latent/0/share/0": 0.5, "time/step_ms": 2 },
    ...Object.fromEntries(index),
  });
  run.sample(7, "call me");
  const parameters = initialParameters(config);
  await saveCheckpoint(run.path, {
    step: 6,
    config,
    state: { parameters, m: parameters, v: parameters },
    tokenizer: dataset.tokenizer!.toJSON(),
  });
  await Deno.writeTextFile(
    join(run.path, "evaluations.json"),
    JSON.stringify({ "k=1": { keys: { indexTopk: 1 }, metrics: { "val/loss": 1.6 } } }),
  );
  run.finish("done", { step: 7 });
  return run.path;
}
