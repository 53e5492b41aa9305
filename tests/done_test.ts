/** Runs that are done, and runs that were killed before there was anything of them. */
import assert from "node:assert/strict";
import { join, relative } from "node:path";
import { resolveConfig, type RunConfig } from "../src/config/config.ts";
import { isThere } from "../src/files/files.ts";
import { loadNewest } from "../src/runs/newest_checkpoint.ts";
import { readSummary, requireNew, RunFolder } from "../src/runs/run_folder.ts";
import { resumeConfig } from "../src/train/resume.ts";
import { openRunData, startRun } from "../src/train/run.ts";
import { watched } from "./fuzz/file_calls.ts";
import { runFixture } from "./fuzz/run_fixture.ts";

/** All files of a folder. */
function contentOf(folder: string): Map<string, string> {
  const files = new Map<string, string>();
  const walk = (path: string) => {
    for (const { name, isDirectory } of Deno.readDirSync(path)) {
      const own = join(path, name);
      if (isDirectory) walk(own);
      else files.set(relative(folder, own), Deno.readTextFileSync(own));
    }
  };
  walk(folder);
  return files;
}

/** Goes on with a run on a device that fails at once. */
async function goOn(folder: string, words: string[], change: Partial<RunConfig> = {}) {
  const checkpoint = await loadNewest(folder, { forResume: true });
  const asked = resumeConfig(checkpoint.config, words);
  const { config, dataset } = await openRunData(asked, checkpoint.tokenizer);
  return await startRun({
    config: { ...config, ...change, resume: folder },
    ...{ dataset, checkpoint, experiment: "", argv: [], shouldStop: () => false },
    device: { gpu: null, open: () => Promise.reject(new Error("lost")), [Symbol.dispose]() {} },
    progress: { update: () => {}, note: () => {} },
  });
}

Deno.test("a run that is done stays as it is, whatever becomes of going on with it", async () => {
  const root = await Deno.makeTempDir();
  const folder = await runFixture(root);
  const before = contentOf(folder);
  const { step } = await loadNewest(folder, { forResume: true });
  assert.equal(readSummary(folder)!.status, "done");
  assert.deepEqual(await goOn(folder, []), { path: folder, status: "done", step });
  assert.deepEqual(contentOf(folder), before);
  await assert.rejects(goOn(folder, ["sparse.steps=9"]), /lost/);
  assert.deepEqual(contentOf(folder), before);
  await Deno.remove(root, { recursive: true });
});

Deno.test("wherever a run is killed before its first save, it can be started or gone on with", async () => {
  const root = await Deno.makeTempDir();
  const config = resolveConfig({ name: "x" });
  const path = join(root, "x");
  let looks = 0;
  // What a kill before any of the calls would leave.
  const look = () => {
    looks++;
    if (isThere(path)) {
      assert(isThere(join(path, "config.json")) && readSummary(path), "half of it");
    } else requireNew(path);
    return null;
  };
  await watched(look, () => RunFolder.create(config, { experiment: "x", root }));
  assert(looks > 8, `only ${looks} calls`);
  assert.deepEqual([...Deno.readDirSync(root)].map(({ name }) => name), ["x"]);
  // An earlier version began with an empty folder.
  Deno.mkdirSync(join(root, "y"));
  RunFolder.create({ ...config, name: "y" }, { experiment: "y", root });
  assert.equal(readSummary(join(root, "y"))!.status, "running");
  await Deno.remove(root, { recursive: true });
});
