import assert from "node:assert/strict";
import { join } from "node:path";
import { latestCheckpoint } from "../src/runs/checkpoint.ts";
import { CLI, MODEL, run, TEXT, trainIn } from "./train_run.ts";

const WRONG: [args: string[], message: RegExp][] = [
  [["quikstart"], /experiment "quikstart": did you mean quickstart\?/],
  [["stepz=3"], /"stepz": did you mean steps\?/],
  [["steps=many"], /steps=many: expected a whole number/],
  [["--fast"], /"--fast": the options are --help/],
  [["warmpu.steps=3"], /warmpu\.steps: there is no stage "warmpu", did you mean warmup\?/],
  [["warmup.stepz=3"], /warmup\.stepz: did you mean warmup\.steps\?/],
  [["attention=mha", "recipe=dsa"], /only attention=mla has an indexer|recipe=dsa/],
  [["attention=mqa"], /attention=mqa: expected mha \| gqa \| mla \| mosa/],
  [["qkRopeHeadDim=7"], /qkRopeHeadDim=7/],
  [["attention=gqa", "numAttentionHeads=4", "numKeyValueHeads=3"], /numKeyValueHeads=3/],
  [["data=nowhere.txt"], /nowhere\.txt/],
  [["data=empty.txt"], /empty/],
  [[`data=${TEXT}`, "seqLen=300000"], /seqLen/],
  [[`data=${TEXT}`, "vocabSize=100"], /vocabSize=100/],
  [[`data=${TEXT}`, "batchSize=40000", "seqLen=2048"], /[GM]iB.*lower batchSize \(40000\)/],
  [["resume=runs/none"], /runs\/none: there is no such folder/],
  [["resume=runs/foreign"], /runs\/foreign/],
  [["resume=runs/good", "hiddenSize=64"], /hiddenSize=64: .*hiddenSize=32/],
  // Before the data is opened.
  [["data=nowhere.txt", "name=good"], /runs\/good: it exists/],
  [["resume=runs/good/checkpoints/step_000009"], /it is a checkpoint; give its run, runs\/good$/],
  [["resume=runs/unlogged"], /runs\/unlogged: metrics\.jsonl, which it had, is missing/],
  [["resume=runs/edited"], /edited\/checkpoints\/step_000009\/state\.json: it is damaged/],
  [["indexerLossWeight=0"], /indexerLossWeight=0: expected a number above 0/],
  [["warmup.steps"], /experiment "warmup\.steps": it is a key, write warmup\.steps=…/],
  [["foo.bar=1"], /foo\.bar: there is no stage "foo"; this run has dense, warmup, sparse/],
  [["resume=runs/damaged"], /model\.safetensors/],
];

Deno.test("wrong input gives one clear line and exit code 2, and overwrites nothing", async (t) => {
  const cwd = await Deno.makeTempDir();
  await Deno.writeTextFile(join(cwd, "empty.txt"), "");
  await Deno.mkdir(join(cwd, "runs/foreign"), { recursive: true });
  await trainIn(cwd, ...MODEL, "recipe=dense", "name=good", "steps=9");
  await trainIn(cwd, ...MODEL, "recipe=dense", "name=damaged", "steps=9");
  const damaged = join(await latestCheckpoint(join(cwd, "runs/damaged")), "model.safetensors");
  await Deno.truncate(damaged, 1000);
  await trainIn(cwd, ...MODEL, "recipe=dense", "name=unlogged", "steps=9");
  await Deno.remove(join(cwd, "runs/unlogged/metrics.jsonl"));
  await trainIn(cwd, ...MODEL, "recipe=dense", "name=edited", "steps=9");
  const state = join(await latestCheckpoint(join(cwd, "runs/edited")), "state.json");
  const { config, ...rest } = JSON.parse(await Deno.readTextFile(state));
  await Deno.writeTextFile(state, JSON.stringify({ ...rest, config: { ...config, stepz: 3 } }));
  const listing = () => [...walk(join(cwd, "runs"))].sort();
  const before = listing();
  for (const [args, message] of WRONG) {
    await t.step(args.map((a) => a.replace(TEXT, "text")).join(" "), async () => {
      const { code, stdout, stderr } = await run(CLI, args, cwd);
      assert.equal(code, 2, stderr);
      assert.equal(stdout, "");
      const errors = stderr.trim().split("\n");
      assert.match(errors.at(-1)!, /^error: Cannot /);
      assert.match(errors.at(-1)!, message);
      assert(!/\n +at /.test(stderr), "no stack trace");
      assert.deepEqual(listing(), before);
    });
  }
  await Deno.remove(cwd, { recursive: true });
});

function* walk(folder: string): Generator<string> {
  for (const { name, isDirectory } of Deno.readDirSync(folder)) {
    const path = join(folder, name);
    if (isDirectory) yield* walk(path);
    else yield `${path} ${Deno.statSync(path).size} ${Deno.statSync(path).mtime?.getTime()}`;
  }
}
