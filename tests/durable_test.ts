/** The order in which a run's files are written: what a crash of the machine may find. */
import assert from "node:assert/strict";
import { basename, dirname, join } from "node:path";
import { resolveConfig } from "../src/config/config.ts";
import { initialParameters } from "../src/model/parameters.ts";
import { isCheckpoint, keepLatestCheckpoint, saveCheckpoint } from "../src/runs/checkpoint.ts";
import { RunFolder } from "../src/runs/run_folder.ts";
import { type FileCall, watched } from "./fuzz/file_calls.ts";

const config = resolveConfig({
  ...{ name: "x", hiddenSize: 4, numHiddenLayers: 1, numAttentionHeads: 1, intermediateSize: 4 },
  ...{ vocabSize: 4, seqLen: 4, recipe: "dense", steps: 9, warmupSteps: 0, keepCheckpoints: 1 },
});

/** What a run does to its files, in order. */
async function calls(): Promise<FileCall[]> {
  const root = await Deno.makeTempDir();
  const all: FileCall[] = [];
  const keep = (call: FileCall) => {
    all.push(call);
    return null;
  };
  await watched(keep, async () => {
    const run = RunFolder.create(config, { experiment: "x", root });
    for (const step of [1, 2, 3]) {
      run.log(step, { "train/loss": 1 });
      run.sample(step, "text");
      const parameters = initialParameters(config);
      const state = { parameters, m: parameters, v: parameters };
      await saveCheckpoint(run.path, { step, config, state, tokenizer: { step } });
    }
    run.finish("done", { step: 3 });
    await keepLatestCheckpoint(run.path, config);
  });
  await Deno.remove(root, { recursive: true });
  return all;
}

Deno.test("what takes its name by a rename is on the disk before, with all that is in it", async () => {
  const dirty = new Set<string>();
  const seen: Record<string, number> = {};
  let renamed: string | null = null;
  for (const { name, path } of await calls()) {
    if (renamed) {
      // A checkpoint is there for good before older ones go.
      assert.deepEqual([name, path], ["sync", renamed], "the folder is not synced after a rename");
      renamed = null;
    }
    if (name.startsWith("write") || name === "truncate") dirty.add(path);
    if (name === "sync") dirty.delete(path);
    if (name === "open" && path.includes(".partial")) dirty.add(path);
    if (name === "mkdir") dirty.add(path);
    if (name !== "rename") continue;
    const kind = basename(path).replace(/\d+/, "");
    seen[kind] = (seen[kind] ?? 0) + 1;
    if (/^step_\.partial$/.test(kind)) {
      const run = dirname(dirname(path));
      const within = [...dirty].filter((file) => file === path || file.startsWith(`${path}/`));
      assert.deepEqual(within, [], `not on the disk when ${kind} is renamed`);
      // The state tells how long they are.
      for (const log of ["metrics.jsonl", "samples.txt"]) assert(!dirty.has(join(run, log)), log);
      renamed = dirname(path);
    } else if (/^(config|summary)/.test(kind)) {
      assert(!dirty.has(path), kind);
    }
  }
  assert.equal(seen["step_.partial"], 3);
  assert(seen["summary.json.partial"] >= 2 && seen["config.json.partial"] >= 1);
});

Deno.test("a checkpoint that is removed loses its name first", async () => {
  let removed = 0;
  for (const { name, path } of await calls()) {
    if (name !== "remove") continue;
    assert(!isCheckpoint(basename(path)), `${path} is removed in place`);
    if (/^step_\d+\.removed$/.test(basename(path))) removed++;
  }
  assert.equal(removed, 2);
});
