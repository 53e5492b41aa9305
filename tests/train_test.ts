import assert from "node:assert/strict";
import { join } from "node:path";
import { latestCheckpoint, loadCheckpoint } from "../src/train/checkpoint.ts";
import { type MetricsRow, readMetrics, readSummary } from "../src/train/run_folder.ts";

const CLI = new URL("../src/train/cli.ts", import.meta.url).pathname;
const SAMPLE = new URL("../src/infer/cli.ts", import.meta.url).pathname;
const TEXT = new URL("fixtures/moby_excerpt.txt", import.meta.url).pathname;
/** A model small enough to train for a few steps in a moment. */
const SMALL = [
  `data=${TEXT}`,
  "hiddenSize=32",
  "numHiddenLayers=1",
  "numAttentionHeads=2",
  "intermediateSize=48",
  "batchSize=2",
  "seqLen=32",
  "steps=90",
  "logEvery=4",
  "evalEvery=30",
  "evalBatches=1",
  "saveEvery=9",
  "sampleEvery=45",
  "sampleTokens=5",
];

const decoder = new TextDecoder();

function command(script: string, args: string[], cwd: string): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", script, ...args],
    cwd,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

async function run(script: string, args: string[], cwd: string) {
  const { code, stdout, stderr } = await command(script, args, cwd).output();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

async function trainIn(cwd: string, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await run(CLI, args, cwd);
  assert.equal(code, 0, stderr);
  return join(cwd, stdout.trim().split("\n").at(-1)!);
}

/** Everything of a run that must not depend on when it was stopped. */
async function outcome(folder: string) {
  const timeless = ({ t: _, ...row }: MetricsRow) =>
    Object.fromEntries(Object.entries(row).filter(([name]) => !name.startsWith("time/")));
  const { state, step } = await loadCheckpoint(await latestCheckpoint(folder));
  return {
    step,
    state,
    metrics: readMetrics(join(folder, "metrics.jsonl")).map(timeless),
    samples: Deno.readTextFileSync(join(folder, "samples.txt")),
  };
}

Deno.test("a run gives the same twice, and after a kill, and after Ctrl-C", async (t) => {
  const cwd = await Deno.makeTempDir();
  const whole = await trainIn(cwd, ...SMALL, "name=whole");
  const want = await outcome(whole);
  assert.equal(want.step, 90);
  assert.equal(readSummary(whole)!.status, "done");
  const due = Array.from({ length: 90 }, (_, i) => i + 1)
    .filter((step) => step % 4 === 0 || step % 30 === 0);
  assert.deepEqual(want.metrics.map((row) => row.step), due);

  await t.step("again", async () => {
    assert.deepEqual(await outcome(await trainIn(cwd, ...SMALL, "name=again")), want);
  });

  for (const signal of ["SIGKILL", "SIGINT"] as const) {
    await t.step(signal, async () => {
      const folder = join(cwd, "runs", signal);
      const child = command(CLI, [...SMALL, `name=${signal}`], cwd).spawn();
      const isSaved = () => latestCheckpoint(folder).then(() => true, () => false);
      while (!await isSaved()) await new Promise((resolve) => setTimeout(resolve, 5));
      child.kill(signal);
      const { code, stderr } = await child.output();
      assert.equal(code, signal === "SIGINT" ? 130 : 137, decoder.decode(stderr));
      assert.equal(readSummary(folder)!.status, signal === "SIGINT" ? "interrupted" : "running");
      const { step } = await loadCheckpoint(await latestCheckpoint(folder));
      assert(step < 90, "stopped before its end");
      const resumed = await trainIn(cwd, `resume=${join("runs", signal)}`);
      assert.equal(resumed, folder);
      assert.deepEqual(await outcome(resumed), want);
      assert.equal(readSummary(folder)!.status, "done");
    });
  }

  await t.step("sample", async () => {
    const args = ["runs/whole", "prompt=Whale", "sampleTokens=7", "temperature=0"];
    const first = await run(SAMPLE, args, cwd);
    assert.equal(first.code, 0, first.stderr);
    assert(first.stdout.startsWith("Whale") && first.stdout.length > 6, first.stdout);
    assert.equal((await run(SAMPLE, args, cwd)).stdout, first.stdout);
  });

  await t.step("profile=true does not change the outcome", async () => {
    const args = [...SMALL, "name=profiled", "profile=true"];
    const { code, stderr } = await run(CLI, args, cwd);
    assert.equal(code, 0, stderr);
    assert.match(stderr, /kernel +calls +ms +share +GFLOP\/s +GB\/s/);
    assert.match(stderr, /matmul_nt 64x/);
    assert.deepEqual(await outcome(join(cwd, "runs/profiled")), want);
  });
  await Deno.remove(cwd, { recursive: true });
});

Deno.test("a run that diverges is marked failed with its step", async () => {
  const cwd = await Deno.makeTempDir();
  const args = [...SMALL, "name=wild", "lr=1e30", "clip=none", "warmupSteps=0"];
  const { code, stderr, stdout } = await run(CLI, args, cwd);
  assert.equal(code, 1, stderr);
  assert.match(stderr, /error: Training diverged at step \d+: \S+ is NaN; lower lr/);
  assert.equal(stdout.trim().split("\n").at(-1), "runs/wild");
  const summary = readSummary(join(cwd, "runs/wild"))!;
  assert.equal(summary.status, "failed");
  assert.match(summary.error!, /diverged at step/);
  await Deno.remove(cwd, { recursive: true });
});

for (const attention of ["mha", "gqa"]) {
  Deno.test(`attention=${attention} trains on the CPU as on WebGPU`, async () => {
    const cwd = await Deno.makeTempDir();
    const args = [...SMALL, "steps=6", "logEvery=1", `attention=${attention}`];
    const [gpu, cpu] = [
      await outcome(await trainIn(cwd, ...args, "device=webgpu", "name=gpu")),
      await outcome(await trainIn(cwd, ...args, "device=cpu", "name=cpu")),
    ];
    gpu.metrics.forEach((row, i) => {
      const other = cpu.metrics[i] as Record<string, number>;
      for (const [name, value] of Object.entries(row) as [string, number][]) {
        assert(Math.abs(value - other[name]) <= 2e-4 * Math.abs(value), `${name} ${row.step}`);
      }
    });
    await Deno.remove(cwd, { recursive: true });
  });
}

const WRONG: [args: string[], message: RegExp][] = [
  [["quikstart"], /experiment "quikstart": did you mean quickstart\?/],
  [["stepz=3"], /"stepz": did you mean steps\?/],
  [["steps=many"], /steps=many: expected a whole number/],
  [["--fast"], /"--fast": the options are --help/],
  [["attention=mqa"], /attention=mqa: expected mha \| gqa \| mla/],
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
  [[`data=${TEXT}`, "name=good"], /runs\/good: it exists/],
  [["resume=runs/damaged"], /model\.safetensors/],
];

Deno.test("wrong input gives one clear line and exit code 2, and overwrites nothing", async (t) => {
  const cwd = await Deno.makeTempDir();
  await Deno.writeTextFile(join(cwd, "empty.txt"), "");
  await Deno.mkdir(join(cwd, "runs/foreign"), { recursive: true });
  await trainIn(cwd, ...SMALL, "name=good", "steps=9");
  await trainIn(cwd, ...SMALL, "name=damaged", "steps=9");
  const damaged = join(await latestCheckpoint(join(cwd, "runs/damaged")), "model.safetensors");
  await Deno.truncate(damaged, 1000);
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
