import assert from "node:assert/strict";
import { join } from "node:path";
import { latestCheckpoint } from "../src/runs/checkpoint.ts";
import { EVAL, GOLDEN, SMALL, TEXT_RUN } from "./eval_run.ts";
import { run, TEXT, trainIn } from "./train_run.ts";

const WRONG: [args: string[], message: RegExp][] = [
  [["runs/none"], /runs\/none: there is no such folder/],
  [["runs"], /runs: neither a run .* nor a model/],
  [["runs/new"], /runs\/new: the run has saved no checkpoint/],
  [["runs/good", "evalBatchs=3"], /"evalBatchs": did you mean evalBatches\?/],
  [["runs/good", "hiddenSize=64"], /"hiddenSize": eval takes device, data/],
  [["runs/good", "sparse.indexTopk=3"], /"sparse.indexTopk": .*indexTopk/],
  [["runs/good", "seqLen=one"], /seqLen=one: expected a whole number/],
  [["runs/good", "seqLen=65537"], /seqLen=65537: expected a whole number from 2 to 65536/],
  [["runs/good", "data=short.txt", "seqLen=3000"], /seqLen=3000: the text has only/],
  [["runs/good", "data=nowhere.txt"], /nowhere\.txt/],
  [["runs/good", "batchSize=4000", "seqLen=1024"], /[GM]iB.*lower batchSize \(4000\)/],
  [["runs/good", "runs/new"], /runs\/good and runs\/new/],
  [["runs/good", "--fast"], /"--fast": the options are --help, --json/],
  [["golden"], /golden: it does not tell its data; add data=/],
  [["golden", `data=${TEXT}`], /no tokenizer\.json, and its 40 tokens are not bytes/],
  [["runs/good", "data=copy"], /runs\/good on data=copy: its tokens are those of a text, .*use a/],
  [
    ["runs/task", `data=${TEXT}`],
    /its tokens are the symbols of data=copy; use a task, such as data=recall/,
  ],
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
  await Deno.writeTextFile(join(cwd, "short.txt"), "a short text. ".repeat(99));
  await Deno.writeTextFile(join(cwd, "abl/results.json"), '{"runs":[]}');
  const state = JSON.parse(await Deno.readTextFile(join(good, "state.json")));
  for (const [folder, config] of [["foreign", { model_type: "gpt2" }], ["list", { stages: 3 }]]) {
    const text = JSON.stringify({ ...state, version: 2, config });
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
