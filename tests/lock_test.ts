/** Locks on folders: one process at a time, and none left behind. */
import assert from "node:assert/strict";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import { removeBegun } from "../src/ablate/run_state.ts";
import type { Experiment } from "../src/config/experiment.ts";
import { resolveConfig } from "../src/config/config.ts";
import { FolderLock, LOCK_FILE } from "../src/files/lock.ts";
import { isThere } from "../src/files/files.ts";
import { RunFolder } from "../src/runs/run_folder.ts";
import { CLI, command, decoder, MODEL, run, TEXT } from "./train_run.ts";
import { refuses } from "./user_error.ts";

const ABLATE = new URL("../src/commands/ablate.ts", import.meta.url).pathname;
const MODULE = new URL("../src/files/lock.ts", import.meta.url).href;

/** Two runs that share nothing. */
const EXPERIMENT: Experiment = {
  question: "Which one?",
  config: {
    ...{ data: TEXT, recipe: "dense", steps: 2, hiddenSize: 32, numHiddenLayers: 1 },
    ...{ numAttentionHeads: 2, intermediateSize: 48, batchSize: 2, seqLen: 32 },
    ...{ evalBatches: 1, sampleTokens: 0 },
  },
  variants: { a: {}, b: { lr: 2e-3 } },
  seeds: [0],
};

function writeExperiment(cwd: string): Promise<void> {
  const text = `export const experiment = ${JSON.stringify(EXPERIMENT)};\n`;
  return Deno.writeTextFile(join(cwd, "two.ts"), text);
}

