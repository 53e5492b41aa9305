import assert from "node:assert/strict";
import { join } from "node:path";
import { stageAt } from "../src/config/stages.ts";
import { latestCheckpoint, loadCheckpoint } from "../src/runs/checkpoint.ts";
import { readSummary } from "../src/runs/run_folder.ts";
import { CLI, command, decoder, MODEL, outcome, run, trainIn } from "./train_run.ts";

const SAMPLE = new URL("../src/commands/sample.ts", import.meta.url).pathname;
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

Deno.test("a run gives the same twice, and after a kill, and after each signal to stop", async (t) => {
  const cwd = await Deno.makeTempDir();
  const whole = await trainIn(cwd, ...SMALL, "name=whole");
  const want = await outcome(whole);
  assert.equal(want.step, 90);
  assert.equal(readSummary(whole)!.status, "done");
  // Besides the cadences: the ends of the stages, and the indexer's first step in each.
  const due = Array.from({ length: 90 }, (_, i) => i + 1).filter((step) =>
    step % 4 === 0 || step % 30 === 0 || [36, 54, 72, 37, 73].includes(step)
  );
  assert.deepEqual(want.metrics.map((row) => row.step), due);

  await t.step("again", async () => {
    assert.deepEqual(await outcome(await trainIn(cwd, ...SMALL, "name=again")), want);
  });

  // Stopped in the dense stage, in the warm-up, in the twin and in the sparse stage.
  const stops = [
    ...[["SIGKILL", 9], ["SIGHUP", 20], ["SIGTERM", 40], ["SIGINT", 63], ["SIGKILL", 81]] as const,
  ];
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
      const isKill = signal === "SIGKILL";
      assert.equal(code, isKill ? 137 : 130, decoder.decode(stderr));
      assert.equal(readSummary(folder)!.status, isKill ? "running" : "interrupted");
      const { step } = await loadCheckpoint(await latestCheckpoint(folder));
      assert(step < 90, "stopped before its end");
      const resumed = await trainIn(cwd, `resume=${join("runs", name)}`);
      assert.equal(resumed, folder);
      assert.deepEqual(await outcome(resumed), want);
      assert.equal(readSummary(folder)!.status, "done");
    });
  }

  await t.step("with nobody who reads, and a log on a full disk", async () => {
    const shell = (line: string, name: string) =>
      new Deno.Command("sh", {
        args: ["-c", line, Deno.execPath(), "run", "-A", CLI, ...SMALL, `name=${name}`],
        cwd,
      }).output();
    await shell('("$0" "$@"; echo $? > rc) 2>&1 | head -1', "unread");
    assert.equal((await Deno.readTextFile(join(cwd, "rc"))).trim(), "0");
    assert.deepEqual(await outcome(join(cwd, "runs/unread")), want);
    if (Deno.build.os !== "linux") return;
    assert.equal((await shell('exec "$0" "$@" > /dev/full 2>&1', "full")).code, 0);
    assert.deepEqual(await outcome(join(cwd, "runs/full")), want);
  });

  await t.step("saved by time", async () => {
    const args = [...SMALL, "name=often", "saveEvery=0", "saveMinutes=1e-9", "keepCheckpoints=99"];
    const folder = await trainIn(cwd, ...args);
    assert.deepEqual(await outcome(folder), want);
    assert.equal([...Deno.readDirSync(join(folder, "checkpoints"))].length, 90);
    const never = await trainIn(cwd, ...SMALL, "name=never", "saveEvery=0", "saveMinutes=0");
    assert.equal([...Deno.readDirSync(join(never, "checkpoints"))].length, 4);
  });

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

  await t.step(
    "its last model is the sparse one, and what stages started from is kept",
    async () => {
      const { config, step } = await loadCheckpoint(await latestCheckpoint(whole));
      assert.equal(stageAt(config.stages, step).name, "sparse");
      const kept = [...Deno.readDirSync(join(whole, "checkpoints"))].map(({ name }) => name).sort();
      assert.deepEqual(kept, ["step_000036", "step_000054", "step_000081", "step_000090"]);
    },
  );

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

