import assert from "node:assert/strict";
import { join } from "node:path";
import { resolveConfig } from "../src/config/config.ts";
import { UserError } from "../src/errors.ts";
import { describeEnvironment } from "../src/runs/environment.ts";
import { markLogs } from "../src/runs/log_mark.ts";
import { readMetrics, readSummary, RunFolder } from "../src/runs/run_folder.ts";
import { userError } from "./user_error.ts";

const config = resolveConfig({});

/** Runs `body` with a folder for runs. */
async function withRoot(body: (root: string) => void | Promise<void>): Promise<void> {
  const root = await Deno.makeTempDir();
  try {
    await body(root);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

/** The rows without their times. */
function rows(run: RunFolder): unknown[] {
  return readMetrics(join(run.path, "metrics.jsonl")).map(({ t: _, ...row }) => row);
}

Deno.test("a run gets a folder, its name and its configuration", () =>
  withRoot((root) => {
    const where = { experiment: "quickstart", root: join(root, "runs") };
    const run = RunFolder.create(config, where);
    assert.equal(run.path, join(root, "runs", "quickstart_001"));
    const saved = JSON.parse(Deno.readTextFileSync(join(run.path, "config.json")));
    assert.deepEqual(saved, { ...config, name: "quickstart_001" });
    assert.deepEqual(resolveConfig(saved), run.config);
    assert.equal(readSummary(run.path)!.status, "running");
    assert.equal(RunFolder.create(config, where).config.name, "quickstart_002");
    Deno.mkdirSync(join(root, "runs", "quickstart_117"));
    assert.equal(RunFolder.create(config, where).config.name, "quickstart_118");
    const other = RunFolder.create(config, { ...where, experiment: "quickstart_long" });
    assert.equal(other.config.name, "quickstart_long_001");
  }));

Deno.test("a run that exists is not overwritten", () =>
  withRoot((root) => {
    const named = { ...config, name: "mine" };
    const run = RunFolder.create(named, { experiment: "quickstart", root });
    run.log(1, { "train/loss": 3 });
    assert.throws(
      () => RunFolder.create(named, { experiment: "quickstart", root }),
      (error) => error instanceof UserError && /resume=\S*mine.*another name/.test(error.message),
    );
    assert.deepEqual(rows(run), [{ step: 1, "train/loss": 3 }]);
    Deno.writeTextFileSync(join(root, "file"), "");
    assert.throws(
      () => RunFolder.create(named, { experiment: "x", root: join(root, "file", "runs") }),
      UserError,
    );
  }));

Deno.test("the summary has the final and the best values", () =>
  withRoot((root) => {
    const run = RunFolder.create(config, { experiment: "x", root });
    const losses = Array.from({ length: 9 }, Math.random);
    losses.forEach((loss, step) => {
      run.log(step, { "val/loss": loss, "val/accuracy": 1 - loss, "time/step_ms": step });
    });
    run.log(9, { "val/loss": NaN });
    const summary = run.finish("done", { step: 10 });
    const best = losses.indexOf(Math.min(...losses));
    assert.deepEqual(summary.best, {
      "val/loss": { value: losses[best], step: best },
      "val/accuracy": { value: 1 - losses[best], step: best },
    });
    const stored = readSummary(run.path)!;
    assert.equal(stored.status, "done");
    assert.equal(stored.step, 10);
    assert.deepEqual(stored.final, {
      "val/loss": null,
      "val/accuracy": 1 - losses[8],
      "time/step_ms": 8,
    });
    assert.equal(run.finish("failed", { step: 3, error: "Loss is not finite" }).status, "failed");
    assert.equal(readSummary(run.path)!.error, "Loss is not finite");
    const files = [...Deno.readDirSync(run.path)].map(({ name }) => name);
    assert(!files.some((name) => name.endsWith(".partial")));
  }));

Deno.test("a resumed run's logs are those of a run never stopped", () =>
  withRoot((root) => {
    const write = (run: RunFolder, from: number, to: number) => {
      for (let step = from; step < to; step++) {
        run.log(step, { "train/loss": 1 / (step + 1) });
        run.sample(step, `text ${step}`);
      }
    };
    const whole = RunFolder.create(config, { experiment: "whole", root });
    write(whole, 0, 9);
    const first = RunFolder.create(config, { experiment: "killed", root });
    write(first, 0, 4);
    const logs = markLogs(first.path);
    write(first, 4, 7);
    const metrics = join(first.path, "metrics.jsonl");
    Deno.writeTextFileSync(metrics, '{"step":7,"t":1.2,"tra', { append: true });
    assert.equal(readMetrics(metrics).length, 7);

    const longer = { ...first.config, steps: 999 };
    const again = RunFolder.resume(first.path, { config: longer, logs });
    write(again, 4, 9);
    assert.deepEqual(rows(again), rows(whole));
    const samples = (run: RunFolder) => Deno.readTextFileSync(join(run.path, "samples.txt"));
    assert.equal(samples(again), samples(whole));
    const times = readMetrics(metrics).map(({ t }) => t);
    assert.deepEqual(times, [...times].sort((a, b) => a - b));
    assert.deepEqual(
      again.finish("done", { step: 9 }).best,
      whole.finish("done", { step: 9 }).best,
    );
    assert.equal(JSON.parse(Deno.readTextFileSync(join(again.path, "config.json"))).steps, 999);
  }));

Deno.test("metrics shorter than the mark, or edited, are refused; samples may be lost", () =>
  withRoot((root) => {
    const run = RunFolder.create(config, { experiment: "x", root });
    run.log(0, { "train/loss": 2 });
    run.log(1, { "train/loss": 1 });
    const logs = markLogs(run.path);
    const metrics = join(run.path, "metrics.jsonl");
    const whole = Deno.readTextFileSync(metrics);
    const damages: [damaged: string, message: RegExp][] = [
      [whole.slice(0, -5), /cut off, \d+ bytes long and not \d+; put it back/],
      [whole.split("\n")[0] + "\n", /cut off/],
      [whole.replace(/loss":2/, 'loss":1'), /damaged or edited/],
      ["", /cut off, 0 bytes/],
    ];
    for (const [damaged, message] of damages) {
      Deno.writeTextFileSync(metrics, damaged);
      assert.match(userError(() => RunFolder.resume(run.path, { config, logs })), message);
      assert.equal(Deno.readTextFileSync(metrics), damaged, "it is left as it is");
    }
    Deno.writeTextFileSync(metrics, whole + "more");
    Deno.removeSync(join(run.path, "samples.txt"));
    const again = RunFolder.resume(run.path, { config, logs });
    assert.equal(rows(again).length, 2);
    const good = '{"step":1,"t":0.5,"val/loss":null}';
    for (const line of ["nonsense", "{}", "null", '{"step":2,"t":1,"val/loss":"3"}']) {
      Deno.writeTextFileSync(metrics, `${good}\n${line}\n${good}\n`);
      assert.throws(() => readMetrics(metrics), /line 2 is damaged/);
    }
  }));

Deno.test("the environment is written, and added to when the run goes on", () =>
  withRoot((root) => {
    const run = RunFolder.create(config, { experiment: "x", root });
    const environment = describeEnvironment({
      backend: "webgpu",
      adapter: "a card",
      features: ["timestamp-query"],
      limits: { maxBufferSize: 1 },
      seed: 7,
      argv: ["quickstart", "seed=7"],
    });
    run.writeEnvironment(environment);
    run.writeEnvironment({ ...environment, adapter: "another" });
    const stored = JSON.parse(Deno.readTextFileSync(join(run.path, "env.json")));
    assert.equal(stored.adapter, "a card");
    assert.equal(stored.resumed[0].adapter, "another");
    assert.equal(stored.versions.deno, Deno.version.deno);
    assert.deepEqual(stored.argv, ["quickstart", "seed=7"]);
    assert.match(String(stored.git.sha), /^([0-9a-f]{40}|null)$/);
  }));

Deno.test("a damaged env.json or summary.json is written anew", () =>
  withRoot((root) => {
    const run = RunFolder.create(config, { experiment: "x", root });
    run.log(3, { "train/loss": 2 });
    const logs = markLogs(run.path);
    const damages = ["", "{", "[]", "null", '"done"', "\0\0\0", '{"resumed":5,"status":5}'];
    for (const damaged of damages) {
      for (const name of ["env.json", "summary.json"]) {
        Deno.writeTextFileSync(join(run.path, name), damaged);
      }
      assert.equal(readSummary(run.path), null);
      const again = RunFolder.resume(run.path, { config, logs });
      again.writeEnvironment({ adapter: "a card" });
      const environment = JSON.parse(Deno.readTextFileSync(join(run.path, "env.json")));
      assert.equal((environment.resumed?.[0] ?? environment).adapter, "a card");
      again.finish("done", { step: 3 });
      assert.equal(readSummary(run.path)!.final["train/loss"], 2);
    }
  }));
