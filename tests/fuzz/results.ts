/**
 * Damaged `results.json` of an ablation: everything that reads it works, or refuses it.
 *
 * @module
 */
import { join } from "node:path";
import { readResults, requireOwnFolder } from "../../src/ablate/folder.ts";
import { runsCsv } from "../../src/ablate/runs_csv.ts";
import { resultsTable } from "../../src/ablate/table.ts";
import { readAblation } from "../../src/report/ablation/data.ts";
import { ablationReport } from "../../src/report/ablation/ablation_report.ts";
import { renderPage } from "../../src/report/page/page.ts";
import { Rng } from "../../src/rng.ts";
import { madeUpResults } from "../made_up_results.ts";
import { type Findings, type Fuzzer, unclean } from "./fuzzer.ts";
import { mutateText, pick } from "./mutate.ts";
import { runFixture } from "./run_fixture.ts";

export const resultsFuzzer: Fuzzer = { name: "results", run };

const readers: Readonly<Record<string, (folder: string) => unknown>> = {
  report: (folder) => renderPage(ablationReport(readAblation(folder)), ""),
  table: (folder) => resultsTable(readResults(folder)!),
  csv: (folder) => runsCsv(readResults(folder)!),
  ablate: (folder) => requireOwnFolder(folder, { experiment: "made_up", size: "smoke" }),
};

async function run({ seed, until }: Parameters<Fuzzer["run"]>[0]): Promise<Findings> {
  const rng = new Rng(seed, "results");
  const root = await Deno.makeTempDir();
  const ablation = join(root, "made_up");
  await Deno.mkdir(ablation);
  await runFixture(ablation);
  const axes = { kvLoraRank: [16, 32], indexTopk: [8, 16] };
  const results = madeUpResults(axes, { folder: "fuzzed_001", rng });
  await Deno.remove(join(ablation, "text.txt"));
  const failures: Findings["failures"] = [];
  let cases = 0;
  for (; !until(); cases++) {
    const [name, read] = pick(rng, Object.entries(readers));
    const bytes = mutateText(rng, results);
    Deno.writeFileSync(join(ablation, "results.json"), bytes);
    const error = await unclean(() => read(ablation));
    if (error) failures.push({ input: `${name}: ${new TextDecoder().decode(bytes)}`, error });
  }
  await Deno.remove(root, { recursive: true });
  return { cases, failures };
}