Deno.test("twin and sparse stage see the same tokens, after warm-ups of any length", async () => {
  const cwd = await Deno.makeTempDir();
  /** Training losses of the twin and of the sparse stage, each step's. */
  const lossesAfter = async (warmup: number) => {
    // All keys are selected: the sparse stage computes dense attention, and its indexer's gradients
    // do not reach the backbone, so that the two differ by rounding, if they see the same.
    const args = [...MODEL, "recipe=dsa_twin", "steps=12", "indexTopk=32", "logEvery=1"];
    const own = ["sparse.steps=6", "twin.steps=6", `warmup.steps=${warmup}`];
    const { metrics } = await outcome(await trainIn(cwd, ...args, ...own));
    const losses = (stage: number) =>
      metrics.filter((row) => row.stage === stage).map((row) => row["train/loss"]!);
    return { twin: losses(2), sparse: losses(3) };
  };
  const [short, long] = [await lossesAfter(2), await lossesAfter(9)];
  assert.deepEqual(long, short);
  short.twin.forEach((loss, i) => {
    assert(Math.abs(short.sparse[i] - loss) < 1e-4, `step ${i}: ${short.sparse[i]}, not ${loss}`);
  });
  // Another batch would show.
  assert(Math.min(...differences(short.twin)) > 1e-3, `${short.twin}`);
  await Deno.remove(cwd, { recursive: true });
});

/** How far apart any two of them are. */
function differences(values: number[]): number[] {
  return values.flatMap((a, i) => values.slice(0, i).map((b) => Math.abs(a - b)));
}

Deno.test("warm-ups show the indexer's KL, and profile=true says where it has no effect", async (t) => {
  const cwd = await Deno.makeTempDir();
  const args = [...MODEL, "logEvery=1", "sampleTokens=0", "steps=5", "profile=true"];
  const stages = ["recipe=dsa", "warmup.steps=3", "sparse.steps=4"];
  const cases: [words: string[], note: string | null][] = [
    [[...stages, "name=short"], "in warmup: it times the step after 3 others"],
    [["recipe=dense", "name=whole"], null],
    [["recipe=dense", "accumulate=2"], "with accumulate=2: it times steps of one micro-batch"],
    [["recipe=dense", "device=cpu"], "on the CPU: it times kernels of WebGPU"],
  ];
  for (const [words, note] of cases) {
    await t.step(words.join(" "), async () => {
      const { code, stderr } = await run(CLI, [...args, ...words], cwd);
      assert.equal(code, 0, stderr);
      const notes = stderr.match(/^profile=true has no effect .*$/gm) ?? [];
      assert.deepEqual(notes, note ? [`profile=true has no effect ${note}`] : []);
      const tables = stderr.match(/^kernel +calls/gm)?.length ?? 0;
      assert.equal(tables, words.includes("name=short") ? 2 : Number(note === null));
      const shown = [...stderr.matchAll(/^step 0*(\d+)\/\d+ .*? \| (\w+) (\d+\.\d+) \|/gm)];
      const labels = shown.map(([, , label]) => label);
      const loss = (count: number) => Array(count).fill("loss");
      const all = [...loss(5), "kl", "kl", "kl", ...loss(4)];
      assert.deepEqual(labels, words.includes("name=short") ? all : loss(5));
    });
  }
  await Deno.remove(cwd, { recursive: true });
});

Deno.test("a run that diverges is marked failed with its step", async () => {
  const cwd = await Deno.makeTempDir();
  const args = [...MODEL, "recipe=dense", "name=wild", "lr=1e30", "clip=none", "warmupSteps=0"];
  const { code, stderr, stdout } = await run(CLI, args, cwd);
  assert.equal(code, 1, stderr);
  assert.match(
    stderr,
    /error: Training diverged at step \d+ \(stage dense\): \S+ is NaN, .*; lower lr/,
  );
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
