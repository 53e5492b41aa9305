/** Whole ablations by command. */
import assert from "node:assert/strict";
import { cpSync } from "node:fs";
import { join } from "node:path";
import type { AblationResults } from "../src/ablate/results.ts";
import { resultsTable } from "../src/ablate/table.ts";
import type { Delta, Experiment } from "../src/config/experiment.ts";
import { latestCheckpoint, loadCheckpoint } from "../src/runs/checkpoint.ts";
import { type MetricsRow, readMetrics } from "../src/runs/run_folder.ts";
import { MANY } from "./ablate_experiment.ts";

const TRAIN = new URL("../src/commands/train.ts", import.meta.url).pathname;
const CLI = new URL("../src/commands/ablate.ts", import.meta.url).pathname;
const decoder = new TextDecoder();

function command(cwd: string, args: string[], cli = CLI): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", cli, ...args],
    cwd,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

async function ablate(cwd: string, ...args: string[]) {
  const { code, stdout, stderr } = await command(cwd, args).output();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

async function writeExperiment(cwd: string, name: string, experiment: Experiment): Promise<string> {
  const text = `export const experiment = ${JSON.stringify(experiment)};\n`;
  await Deno.writeTextFile(join(cwd, name), text);
  return name;
}

function readResults(folder: string): AblationResults {
  return JSON.parse(Deno.readTextFileSync(join(folder, "results.json")));
}

/** Results without what depends on time and machine. */
function timeless({ runs, ...rest }: AblationResults) {
  const isTimeless = ([name]: [string, unknown]) => !name.startsWith("time/");
  return {
    ...rest,
    runs: runs.map(({ costs, ...run }) => ({
      ...run,
      costs: Object.fromEntries(Object.entries(costs).filter(isTimeless)),
    })),
  };
}

/** The files below a folder and when they were written. */
function written(folder: string): Map<string, number> {
  const files = new Map<string, number>();
  const walk = (path: string) => {
    for (const { name, isDirectory } of Deno.readDirSync(path)) {
      const own = join(path, name);
      if (isDirectory) walk(own);
      else files.set(own, Deno.statSync(own).mtime!.getTime());
    }
  };
  walk(folder);
  return files;
}

/** All that a run logged but times, and weights and moments at its end. */
async function outcome(folder: string) {
  const trained = (row: MetricsRow) =>
    Object.fromEntries(
      Object.entries(row).filter(([name]) => name !== "t" && !name.startsWith("time/")),
    );
  const { state, step } = await loadCheckpoint(await latestCheckpoint(folder));
  return { step, state, rows: readMetrics(join(folder, "metrics.jsonl")).map(trained) };
}

Deno.test("an ablation: shared beginnings, a failed variant, kill, budget", async (t) => {
  const cwd = await Deno.makeTempDir();
  const many = await writeExperiment(cwd, "many.ts", MANY);
  const whole = join(cwd, "runs/many");
  const started = performance.now();
  const { code, stdout, stderr } = await ablate(cwd, many);
  const seconds = (performance.now() - started) / 1000;
  assert.equal(code, 1, stderr);
  const results = readResults(whole);
  const byVariant = Object.fromEntries(results.runs.map((run) => [run.variant, run]));

  await t.step("a diverged variant is marked with its step, and the others go on", () => {
    assert.equal(stdout.trim().split("\n").at(-1), "runs/many");
    assert.deepEqual(
      results.runs.map(({ variant, status }) => [variant, status]),
      [
        ...["few", "more", "always", "heads"].map((variant) => [variant, "done"]),
        ["wild", "failed"],
      ],
    );
    assert(byVariant.wild.failedStep! >= 1 && byVariant.wild.failedStep! <= 20);
    assert.match(byVariant.wild.error!, /diverged at step/);
    assert.match(stdout, /wild +0 +failed at step \d+/);
    assert(results.finished);
    assert.deepEqual(byVariant.heads.delta, { indexNHeads: 3 });
  });

  await t.step("metrics, costs, evaluations and differences are there", () => {
    const { metrics, costs, evaluations } = byVariant.few;
    for (const name of ["sparse/val/loss", "twin/val/loss", "index/captured_mass", "swap/oracle"]) {
      assert(Number.isFinite(metrics[name]), name);
    }
    assert.equal(metrics["sparse/val/loss"], metrics["val/loss"]);
    const parts = ["projections", "core", "indexer", "mlp", "head"];
    const sum = parts.reduce((all, part) => all + costs[`flopsPerToken/${part}`], 0);
    assert(Math.abs(sum - costs["flopsPerToken/total"]) < 1e-6);
    assert(costs["flopsPerToken/teacher"] > 0 && costs["time/sparse/step_ms"] > 0);
    // Selecting reads less, and stores as much.
    const more = byVariant.more.costs;
    assert.equal(costs["cache/storedBytes"], more["cache/storedBytes"]);
    assert(costs["cache/readBytes"] < more["cache/readBytes"]);
    assert(Number.isFinite(evaluations!["k=2"]["index/captured_mass"]));
    const row = results.summary.find(({ variant }) => variant === "few")!;
    const difference = metrics["val/loss"] - byVariant.more.metrics["val/loss"];
    assert.equal(row.difference!["val/loss"].mean, difference);
    assert(row.metrics["k=2/val/loss"]);
    assert.equal(Deno.readTextFileSync(join(whole, "table.txt")), `${resultsTable(results)}\n`);
    const [header, ...lines] = Deno.readTextFileSync(join(whole, "runs.csv")).trim().split("\n");
    assert.equal(lines.length, results.runs.length);
    const cells = lines.find((line) => line.startsWith("few,"))!.split(",");
    const at = header.split(",").indexOf("k=2/val/loss");
    assert.equal(Number(cells[at]), evaluations!["k=2"]["val/loss"]);
  });

  await t.step("beginnings are trained once, and branches are bitwise whole runs", async () => {
    const trunks = [...Deno.readDirSync(join(whole, "trunks"))].map(({ name }) => name);
    assert.deepEqual(trunks.map((name) => name.split("_")[0]).sort(), ["dense", "twin", "warmup"]);
    for (const variant of ["more", "always", "heads"]) {
      const own = { [variant]: MANY.variants![variant] };
      const alone = { ...MANY, variants: own, baseline: variant, evaluate: {} };
      const name = await writeExperiment(cwd, `${variant}.ts`, alone);
      assert.equal((await ablate(cwd, name)).code, 0);
      const folder = join(cwd, "runs", variant);
      assert.throws(() => Deno.statSync(join(folder, "trunks")), Deno.errors.NotFound);
      const [branched, straight] = [whole, folder].map((f) => join(f, "runs", `${variant}_s0`));
      assert.deepEqual(await outcome(branched), await outcome(straight));
    }
  });

  await t.step("a second call has nothing to do", async () => {
    const before = written(join(whole, "runs"));
    assert.equal((await ablate(cwd, many)).code, 1);
    assert.deepEqual(written(join(whole, "runs")), before);
    assert.deepEqual(readResults(whole), results);
  });

  await t.step("killed half-way and started again, it repeats nothing that was done", async () => {
    const folder = join(cwd, "runs/killed");
    const child = command(cwd, [many, "name=killed"]).spawn();
    const branch = join(folder, "runs/more_s0/env.json");
    while (!await Deno.stat(branch).then(() => true, () => false)) {
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    child.kill("SIGKILL");
    assert.equal((await child.output()).code, 137);
    // As a kill leaves the next branch while its beginning is copied: before it has its name.
    const copied = join(folder, "runs/always_s0.partial");
    cpSync(join(folder, "runs/more_s0"), copied, { recursive: true });
    assert(await latestCheckpoint(copied));
    const done = ["runs/few_s0", "trunks"].map((path) => join(folder, path));
    const before = done.map(written);
    assert.equal((await ablate(cwd, many, "name=killed")).code, 1);
    assert.deepEqual(done.map(written), before);
    assert.deepEqual(timeless(readResults(folder)), timeless(results));
  });

  await t.step("a budget stops it, and the same command goes on", async () => {
    const folder = join(cwd, "runs/budget");
    const args = [many, "name=budget"];
    const none = await ablate(cwd, ...args, "budget=0s");
    assert.equal(none.code, 0, none.stderr);
    assert.equal(readResults(folder).finished, false);
    assert.match(none.stderr, /5 of 5 runs are left: the same command goes on/);
    let calls = 0;
    for (; !readResults(folder).finished; calls++) {
      assert(calls < 9, "it must get on");
      // More each time: others may be busy on this machine.
      const budget = `budget=${(seconds * (0.5 + 0.2 * calls)).toFixed(1)}s`;
      const { code, stderr } = await ablate(cwd, ...args, budget);
      assert.equal(code, readResults(folder).finished ? 1 : 0, stderr);
    }
    assert.deepEqual(timeless(readResults(folder)), timeless(results));
    // A run that failed counts, whatever is left.
    const half = await ablate(cwd, ...args, "seeds=0,1", "budget=0s");
    assert.match(half.stderr, /5 of 10 runs are left/);
    assert.equal(half.code, 1, half.stderr);
  });

  await t.step("Ctrl-C saves", async () => {
    const folder = join(cwd, "runs/interrupted");
    const child = command(cwd, [many, "name=interrupted"]).spawn();
    while (!await latestCheckpoint(join(folder, "runs/few_s0")).then(() => true, () => false)) {
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    child.kill("SIGINT");
    const { code, stderr } = await child.output();
    assert.equal(code, 130, decoder.decode(stderr));
    assert.equal(readResults(folder).finished, false);
  });

  await t.step("wrong fields and other configurations fail before anything runs", async () => {
    const wrong = await writeExperiment(cwd, "wrong.ts", {
      ...MANY,
      variants: { ...MANY.variants, wrong: { indexTopkk: 3 } as Delta },
    });
    const other = await writeExperiment(cwd, "other.ts", MANY);
    const cases: [string[], RegExp][] = [
      [[wrong], /"indexTopkk": did you mean indexTopk\?.*\(variant wrong\)/],
      [[many, "steps=21"], /runs\/few_s0: it was made with steps=20, now it is 21; .*name=/],
      [[many, "name=fresh", "data=nowhere.txt"], /nowhere\.txt/],
      [[many, "budget=soon"], /budget=soon/],
      [[many, "seeds=a"], /seeds=a/],
      [[many, "size=smoke"], /size=smoke: use real/],
      [[many, "name=../x"], /name="\.\.\/x"/],
      [["missing.ts"], /"missing\.ts": there is no such file/],
      [["quikstart"], /did you mean quickstart\?/],
      [[], /give one experiment/],
      [["steps"], /"steps": it is a key, write steps=…/],
      [[many, "budget"], /budget to nothing: write budget=…/],
      [[many, "evalBatches=2"], /made with evalBatches=1, now it is 2/],
      [[many, "name=run"], /runs\/run: it holds a training run; take another name/],
      [[many, "name=notes"], /runs\/notes: it holds something else than an ablation/],
      [[many, "name=file"], /runs\/file: it holds something else/],
      [[many, "name=foreign"], /foreign\/results\.json: it is not the results of an ablation/],
      [[other, "name=many"], /runs\/many: it holds an ablation with many size=real/],
    ];
    const holds = { run: "config.json", notes: "notes.txt", foreign: "results.json" };
    for (const [name, file] of Object.entries(holds)) {
      await Deno.mkdir(join(cwd, "runs", name));
      await Deno.writeTextFile(join(cwd, "runs", name, file), '{ "runs": [1] }');
    }
    await Deno.writeTextFile(join(cwd, "runs/file"), "");
    const before = written(join(cwd, "runs"));
    for (const [args, message] of cases) {
      const { code, stdout, stderr } = await ablate(cwd, ...args);
      assert.equal(code, 2, stderr);
      assert.equal(stdout, "");
      assert.match(stderr.trim().split("\n").at(-1)!, /^error: Cannot /);
      assert.match(stderr, message);
    }
    const tiny = [`data=${MANY.config.data}`, "tokenizer=byte", "steps=1"];
    // Nor does training go into the folder of an ablation.
    const { code, stderr } = await command(cwd, [...tiny, "name=many"], TRAIN).output();
    assert.equal(code, 2);
    assert.match(decoder.decode(stderr), /error: Cannot start in runs\/many: it exists/);
    assert.deepEqual(written(join(cwd, "runs")), before);
  });
  await Deno.remove(cwd, { recursive: true });
});
