import assert from "node:assert/strict";
import { knownLosses } from "../src/bench/peer_workload.ts";
import { formatResults } from "../src/bench/result.ts";

const cli = new URL("../src/commands/bench.ts", import.meta.url).pathname;

async function bench(...args: string[]) {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", cli, ...args],
  }).output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { code, out, err };
}

/** The lines of a run with `--json`, their common fields checked. */
async function results(suite: string, ...args: string[]) {
  const { code, out, err } = await bench(suite, ...args, "--json");
  assert.equal(code, 0, err);
  const lines = out.trim().split("\n").map((line) => JSON.parse(line));
  for (const line of lines) {
    assert.equal(line.suite, suite);
    assert(line.name && line.adapter, JSON.stringify(line));
    assert(line.minMs > 0 && line.minMs <= line.medianMs, JSON.stringify(line));
  }
  return lines;
}

Deno.test("peer gives the losses that other engines have", async () => {
  const [line, ...others] = await results("peer", "steps=3");
  assert.equal(others.length, 0);
  assert.deepEqual(Object.keys(line.losses), Object.keys(knownLosses));
  for (const [step, loss] of Object.entries(knownLosses)) {
    assert(Math.abs(line.losses[step] - loss) < 1.1e-4, `step ${step}: ${line.losses[step]}`);
  }
  assert(line.tokensPerSecond > 0);
});

Deno.test("step gives a line for each stage", async () => {
  const lines = await results("step", "preset=nano", "steps=3", "batchSize=1");
  assert.deepEqual(
    lines.map((line) => line.name),
    ["dense", "warmup", "sparse"].map((stage) => `nano mla ${stage} batchSize=1`),
  );
  for (const line of lines) assert(line.tokensPerSecond > 0 && line.bytes > 0);
});

Deno.test("decode gives windows and contexts, dense and sparse, with the cache they read", async () => {
  const model = ["seqLen=24", "indexTopk=6"];
  const lines = await results("decode", "preset=nano", "contexts=24,8", "steps=3", ...model);
  // Three layers of 4 bytes: latent and rope key of 40, index key of 12.
  const read = (keys: number, scored: number) => 3 * 4 * (40 * keys + 12 * scored);
  const expected = [
    ["dense window of 24", undefined],
    ["dense cached at 8", read(8, 0)],
    ["dense cached at 24", read(24, 0)],
    ["sparse window of 24", undefined],
    ["sparse cached at 8", read(6, 8)],
    ["sparse cached at 24", read(6, 24)],
  ];
  assert.deepEqual(
    lines.map((line) => [line.name, line.cacheBytes]),
    expected.map(([name, bytes]) => [`nano ${name} ${model.join(" ")}`, bytes]),
  );
  for (const line of lines) assert(line.tokensPerSecond > 0);
});

Deno.test("decode times windows alone where nothing is cached", async () => {
  const [line, ...others] = await results(
    "decode",
    "preset=nano",
    "steps=1",
    "attention=gqa",
    "recipe=dense",
  );
  assert.equal(line.name, "nano dense window of 128 attention=gqa recipe=dense");
  assert.equal(others.length, 0);
});

Deno.test("kernels gives rates as shares of the adapter's ceilings", async () => {
  const lines = await results("kernels");
  const names = lines.map((line) => line.name.split(" ")[0]);
  for (const name of ["matmul_nt", "attention_grad_kv", "top_k", "adamw"]) {
    assert(names.includes(name), `${name} is not among ${names}`);
  }
  for (const line of lines) assert(line.gbps > 0 && line.share > 0, JSON.stringify(line));
});

Deno.test("startup times a process of its own", async () => {
  const [line, ...others] = await results("startup", "preset=nano", "runs=1", "batchSize=1");
  assert.equal(others.length, 0);
  assert.equal(line.name, "nano first step batchSize=1");
  assert.equal(line.minMs, line.medianMs);
});

Deno.test("mistakes are told in one line", async () => {
  for (
    const [args, want] of [
      [["kernel"], 'Cannot run suite "kernel": did you mean kernels?'],
      [["step", "steps=0"], "Cannot set steps=0: expected a whole number from 1"],
      [["step", "preset=nano", "stages=twin"], "Cannot time stages=twin: recipe=dsa has dense"],
      [["decode", "preset=nano", "contexts=8,129"], "Cannot time contexts=129 with preset=nano: "],
      [["decode", "preset=nano", "stages=twin"], "Cannot time stages=twin: recipe=dsa has dense"],
      [["decode", "contexts=0"], "Cannot set contexts=0: expected a whole number from 1"],
      [["kernels", "seqLen=64"], "Cannot set seqLen=64 with kernels: the keys are device"],
      [["peer", "preset=tiny"], "Cannot set preset=tiny with peer: the keys are device, steps"],
      [["peer", "kernels", "runs=2"], "Cannot set runs=2 with peer and kernels: the keys are"],
    ] as const
  ) {
    const { code, err } = await bench(...args);
    assert.equal(code, 2, err);
    assert(err.startsWith(`error: ${want}`), err);
    assert.equal(err.trim().split("\n").length, 1, err);
  }
});

Deno.test("the table is aligned and says rates and shares", () => {
  const result = { suite: "kernels", adapter: "card", medianMs: 1.5, minMs: 1 };
  const table = formatResults([
    { ...result, name: "a", gflops: 12.4, gbps: 3, share: 0.5 },
    { ...result, name: "longer", medianMs: 100 },
  ]);
  assert.equal(
    table,
    [
      "suite    name        median     least",
      "kernels  a         1.500 ms  1.000 ms  12 GFLOP/s, 3 GB/s, 50 % of the ceiling",
      "kernels  longer  100.000 ms  1.000 ms",
    ].join("\n"),
  );
});
