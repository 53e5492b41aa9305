import assert from "node:assert/strict";
import { join } from "node:path";
import type { Engine } from "../src/engine.ts";
import { sample } from "../src/infer/sample.ts";
import { Rng } from "../src/rng.ts";
import { latestCheckpoint } from "../src/runs/checkpoint.ts";
import { SMALL, TEXT_RUN } from "./eval_run.ts";
import { CLI as TRAIN, run, TEXT, trainIn } from "./train_run.ts";

const SAMPLE = new URL("../src/commands/sample.ts", import.meta.url).pathname;

Deno.test("text is generated token by token, of the tokenizer's tokens only", async () => {
  // Likeliest is what stands one place on, but for the last, which is no token of the tokenizer.
  const windows: number[][] = [];
  const engine = {
    logits(window: Int32Array, row: number) {
      windows.push([...window.subarray(0, row + 1)]);
      const logits = Float32Array.of(0, 0, 0, 0, 9);
      logits[(window[row] + 1) % 4] = 5;
      return Promise.resolve(logits);
    },
  } as unknown as Engine;
  const options = { prompt: [2], count: 4, temperature: 0, seqLen: 3, rng: new Rng(1, "") };
  assert.deepEqual([...await sample(engine, { ...options, vocabSize: 4 })], [3, 0, 1, 2]);
  assert.deepEqual(windows, [[2], [2, 3], [2, 3, 0], [3, 0, 1]]);
  assert.equal((await sample(engine, options))[0], 4);
});

Deno.test("tokens are drawn as often as softmax(logits / temperature) says", async () => {
  const logits = [1, 0, -1, 2];
  const engine = { logits: () => Promise.resolve(Float32Array.from(logits)) } as unknown as Engine;
  const count = 6000;
  for (const temperature of [0.5, 1, 3]) {
    const rng = new Rng(3, `temperature ${temperature}`);
    const tokens = await sample(engine, { prompt: [0], count, temperature, seqLen: 1, rng });
    const weights = logits.map((x) => Math.exp(x / temperature));
    const sum = weights.reduce((a, b) => a + b);
    weights.forEach((weight, token) => {
      const [share, expected] = [tokens.filter((t) => t === token).length / count, weight / sum];
      const sd = Math.sqrt(expected * (1 - expected) / count);
      assert(
        Math.abs(share - expected) < 4 * sd,
        `temperature ${temperature}, token ${token}: ${share} for ${expected}`,
      );
    });
    assert.equal(rng.position, count, "a word a token");
  }
});

Deno.test("deno task sample", async (t) => {
  const cwd = await Deno.makeTempDir();
  const sampled = async (...args: string[]) => {
    const { code, stdout, stderr } = await run(SAMPLE, args, cwd);
    return { code, stdout, stderr };
  };
  const refuses = async (args: string[], message: RegExp) => {
    const { code, stdout, stderr } = await sampled(...args);
    assert.deepEqual([code, stdout], [2, ""], stderr);
    assert.match(stderr, /^error: Cannot [^\n]+\n$/);
    assert.match(stderr, message);
  };
  // More tokens than the tokenizer has: none of them may be drawn, in training neither.
  const more = ["vocabSize=400", "sampleTokens=40", "temperature=3"];
  const folder = await trainIn(cwd, ...TEXT_RUN, ...more, "name=text");
  const keys = ["prompt=Whale", "sampleTokens=20", "temperature=0"];
  const { code, stdout, stderr } = await sampled("runs/text", ...keys);
  assert.equal(code, 0, stderr);
  assert(stdout.startsWith("Whale") && stdout.length > 6, stdout);

  await t.step("a checkpoint, and a folder in Hugging Face's layout", async () => {
    const newest = await latestCheckpoint(folder);
    assert.equal((await sampled(newest, ...keys)).stdout, stdout);
    await Deno.mkdir(join(cwd, "model"));
    for (const file of ["config.json", "model.safetensors", "tokenizer.json"]) {
      await Deno.copyFile(join(newest, file), join(cwd, "model", file));
    }
    assert.equal((await sampled("model", ...keys)).stdout, stdout);
    await Deno.remove(join(cwd, "model/tokenizer.json"));
    await refuses(["model"], /sample model: tokenizer\.json is missing/);
  });

  await t.step("refuses what cannot be sampled", async () => {
    await trainIn(cwd, ...SMALL, "recipe=dense", "data=copy", "name=task");
    await Deno.mkdir(join(cwd, "abl"));
    await Deno.writeTextFile(join(cwd, "abl/results.json"), '{"runs":[]}');
    await refuses(["nowhere"], /sample nowhere: there is no such folder/);
    await refuses(["abl"], /sample abl: it is an ablation/);
    await refuses(["runs"], /sample runs: neither a run/);
    await refuses(["runs/task"], /sample runs\/task: data=copy has no text/);
    await refuses(["runs/text", "steps=5"], /"steps": sample takes prompt, sampleTokens/);
    await refuses(["runs/text", "runs/task"], /sample runs\/text and runs\/task: give one/);
  });

  await t.step("MoSA, whose heads look ahead, has no samples", async () => {
    const args = [
      ...SMALL,
      "attention=mosa",
      "mosaCausal=false",
      `data=${TEXT}`,
      "name=mosa",
      "sampleEvery=2",
    ];
    const trained = await run(TRAIN, [...args, "sampleTokens=5"], cwd);
    assert.equal(trained.code, 0, trained.stderr);
    assert.equal(
      trained.stderr.match(/^no samples: .*attention=mosa with mosaCausal=false pick.*$/gm)?.length,
      1,
    );
    assert.equal(await Deno.readTextFile(join(cwd, "runs/mosa/samples.txt")), "");
    await refuses(
      ["runs/mosa"],
      /sample runs\/mosa: heads of attention=mosa with mosaCausal=false pick/,
    );
  });
  await Deno.remove(cwd, { recursive: true });
});