/** Starts a process that takes the lock, says whether it has it, and keeps it until it is killed. */
function taker(folder: string): Deno.ChildProcess {
  const code = `
import { FolderLock } from "${MODULE}";
try {
  globalThis.kept = FolderLock.take(${JSON.stringify(folder)}, { action: "take it" });
  console.log("taken");
} catch (error) { console.log("refused: " + error.message); }
setInterval(() => {}, 1000);`;
  return new Deno.Command(Deno.execPath(), {
    args: ["eval", "--ext=ts", code],
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
}

async function lineOf(child: Deno.ChildProcess): Promise<string> {
  const reader = child.stdout.getReader();
  let text = "";
  while (!text.includes("\n")) {
    const { value, done } = await reader.read();
    if (done) break;
    text += decoder.decode(value);
  }
  await reader.cancel();
  return text.trim();
}

/** Like {@linkcode refuses}, for what does not wait. */
function refusesAtOnce(body: () => unknown, message: RegExp): Promise<void> {
  return refuses(() => Promise.resolve().then(body), message);
}

async function withFolder(body: (folder: string) => Promise<void> | void): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("of processes that start at once one has the folder, and a kill gives it back", () =>
  withFolder(async (folder) => {
    const children = Array.from({ length: 4 }, () => taker(folder));
    const lines = await Promise.all(children.map(lineOf));
    const winner = lines.indexOf("taken");
    assert.deepEqual(lines.filter((line) => line === "taken").length, 1, lines.join("\n"));
    const refused = lines.filter((_, i) => i !== winner);
    assert(
      refused.every((line) => /Cannot take it: (process \d+ on|another)/.test(line)),
      `${refused}`,
    );
    const { pid } = children[winner];
    const who = new RegExp(
      `Cannot go on: process ${pid} on ${hostname()} .* wait for it, or stop it`,
    );
    await refusesAtOnce(() => FolderLock.take(folder, { action: "go on" }), who);
    for (const child of children) child.kill("SIGKILL");
    await Promise.all(children.map((child) => child.status));

    const notes: string[] = [];
    const note = (line: string) => notes.push(line);
    {
      using _lock = FolderLock.take(folder, { action: "go on", note });
      assert.match(notes.join(), new RegExp(`note: process ${pid}, .* ended without a word`));
      assert.equal(JSON.parse(Deno.readTextFileSync(join(folder, LOCK_FILE))).pid, Deno.pid);
    }
    assert(!isThere(join(folder, LOCK_FILE)), "what is given back leaves nothing");
    using _again = FolderLock.take(folder, { action: "go on", note });
    assert.equal(notes.length, 1);
  }));

Deno.test("a process on another host is left alone, one from before a restart is not", () =>
  withFolder(async (folder) => {
    const path = join(folder, LOCK_FILE);
    const last = { host: "elsewhere", pid: 7, boot: "other", since: "2026-01-01T00:00:00Z" };
    const leave = (holder: object) => Deno.writeTextFileSync(path, JSON.stringify(holder));
    const take = (notes: string[] = []) =>
      FolderLock.take(folder, { action: "go on", note: (line) => notes.push(line) });
    for (const holder of [last, { ...last, boot: null }]) {
      leave(holder);
      await refusesAtOnce(
        () => take(),
        /process 7 on another host, elsewhere, .* if that is over, remove .*lock/,
      );
    }
    const notes: string[] = [];
    leave({ ...last, host: hostname() });
    take(notes)[Symbol.dispose]();
    assert.equal(notes.length, 1);
    // A container with a name of its own, on this kernel.
    if (Deno.build.os === "linux") {
      const boot = Deno.readTextFileSync("/proc/sys/kernel/random/boot_id").trim();
      leave({ ...last, boot });
      take(notes)[Symbol.dispose]();
      assert.equal(notes.length, 2);
    }
    for (const damage of ["", "{", "[]", '{"host":1}']) {
      Deno.writeTextFileSync(path, damage);
      take(notes)[Symbol.dispose]();
    }
    assert.equal(notes.length, Deno.build.os === "linux" ? 2 : 1);
  }));

Deno.test("giving a lock back leaves that of another process as it is", () =>
  withFolder(async (folder) => {
    const first = FolderLock.take(folder, { action: "be first" });
    // What people do who believe that it is over.
    await Deno.remove(join(folder, LOCK_FILE));
    using _second = FolderLock.take(folder, { action: "be second" });
    first[Symbol.dispose]();
    await refusesAtOnce(() => FolderLock.take(folder, { action: "be third" }), /Cannot be third/);
  }));

Deno.test("on a file system without locks a process that is there is believed", () =>
  withFolder(async (folder) => {
    const { tryLockSync } = Deno.FsFile.prototype;
    Deno.FsFile.prototype.tryLockSync = () => {
      throw new Error("Function not implemented (os error 38)");
    };
    try {
      const take = (notes: string[]) =>
        FolderLock.take(folder, { action: "go on", note: (line) => notes.push(line) });
      const path = join(folder, LOCK_FILE);
      const notes: string[] = [];
      const lock = take(notes);
      const own = JSON.parse(Deno.readTextFileSync(path));
      const way = /process \d+ on .* has been at it since .*; if that is over, remove .*lock/;
      await refusesAtOnce(() => take(notes), way);
      lock[Symbol.dispose]();
      assert.deepEqual(notes, []);
      if (Deno.build.os !== "linux") return;
      const gone = [
        { ...own, boot: "before a restart" },
        { ...own, started: "1" },
        // Linux gives no process this number.
        { ...own, pid: 2 ** 22 + 1 },
      ];
      for (const [i, holder] of gone.entries()) {
        Deno.writeTextFileSync(path, JSON.stringify(holder));
        take(notes)[Symbol.dispose]();
        assert.equal(notes.length, i + 1, JSON.stringify(holder));
      }
      // Where nothing tells when it began, it may be another one.
      Deno.writeTextFileSync(path, JSON.stringify({ ...own, started: undefined }));
      await refusesAtOnce(() => take(notes), way);
    } finally {
      Deno.FsFile.prototype.tryLockSync = tryLockSync;
    }
  }));

Deno.test("what is no folder cannot be gone on with", () =>
  withFolder(async (cwd) => {
    await Deno.writeTextFile(join(cwd, "notes.txt"), "");
    const { code, stderr } = await run(CLI, ["resume=notes.txt"], cwd);
    assert.equal(code, 2, stderr);
    assert.match(stderr, /^error: Cannot go on with notes\.txt: notes\.txt is no folder\n$/);
  }));

Deno.test("a run that is trained, and an ablation, are refused to others until they are over", () =>
  withFolder(async (cwd) => {
    const args = [...MODEL, "recipe=dense", "steps=4000", "name=busy", "saveEvery=2"];
    const busy = command(CLI, args, cwd).spawn();
    const checkpoint = join(cwd, "runs/busy/checkpoints/step_000002");
    while (!isThere(checkpoint)) await new Promise((resolve) => setTimeout(resolve, 5));
    const second = await run(CLI, ["resume=runs/busy"], cwd);
    assert.equal(second.code, 2);
    assert.match(second.stderr, /^error: Cannot go on with runs\/busy: process \d+ on .*\n$/);
    busy.kill("SIGKILL");
    await busy.output();
    const third = await run(CLI, ["resume=runs/busy", "steps=1"], cwd);
    assert.match(third.stderr, /note: process \d+, which had runs\/busy since/);

    await Deno.mkdir(join(cwd, "runs/quickstart_smoke"));
    using _lock = FolderLock.take(join(cwd, "runs/quickstart_smoke"), { action: "test" });
    const ablation = await run(ABLATE, ["selector", "size=smoke", "name=quickstart_smoke"], cwd);
    assert.equal(ablation.code, 2, ablation.stderr);
    assert.match(ablation.stderr, /error: Cannot run in runs\/quickstart_smoke: process \d+ on/);
  }));

Deno.test("what is begun again was a run's, all of it, and nobody is at it", () =>
  withFolder(async (cwd) => {
    const folder = join(cwd, "run");
    const config = JSON.stringify(resolveConfig({ name: "run" }));
    const make = async (files: Record<string, string>) => {
      for (const [name, text] of Object.entries(files)) {
        await Deno.mkdir(dirname(join(folder, name)), { recursive: true });
        await Deno.writeTextFile(join(folder, name), text);
      }
    };
    const logs = { "metrics.jsonl": "", "summary.json.partial": "{" };
    removeBegun(folder);
    const own: Record<string, string>[] = [
      { "config.json": config, ...logs, [LOCK_FILE]: "" },
      { "config.json": config, "checkpoints/step_000009.partial/state.json": "" },
      { "config.json.partial": "{" },
      { [LOCK_FILE]: "" },
    ];
    for (const files of own) {
      await make(files);
      removeBegun(folder);
      assert(!isThere(folder), Object.keys(files).join());
    }
    const checkpoint = { "config.json": config, "checkpoints/step_000009/state.json": "" };
    await make(checkpoint);
    removeBegun(folder, { isCopy: true });
    assert(!isThere(folder));
    const strange: [files: Record<string, string>, message: RegExp][] = [
      [{ "config.json": config, "notes.md": "" }, /begin .*run again: it holds notes\.md, which/],
      [{ "config.json": config, "checkpoints/mine/a": "" }, /it holds checkpoints\/mine, which/],
      [{ "config.json": config, "checkpoints/step_000009.damaged/a": "" }, /step_000009\.damaged/],
      [{ "config.json": config, "checkpoints": "" }, /checkpoints/],
      [checkpoint, /it holds checkpoints\/step_000009, which/],
      [logs, /it holds metrics\.jsonl and no config\.json/],
      [{ "config.json": '{"name":5}', ...logs }, /config\.json/],
    ];
    for (const [files, message] of strange) {
      await make(files);
      await refusesAtOnce(() => removeBegun(folder), message);
      for (const [name, text] of Object.entries(files)) {
        assert.equal(await Deno.readTextFile(join(folder, name)), text);
      }
      assert(!isThere(join(folder, LOCK_FILE)));
      await Deno.remove(folder, { recursive: true });
    }
    await make({ "config.json": config });
    {
      using _lock = FolderLock.take(folder, { action: "train in it" });
      await refusesAtOnce(() => removeBegun(folder), /begin .*run again: process \d+ on/);
    }
    assert.equal(await Deno.readTextFile(join(folder, "config.json")), config);
  }));

Deno.test("an ablation leaves alone a run of it that another process trains", () =>
  withFolder(async (cwd) => {
    await writeExperiment(cwd);
    const first = await run(ABLATE, ["two.ts", "budget=0s"], cwd);
    assert.equal(first.code, 0, first.stderr);
    const config = resolveConfig({ ...EXPERIMENT.config, name: "a_s0" });
    const { path } = RunFolder.create(config, { experiment: "", root: join(cwd, "runs/two/runs") });
    using _lock = FolderLock.take(path, { action: "train in it" });
    const { code, stderr, stdout } = await run(ABLATE, ["two.ts"], cwd);
    assert.equal(code, 1, stderr);
    assert.match(stderr, /a_s0 failed: Cannot begin \S*a_s0 again: process \d+ on/);
    assert.match(stdout, /^b +1 /m);
    assert(isThere(join(path, LOCK_FILE)));
    assert(!isThere(join(path, "checkpoints")));
  }));

Deno.test("of ablations of one experiment that start at once one runs", () =>
  withFolder(async (cwd) => {
    await writeExperiment(cwd);
    const both = await Promise.all([1, 2].map(() => run(ABLATE, ["two.ts"], cwd)));
    const [won, lost] = both.sort((a, b) => a.code - b.code);
    assert.deepEqual([won.code, lost.code], [0, 2], won.stderr + lost.stderr);
    assert.match(lost.stderr, /error: Cannot run in runs\/two: (process \d+ on|another process)/);
    assert.deepEqual([...Deno.readDirSync(join(cwd, "runs/two/runs"))].length, 2);
    assert(!isThere(join(cwd, "runs/two", LOCK_FILE)));
  }));
