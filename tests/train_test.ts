import assert from "node:assert/strict";
import { join } from "node:path";
import { latestCheckpoint, loadCheckpoint } from "../src/train/checkpoint.ts";
import { type MetricsRow, readMetrics, readSummary } from "../src/train/run_folder.ts";

const CLI = new URL("../src/train/cli.ts", import.meta.url).pathname;
const SAMPLE = new URL("../src/infer/cli.ts", import.meta.url).pathname;
const TEXT = new URL("fixtures/moby_excerpt.txt", import.meta.url).pathname;
/** A model small enough to train for a few steps in a moment. */
const MODEL = [
  `data=${TEXT}`,
  "hiddenSize=32",
  "numHiddenLayers=1",
  "numAttentionHeads=2",
  "intermediateSize=48",
  "batchSize=2",
  "seqLen=32",
  "indexTopk=8",
  "logEvery=4",
  "evalEvery=30",
  "evalBatches=1",
  "saveEvery=9",
  "sampleEvery=45",
  "sampleTokens=5",
];
/** All stages, some steps of each. */
const SMALL = [
  ...MODEL,
  "recipe=dsa_twin",
  "steps=36",
  "warmup.steps=18",
  "sparse.steps=18",
  "twin.steps=18",
  "measureEvery=30",
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
  // Besides the cadences: the ends of the stages, and the indexer's first step in each.
  const due = Array.from({ length: 90 }, (_, i) => i + 1).filter((step) =>
    step % 4 === 0 || step % 30 === 0 || [36, 54, 72, 37, 55].includes(step)
  );
  assert.deepEqual(want.metrics.map((row) => row.step), due);

  await t.step("again", async () => {
    assert.deepEqual(await outcome(await trainIn(cwd, ...SMALL, "name=again")), want);
  });

  // Stopped in the dense stage, in the sparse stage, and in the twin, which started elsewhere.
  const stops = [["SIGKILL", 9], ["SIGINT", 63], ["SIGKILL", 81]] as const;
  for (const [signal, after] of stops) {
    await t.step(`${signal} after step ${after}`, async () => {
      const name = `${signal}_${after}`;
      const folder = join(cwd, "runs", name);
      const child = command(CLI, [...SMALL, `name=${name}`], cwd).spawn();
      const isSaved = () =>
        latestCheckpoint(folder).then((path) => Number(path.slice(-6)) >= after, () => false);
      while (!await isSaved()) await new Promise((resolve) => setTimeout(resolve, 5));
      child.kill(signal);
      const { code, stderr } = await child.output();
      assert.equal(code, signal === "SIGINT" ? 130 : 137, decoder.decode(stderr));
      assert.equal(readSummary(folder)!.status, signal === "SIGINT" ? "interrupted" : "running");
      const { step } = await loadCheckpoint(await latestCheckpoint(folder));
      assert(step < 90, "stopped before its end");
      const resumed = await trainIn(cwd, `resume=${join("runs", name)}`);
      assert.equal(resumed, folder);
      assert.deepEqual(await outcome(resumed), want);
      assert.equal(readSummary(folder)!.status, "done");
    });
  }

  await t.step("killed before anything was saved", async () => {
    const folder = join(cwd, "runs/early");
    const child = command(CLI, [...SMALL, "name=early"], cwd).spawn();
    const isStarted = () => Deno.stat(join(folder, "env.json")).then(() => true, () => false);
    while (!await isStarted()) await new Promise((resolve) => setTimeout(resolve, 1));
    child.kill("SIGKILL");
    await child.output();
    await Deno.remove(join(folder, "checkpoints"), { recursive: true }).catch(() => {});
    await trainIn(cwd, "resume=runs/early");
    assert.deepEqual(await outcome(folder), want);
  });

  await t.step("the twin saw the tokens of the sparse stage", () => {
    const at = (step: number) => want.metrics.find((row) => row.step === step)!;
    assert.equal(at(56).stage, 2);
    assert.equal(at(76).stage, 3);
    // Both start from the same weights: dense attention, but for the keys left out.
    const [sparse, dense] = [at(56), at(76)] as Record<string, number>[];
    assert(Math.abs(sparse["train/loss"] - dense["train/loss"]) < 0.2);
  });

  await t.step("the indexer is measured and its selection swapped", () => {
    const last = Object.assign({}, ...want.metrics) as Record<string, number>;
    for (const name of ["captured_mass", "oracle_mass", "random_mass", "set_overlap", "dense_kl"]) {
      assert(Number.isFinite(last[`index/${name}`]), name);
      assert(Number.isFinite(last[`index/0/${name}`]), name);
    }
    assert(last["index/captured_mass"] <= last["index/oracle_mass"] + 1e-6);
    for (const selector of ["dense", "learned", "oracle", "random", "recency"]) {
      assert(Number.isFinite(last[`swap/${selector}`]), selector);
    }
  });

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
  const args = [...MODEL, "recipe=dense", "name=wild", "lr=1e30", "clip=none", "warmupSteps=0"];
  const { code, stderr, stdout } = await run(CLI, args, cwd);
  assert.equal(code, 1, stderr);
  assert.match(stderr, /error: Training diverged at step \d+: \S+ is NaN; lower lr/);
  assert.equal(stdout.trim().split("\n").at(-1), "runs/wild");
  const summary = readSummary(join(cwd, "runs/wild"))!;
  assert.equal(summary.status, "failed");
  assert.match(summary.error!, /diverged at step/);
  await Deno.remove(cwd, { recursive: true });
});

for (const attention of ["mha", "gqa", "mla"]) {
  Deno.test(`attention=${attention} trains on the CPU as on WebGPU`, async () => {
    const cwd = await Deno.makeTempDir();
    const args = [...MODEL, "recipe=dense", "steps=6", "logEvery=1", `attention=${attention}`];
    const [gpu, cpu] = [
      await outcome(await trainIn(cwd, ...args, "device=webgpu", "name=gpu")),
      await outcome(await trainIn(cwd, ...args, "device=cpu", "name=cpu")),
    ];
    gpu.metrics.forEach((row, i) => {
      const other = cpu.metrics[i] as Record<string, number>;
      for (const [name, value] of Object.entries(row) as [string, number][]) {
        // What a latent as wide as its input leaves is next to nothing: rounding in weak directions.
        const least = name.endsWith("reconstruction_error") ? 1e-4 : 0;
        const allowed = Math.max(2e-4 * Math.abs(value), least);
        assert(Math.abs(value - other[name]) <= allowed, `${name} ${row.step}`);
      }
    });
    await Deno.remove(cwd, { recursive: true });
  });
}

Deno.test("the three stages run on the CPU, and MoSA and a window on WebGPU", async () => {
  const cwd = await Deno.makeTempDir();
  const few = ["steps=3", "logEvery=1", "sampleTokens=0"];
  const stages = [...MODEL, ...few, "warmup.steps=2", "sparse.steps=2", "measureEvery=2"];
  assert.equal((await outcome(await trainIn(cwd, ...stages, "device=cpu"))).step, 7);
  for (const baseline of ["attention=mosa", "window=6"]) {
    const folder = await trainIn(cwd, ...MODEL, ...few, "recipe=dense", baseline);
    assert.equal((await outcome(folder)).step, 3);
  }
  await Deno.remove(cwd, { recursive: true });
});

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
  [[`data=${TEXT}`, "name=good"], /runs\/good: it exists/],
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
