/** Reports of ablations. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { planRuns } from "../src/ablate/plan.ts";
import type { AblationResults, RunResult } from "../src/ablate/results.ts";
import { fitGrid, summarize } from "../src/ablate/summary.ts";
import { writeAblationReport } from "../src/report/ablation/ablation_report.ts";
import { Page } from "../src/report/page/browser.ts";
import { Rng } from "../src/rng.ts";
import { checkFigures, ensureBrowser, NASTY, tinyRun } from "./report_page.ts";

/** Results as an ablation writes them, with numbers from a formula; all runs share one folder. */
function madeUpResults(
  axes: Record<string, (number | string)[]>,
  { folder, rng }: { folder: string; rng: Rng },
): AblationResults {
  const seeds = [0, 1];
  const plan = planRuns({ question: "?", config: { evalBatches: 1 }, axes, seeds });
  const runs = plan.runs.map(({ variant, axes, seed, delta }, i): RunResult => {
    const [r, k] = [axes.kvLoraRank ?? 32, axes.indexTopk ?? 8].map(Number);
    const loss = 3 + 4 / r + 2 / k + 3 / (r * k) + 0.01 * rng.normal();
    const share = (layer: number) => Math.min(1, k / 40 + layer / 10);
    const about = { variant, axes, seed, folder, delta };
    if (i === 1) return { ...about, status: "missing", metrics: {}, costs: {} };
    if (i === 2) {
      const error = `Training diverged at step 7: ${NASTY}`;
      return { ...about, status: "failed", error, failedStep: 7, metrics: {}, costs: {} };
    }
    return {
      ...about,
      status: "done",
      metrics: {
        "val/loss": loss,
        "index/captured_mass": share(1),
        ...Object.fromEntries([0, 1].flatMap((layer) => [
          [`index/${layer}/captured_mass`, share(layer)],
          [`index/${layer}/dense_kl`, 1 - share(layer)],
          [`latent/${layer}/effective_rank`, r / (layer + 2)],
        ])),
      },
      costs: {
        "parameters": 1e5 + r,
        "cache/storedBytes": 8 * r + 64,
        "cache/readBytes": 1000 + 8 * r * k,
        ...Object.fromEntries(
          [["projections", 1e4 + r], ["core", 1e3 * k], ["indexer", 5e3], ["mlp", 4e4], [
            "head",
            1e4,
          ]]
            .map(([name, value]) => [`flopsPerToken/${name}`, value]),
        ),
        "flopsPerToken/total": 65e3 + r + 1e3 * k,
        "time/dense/step_ms": 10,
        "time/sparse/step_ms": 5 + k / 4,
        ...(k === 8 ? { "gpu/sparse/attention_ms": 3, "gpu/sparse/topk_ms": 1 } : {}),
      },
      evaluations: {
        "k=4": { "val/loss": loss + 0.2, "index/captured_mass": 0.3 },
        "k=16": { "val/loss": loss - 0.05, "index/captured_mass": 0.6 },
      },
    };
  });
  const baseline = "indexTopk" in axes ? { indexTopk: axes.indexTopk.at(-1)! } : undefined;
  const tabulate = ["val/loss", "index/captured_mass", "k=4/val/loss"];
  return {
    ...{ experiment: "made_up", size: "smoke", adapter: "none", git: null, axes: plan.axes },
    question: `Is this escaped: ${NASTY}?`,
    expect: "Figures",
    ...{ tabulate, baseline, runs, finished: false },
    summary: summarize(runs, baseline),
    fit: fitGrid(runs, { axes: plan.axes, metrics: tabulate }),
  };
}

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
