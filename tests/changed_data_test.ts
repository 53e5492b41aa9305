import assert from "node:assert/strict";
import { join } from "node:path";
import { openCorpus } from "../src/data/corpus.ts";
import { latestCheckpoint, loadCheckpoint } from "../src/runs/checkpoint.ts";
import { EVAL } from "./eval_run.ts";
import { CLI, MODEL, run, TEXT, trainIn } from "./train_run.ts";

const ABLATE = new URL("../src/commands/ablate.ts", import.meta.url).pathname;

Deno.test("a text is known by what it says, in its order, wherever its files lie", async () => {
  const root = await Deno.makeTempDir();
  const write = async (folder: string, texts: Record<string, string>) => {
    await Deno.mkdir(join(root, folder));
    for (const [name, text] of Object.entries(texts)) {
      await Deno.writeTextFile(join(root, folder, name), text);
    }
    const { files, sha256 } = await openCorpus(join(root, folder, "*.txt"));
    return { files, sha256 };
  };
  const first = await write("first", { "a.txt": "one\n", "b.txt": "two\n" });
  assert.deepEqual(first.files, ["a.txt", "b.txt"]);
  assert.deepEqual(await write("moved", { "a.txt": "one\n", "b.txt": "two\n" }), first);
  const others = [
    await write("order", { "b.txt": "one\n", "a.txt": "two\n" }),
    await write("letter", { "a.txt": "one\n", "b.txt": "twO\n" }),
    await write("fewer", { "a.txt": "one\n" }),
    await write("more", { "a.txt": "one\n", "b.txt": "two\n", "c.txt": "!" }),
  ];
  for (const { sha256 } of others) assert.notEqual(sha256, first.sha256);
  await Deno.remove(root, { recursive: true });
});

Deno.test("a run is neither gone on with nor evaluated on another text, unless asked for", async () => {
  const cwd = await Deno.makeTempDir();
  await Deno.mkdir(join(cwd, "texts"));
  const text = await Deno.readTextFile(TEXT);
  const [a, b] = ["a.txt", "b.txt"].map((name) => join(cwd, "texts", name));
  await Deno.writeTextFile(a, text.slice(0, 3000));
  await Deno.writeTextFile(b, text.slice(3000));
  const model = [...MODEL, "recipe=dense", "warmupSteps=0", "data=texts/*.txt"];
  const folder = await trainIn(cwd, ...model, "name=run", "steps=9");
  const savedText = async () => (await loadCheckpoint(await latestCheckpoint(folder))).data!;
  const { sha256 } = await savedText();
  const tree = () => Deno.readTextFileSync(join(folder, "metrics.jsonl"));
  const before = tree();
  const refused = async (script: string, args: string[], message: RegExp) => {
    const { code, stdout, stderr } = await run(script, args, cwd);
    assert.equal(code, 2, stderr);
    assert.equal(stdout, "");
    assert.match(stderr.trim().split("\n").at(-1)!, message);
    assert.equal(tree(), before);
  };

  await Deno.writeTextFile(b, text.slice(3000).replace("e", "E"));
  const changed =
    /^error: Cannot \w+ runs\/run: data=texts\/\*\.txt is 2 files from a\.txt on \(\d+ bytes, SHA-256 \w+…\), but the run was trained on 2 files .*otherData=true$/;
  await refused(CLI, ["resume=runs/run", "steps=12"], changed);
  await refused(EVAL, ["runs/run"], changed);
  await refused(
    CLI,
    ["resume=runs/run", "steps=12", "data=copy"],
    /data=copy: the run was started/,
  );
  const seen = await run(EVAL, ["runs/run", "otherData=true"], cwd);
  assert.equal(seen.code, 0, seen.stderr);
  const named = await run(EVAL, ["runs/run", `data=${TEXT}`], cwd);
  assert.equal(named.code, 0, named.stderr);

  await Deno.writeTextFile(b, text.slice(3000));
  await Deno.rename(join(cwd, "texts"), join(cwd, "moved"));
  await trainIn(cwd, "resume=runs/run", "steps=12", "data=moved/*.txt");
  assert.equal((await savedText()).sha256, sha256);
  assert.equal((await run(EVAL, ["runs/run"], cwd)).code, 0, "it is looked for where it lies now");

  await Deno.writeTextFile(join(cwd, "moved/b.txt"), text.slice(2000));
  await trainIn(cwd, "resume=runs/run", "steps=14", "otherData=true");
  assert.notEqual((await savedText()).sha256, sha256);
  await trainIn(cwd, "resume=runs/run", "steps=15");
  await Deno.remove(cwd, { recursive: true });
});

Deno.test("an ablation adds no run on another text to those that are there", async () => {
  const cwd = await Deno.makeTempDir();
  const text = await Deno.readTextFile(TEXT);
  await Deno.writeTextFile(join(cwd, "text.txt"), text);
  const config = { hiddenSize: 16, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 16 };
  const experiment = {
    question: "Does the text stay the same?",
    config: { ...config, recipe: "dense", data: "text.txt", batchSize: 2, seqLen: 32, steps: 2 },
    variants: { plain: {} },
  };
  const file = `export const experiment = ${JSON.stringify(experiment)};\n`;
  await Deno.writeTextFile(join(cwd, "same.ts"), file);
  const ablate = (...args: string[]) =>
    run(ABLATE, ["same.ts", "evalBatches=1", "sampleTokens=0", ...args], cwd);
  const first = await ablate("seeds=0");
  assert.equal(first.code, 0, first.stderr);

  await Deno.writeTextFile(join(cwd, "text.txt"), text.replace("e", "E"));
  const second = await ablate("seeds=0,1");
  assert.equal(second.code, 2, second.stderr);
  const message = /^error: Cannot go on in runs\/same\/runs\/plain_s0: data=text\.txt is .*name=…$/;
  assert.match(second.stderr.trim().split("\n").at(-1)!, message);
  assert.match((await ablate("otherData=true")).stderr, /Cannot set otherData for all runs/);
  await Deno.writeTextFile(join(cwd, "text.txt"), text);
  const third = await ablate("seeds=0,1");
  assert.equal(third.code, 0, third.stderr);
  await Deno.remove(cwd, { recursive: true });
});
