/** Reports of ablations. */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { AblationResults, RunResult } from "../src/ablate/results.ts";
import { summarize } from "../src/ablate/summary.ts";
import { writeAblationReport } from "../src/report/ablation/ablation_report.ts";
import { Page } from "../src/report/page/browser.ts";
import { Rng } from "../src/rng.ts";
import { madeUpResults } from "./made_up_results.ts";
import { checkFigures, ensureBrowser, tinyRun } from "./report_page.ts";

Deno.test("an ablation's report shows every figure", async (t) => {
  await ensureBrowser();
  const seed = Math.floor(Math.random() * 2 ** 32);
  const rng = new Rng(seed, "report");
  const cwd = await Deno.makeTempDir();
  await tinyRun(cwd, "shared");
  const write = async (results: AblationResults) => {
    await Deno.writeTextFile(join(cwd, "results.json"), JSON.stringify(results));
    return await writeAblationReport(cwd);
  };
  const curves = [
    ...["loss", "validation", "mass", "kl", "mass-layers", "kl-layers", "rank-layers"],
  ];
  const pareto = ["pareto-read", "pareto-stored", "pareto-flops"];

  await t.step(`a grid, seed ${seed}`, async () => {
    const axes = { kvLoraRank: [16, 32, 64], indexTopk: [8, 16, 32] };
    const path = await write(madeUpResults(axes, { folder: "runs/shared", rng }));
    await checkFigures(path, {
      results: ["variants"],
      axes: [
        ...["grid", "difference", "interaction"],
        ...["line-0", "line-0-swapped", "line-1", "line-1-swapped"],
      ],
      evaluations: ["evaluations-0", "evaluations-1"],
      ...{ pareto, curves, costs: ["flops", "time-sparse"], unfinished: [] },
    });
    await using page = await Page.open(path);
    const texts = await page.evaluate(
      `[...document.querySelectorAll("#grid .textpoint text")].map((text) => text.style.fill)`,
    ) as string[];
    assert.equal(texts.length, 9, "numbers in the cells, black or white");
    assert.deepEqual([...new Set(texts)].sort(), ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]);
    const names = await page.evaluate(
      `[...document.querySelectorAll("#pareto-read .textpoint text")].map((text) =>
        text.textContent)`,
    ) as string[];
    assert(names.length > 1 && names.every((name) => /^\d+ · \d+$/.test(name)), `${names}`);
    const html = await Deno.readTextFile(path);
    assert(html.includes("diverged at step 7"), "failed runs are listed");
  });

  await t.step("a grid for each data set", async () => {
    const axes = { data: ["copy", "recall"], kvLoraRank: [16, 32], indexTopk: [16, 32] };
    const path = await write(madeUpResults(axes, { folder: "runs/shared", rng }));
    await checkFigures(path, {
      results: ["variants-data-copy", "variants-data-recall"],
      curves: [
        ...["copy", "recall"].flatMap((data) =>
          curves.slice(0, 4).map((id) => `${id}-data-${data}`)
        ),
        ...curves.slice(4),
      ],
      pareto: ["copy", "recall"].flatMap((data) => pareto.map((id) => `${id}-data-${data}`)),
      costs: ["flops", "time"],
    });
  });

  await t.step("one axis", async () => {
    const axes = { kvLoraRank: [16, 32, 64] };
    const path = await write(madeUpResults(axes, { folder: "runs/shared", rng }));
    await checkFigures(path, { results: ["variants"], axes: ["line-0", "line-1"] });
  });

  await t.step("one variant, nothing done", async () => {
    const results = madeUpResults({ kvLoraRank: [16] }, { folder: "runs/none", rng });
    const runs = results.runs.map((run): RunResult => ({
      ...run,
      ...{ status: "missing", metrics: {}, costs: {}, evaluations: undefined },
    }));
    const path = await write({ ...results, runs, summary: summarize(runs) });
    await checkFigures(path, { unfinished: [] });
  });
  await Deno.remove(cwd, { recursive: true });
});
