/** An ablation's results without its runs, for the tests of what reads them. */
import { planRuns } from "../src/ablate/plan.ts";
import type { AblationResults, RunResult } from "../src/ablate/results.ts";
import { fitGrid, summarize } from "../src/ablate/summary.ts";
import type { Rng } from "../src/rng.ts";
import { NASTY } from "./report_page.ts";

/** Results as an ablation writes them, with numbers from a formula; all runs share one folder. */
export function madeUpResults(
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
