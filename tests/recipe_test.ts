/** The whole recipe on a task with one right answer: does the indexer find what must be found? */
import assert from "node:assert/strict";
import { join } from "node:path";
import { readMetrics } from "../src/runs/run_folder.ts";

Deno.test("dense, warm-up and sparse training on recall: the learned selection is what matters", async () => {
  const cwd = await Deno.makeTempDir();
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      new URL("../src/commands/train.ts", import.meta.url).pathname,
      ..."data=recall taskVocab=24 numPairs=4 powerA=1 seqLen=24 batchSize=32 hiddenSize=64".split(
        " ",
      ),
      ..."intermediateSize=128 numHiddenLayers=2 numAttentionHeads=2 qLoraRank=none".split(" "),
      ..."initializerRange=0.05 lr=3e-3 indexTopk=6 recipe=dsa_twin steps=350".split(" "),
      ..."warmup.steps=250 sparse.steps=60 twin.steps=60 logEvery=50 evalEvery=0".split(" "),
      ..."saveEvery=0 measureEvery=0 name=recall".split(" "),
    ],
    cwd,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
  const rows = readMetrics(join(cwd, "runs/recall/metrics.jsonl")) as Record<string, number>[];
  const at = (step: number) => rows.find((row) => row.step === step)!;
  const [before, warm, twin, sparse] = [at(351), at(600), at(660), at(720)];
  assert(twin["val/accuracy"] > 0.95, `dense accuracy ${twin["val/accuracy"]}`);
  // The warm-up takes the indexer most of the way from where it started to the oracle.
  const share = (row: Record<string, number>) =>
    row["index/captured_mass"] / row["index/oracle_mass"];
  assert(share(before) < 0.8 && share(warm) > 0.9, `${share(before)} → ${share(warm)}`);
  assert(warm["index/dense_kl"] < 0.3 * before["index/dense_kl"]);
  // Sparse attention to 6 of 24 keys loses nothing against the dense twin …
  assert(Math.abs(sparse["val/loss"] - twin["val/loss"]) < 0.05, `${sparse["val/loss"]}`);
  // … because of what is selected: other choices of 6 keys fail, the best possible does not.
  assert(sparse["swap/random"] > sparse["swap/learned"] + 1, `random ${sparse["swap/random"]}`);
  assert(sparse["swap/recency"] > sparse["swap/learned"] + 1);
  assert(sparse["swap/oracle"] < sparse["swap/learned"] + 0.05, `oracle ${sparse["swap/oracle"]}`);
  await Deno.remove(cwd, { recursive: true });
});
