/**
 * The runs of an ablation as `runs.csv`, for spreadsheets and data frames.
 *
 * @module
 */
import type { AblationResults, RunResult } from "./results.ts";
import { isOfPart } from "../metrics/names.ts";
import { valuesOf } from "./summary.ts";

/**
 * A line for each run: variant, value of each axis, seed, status, then metrics, evaluations
 * (`k=16/val/loss`) and costs under the names of `results.json`, which alone has those of single
 * layers; empty where a run has none.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { runsCsv } from "./runs_csv.ts";
 *
 * const costs = { parameters: 7 };
 * const run = { variant: "k16", axes: { indexTopk: 16 }, folder: "", delta: {}, costs };
 * const metrics = { "val/loss": 1.5, "index/0/kl": 0.25 };
 * const runs = [
 *   { ...run, seed: 0, status: "done" as const, metrics },
 *   { ...run, seed: 1, status: "missing" as const, metrics: {} },
 * ];
 * assert.equal(
 *   runsCsv({ axes: { indexTopk: [16] }, runs }),
 *   "variant,indexTopk,seed,status,val/loss,parameters\n" +
 *     "k16,16,0,done,1.5,7\nk16,16,1,missing,,7\n",
 * );
 * ```
 */
export function runsCsv({ axes, runs }: Pick<AblationResults, "axes" | "runs">): string {
  const ownAxes = Object.keys(axes).filter((axis) => axis !== "variant");
  const namesOf = (valuesOf: (run: RunResult) => object) =>
    [...new Set(runs.flatMap((run) => Object.keys(valuesOf(run))))].filter((n) => !isOfPart(n));
  const metrics = namesOf(valuesOf);
  const costs = namesOf((run) => run.costs);
  const lines = runs.map((run) => {
    const values = valuesOf(run);
    return [
      run.variant,
      ...ownAxes.map((axis) => run.axes[axis] ?? "none"),
      ...[run.seed, run.status],
      ...metrics.map((name) => values[name] ?? ""),
      ...costs.map((name) => run.costs[name] ?? ""),
    ];
  });
  const header = ["variant", ...ownAxes, "seed", "status", ...metrics, ...costs];
  return [header, ...lines].map((line) => `${line.map(cell).join(",")}\n`).join("");
}

/** A value in quotes where it has to be. */
function cell(value: string | number | boolean): string {
  const text = String(value);
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
