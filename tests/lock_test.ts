/** Locks on folders: one process at a time, and none left behind. */
import assert from "node:assert/strict";
import { hostname } from "node:os";
import { join } from "node:path";
import { removeBegun } from "../src/ablate/run_state.ts";
import { FolderLock, LOCK_FILE } from "../src/files/lock.ts";
import { isThere } from "../src/files/files.ts";
import { CLI, command, decoder, MODEL, run } from "./train_run.ts";
import { refuses } from "./user_error.ts";

const ABLATE = new URL("../src/commands/ablate.ts", import.meta.url).pathname;
const MODULE = new URL("../src/files/lock.ts", import.meta.url).href;

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

Deno.test("what is begun again was a run's, all of it", () =>
  withFolder(async (cwd) => {
    const folder = join(cwd, "run");
    removeBegun(folder);
    for (const name of ["config.json", "metrics.jsonl", "summary.json.partial", LOCK_FILE]) {
      await Deno.mkdir(folder, { recursive: true });
      await Deno.writeTextFile(join(folder, name), "");
    }
    removeBegun(folder);
    assert(!isThere(folder));
    await Deno.mkdir(folder);
    await Deno.writeTextFile(join(folder, "config.json"), "{}");
    await Deno.writeTextFile(join(folder, "notes.md"), "mine");
    await refusesAtOnce(() => removeBegun(folder), /Cannot begin .*run again: it holds notes\.md/);
    assert.equal(await Deno.readTextFile(join(folder, "notes.md")), "mine");
  }));
