/**
 * Damaged files of a run folder: everything that reads a run works, or refuses it with one line.
 *
 * @module
 */
import { basename, join, relative } from "node:path";
import { readEvaluations } from "../../src/ablate/evaluations.ts";
import { requireSame, stateOf } from "../../src/ablate/run_state.ts";
import { loadTokenizer } from "../../src/data/tokenizer/tokenizers.ts";
import { loadModel } from "../../src/runs/load_model.ts";
import { renderPage } from "../../src/report/page/page.ts";
import { readRun } from "../../src/report/run/run_data.ts";
import { runReport } from "../../src/report/run/run_report.ts";
import { Rng } from "../../src/rng.ts";
import { loadNewest } from "../../src/runs/newest_checkpoint.ts";
import { resumeConfig, unsavedConfig } from "../../src/train/resume.ts";
import { openRunData } from "../../src/train/run.ts";
import { RunFolder } from "../../src/runs/run_folder.ts";
import { type Findings, type Fuzzer, unclean } from "./fuzzer.ts";
import { mutateBytes, mutateText, pick } from "./mutate.ts";
import { runFixture } from "./run_fixture.ts";

export const runFilesFuzzer: Fuzzer = { name: "run_files", run };

/** What commands do with a run folder before anything is on a device. */
const readers: Readonly<Record<string, (folder: string) => unknown>> = {
  resume,
  evaluate: async (folder) => {
    const { config, tokenizer } = await loadModel(folder);
    await openRunData(config, tokenizer);
  },
  sample: async (folder) => {
    const { config, tokenizer } = await loadModel(folder, { batchSize: 1 }, "sample");
    if (tokenizer) loadTokenizer(tokenizer).encode(config.samplePrompt);
  },
  report: async (folder) => renderPage(await runReport(readRun(folder), null), ""),
  ablate: async (folder) => {
    const { summary } = await stateOf(folder);
    Object.entries(summary?.final ?? {});
    readEvaluations(folder);
    requireSame(folder, readRun(folder).config);
  },
};

async function resume(folder: string): Promise<void> {
  const unsaved = await unsavedConfig(folder);
  const checkpoint = unsaved ? null : await loadNewest(folder, { forResume: true, note: () => {} });
  const config = resumeConfig(unsaved ?? checkpoint!.config, []);
  const data = await openRunData(config, checkpoint?.tokenizer);
  const logs = checkpoint?.logs ?? { metrics: 0, samples: 0 };
  const run = RunFolder.resume(folder, { config: data.config, logs });
  run.writeEnvironment({ adapter: "none" });
  run.log(7, { "train/loss": 1 });
  run.finish("done", { step: 7 });
}

async function run({ seed, until }: Parameters<Fuzzer["run"]>[0]): Promise<Findings> {
  const rng = new Rng(seed, "run_files");
  const root = await Deno.makeTempDir();
  const folder = await runFixture(root);
  // Checksums refuse what is damaged before it is read: older checkpoints have none.
  if (seed % 2 === 1) withoutChecksums(folder);
  const files = new Map(filesOf(folder).map((path) => [path, Deno.readFileSync(path)]));
  const damaged = [...files.keys()].filter((path) => /\.jsonl?$|samples\.txt$/.test(path));
  const failures: Findings["failures"] = [];
  let cases = 0;
  for (; !until(); cases++) {
    const path = pick(rng, damaged);
    const [name, read] = pick(rng, Object.entries(readers));
    const bytes = mutated(rng, path, files.get(path)!);
    Deno.writeFileSync(path, bytes);
    const error = await unclean(() => read(folder));
    const input = `${name} ${relative(folder, path)}: ${new TextDecoder().decode(bytes)}`;
    if (error) failures.push({ input, error });
    // Going on with a run writes into its folder.
    for (const [file, content] of files) {
      if (file === path || read === resume) Deno.writeFileSync(file, content);
    }
  }
  await Deno.remove(root, { recursive: true });
  return { cases, failures };
}

function mutated(rng: Rng, path: string, bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  if (path.endsWith(".json")) {
    return mutateText(rng, JSON.parse(new TextDecoder().decode(bytes)));
  }
  if (!path.endsWith(".jsonl") || rng.below(3) === 0) return mutateBytes(rng, bytes);
  const rows = new TextDecoder().decode(bytes).trimEnd().split("\n");
  const at = rng.below(rows.length);
  rows[at] = new TextDecoder().decode(mutateText(rng, JSON.parse(rows[at])));
  return new TextEncoder().encode(rows.join("\n") + "\n");
}

/** Makes checkpoints as version 2 wrote them. */
function withoutChecksums(folder: string): void {
  for (const path of filesOf(folder)) {
    if (basename(path) === "manifest.json") Deno.removeSync(path);
    if (basename(path) !== "state.json") continue;
    const { logs: { metrics, samples }, ...state } = JSON.parse(Deno.readTextFileSync(path));
    Deno.writeTextFileSync(
      path,
      JSON.stringify({ ...state, version: 2, logs: { metrics, samples } }),
    );
  }
}

function filesOf(folder: string): string[] {
  return [...Deno.readDirSync(folder)].flatMap(({ name, isDirectory }) => {
    const path = join(folder, name);
    return isDirectory ? filesOf(path) : [path];
  }).sort();
}
