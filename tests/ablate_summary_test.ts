/** From runs to variants: estimates and additive fits. */
import assert from "node:assert/strict";
import { fitAdditive } from "../src/ablate/fit.ts";
import type { RunResult } from "../src/ablate/results.ts";
import { formatEstimate, resultsTable } from "../src/ablate/table.ts";
import { estimate, fitGrid, summarize } from "../src/ablate/summary.ts";
import { Rng } from "../src/rng.ts";
import { madeUpResults } from "./made_up_results.ts";

const seed = Math.floor(Math.random() * 2 ** 32);

Deno.test("estimates and differences are those of the seeds", () => {
  const rng = new Rng(seed, "summary");
  const values = Float32Array.from({ length: 5 }, () => 0);
  rng.fillNormal(values, 1);
  const { mean, sd, n } = estimate([...values]);
  const direct = values.reduce((a, b) => a + b) / 5;
  assert(Math.abs(mean - direct) < 1e-6 && n === 5, `seed ${seed}`);
  const variance = values.reduce((sum, v) => sum + (v - direct) ** 2, 0) / 4;
  assert(Math.abs(sd ** 2 - variance) < 1e-6, `seed ${seed}`);
  assert.equal(estimate([3]).sd, 0);

  const run = (k: number, seed: number, loss: number | null): RunResult => ({
    ...{ variant: `k${k}`, axes: { k, d: 1 }, seed, folder: "", delta: {}, costs: {} },
    status: loss === null ? "failed" : "done",
    metrics: loss === null ? {} : { loss },
    evaluations: loss === null ? {} : { "k=2": { loss: 2 * loss } },
  });
  const runs = [run(1, 0, 5), run(2, 0, 1), run(1, 1, 7), run(2, 1, null), run(2, 2, 9)];
  const [one, two] = summarize(runs, { k: 2 });
  assert.deepEqual([one.n, two.n], [2, 2]);
  assert.equal(one.metrics.loss.mean, 6);
  assert.equal(one.metrics["k=2/loss"].mean, 12);
  // Only seed 0 has both.
  assert.deepEqual(one.difference!.loss, { mean: 4, sd: 0, n: 1 });
  assert.equal(two.difference, undefined);
  assert.equal(summarize(runs)[0].difference, undefined);
  const axes = { k: [1, 2], d: [1] };
  assert.deepEqual(fitGrid(runs, { axes, metrics: ["loss"] }), [], "one axis with several values");
  const grid = [1, 2].flatMap((d) =>
    [1, 2].flatMap((k) => [0, 1].map((s) => ({ ...run(k, s, d * k + s), axes: { k, d } })))
  );
  const [fit] = fitGrid(grid, { axes: { k: [1, 2], d: [1, 2] }, metrics: ["loss", "none"] });
  assert.equal(fit.mean, 2.75);
  assert.deepEqual([fit.rows, fit.cols, fit.residuals[0][0]], ["k", "d", 0.25]);
  // A seed that one cell lacks is left out of all.
  const [partial] = fitGrid(grid.slice(0, -1), {
    axes: { k: [1, 2], d: [1, 2] },
    metrics: ["loss"],
  });
  assert.equal(partial.mean, 2.25);
});

Deno.test("what is not finite in the files of a run is not there, and n counts what is", () => {
  const run = (variant: string, seed: number, losses: (number | null)[]): RunResult => ({
    ...{ variant, axes: { variant }, seed, folder: "", delta: {}, costs: {}, status: "done" },
    metrics: { "val/loss": losses[0] as number },
    evaluations: { "k=2": { "val/loss": losses[1] as number, "val/bpb": losses[2] as number } },
  });
  const runs = [
    run("a", 0, [2, 2.07, null]),
    run("a", 1, [3, 2.07, null]),
    run("b", 0, [2, null, null]),
    run("b", 1, [null, 2.082, NaN]),
  ];
  const summary = summarize(runs, "a");
  const [a, b] = summary;
  assert.deepEqual(a.metrics["val/loss"], { mean: 2.5, sd: Math.SQRT1_2, n: 2 });
  assert.deepEqual(b.metrics["val/loss"], { mean: 2, sd: 0, n: 1 });
  assert.deepEqual(b.difference!["val/loss"], { mean: 0, sd: 0, n: 1 });
  const { mean, n } = b.difference!["k=2/val/loss"];
  assert(Math.abs(mean - 0.012) < 1e-12 && n === 1, `${mean}, ${n}`);
  assert(!("k=2/val/bpb" in a.metrics) && !("k=2/val/bpb" in b.metrics));

  const about = { experiment: "e", size: "real", adapter: "none", git: null, question: "?" };
  const results = { ...about, axes: {}, runs, summary, fit: [], finished: true };
  const table = resultsTable({ ...results, tabulate: ["k=2/val/loss", "val/loss"] });
  const cells = table.split("\n").map((line) => line.trim().split(/ {2,}/));
  const row = (variant: string) => cells.find(([first]) => first === variant);
  assert.deepEqual(row("a"), ["a", "2", "2.0700 ± 0.0000", "2.5000 ± 0.7071"]);
  assert.deepEqual(row("b"), ["b", "1", "2.0820", "+0.0120", "2.0000"]);
  // As JSON has it, in files of earlier versions.
  const none = null as unknown as number;
  assert.equal(formatEstimate({ mean: none, sd: none, n: 2 }), "");
  assert.equal(formatEstimate({ mean: 1, sd: none, n: 2 }), "1.0000");
});

Deno.test("the additive fit recovers effects and interaction", () => {
  const rng = new Rng(seed, "fit");
  const draw = (n: number) => {
    const values = new Float32Array(n);
    rng.fillNormal(values, 1);
    const mean = values.reduce((a, b) => a + b) / n;
    return [...values].map((v) => v - mean);
  };
  const [rowEffects, colEffects] = [draw(4), draw(5)];
  const rowValues = [8, 16, 32, 64], colValues = [1, 2, 3, 4, null];
  const about = { rows: "d", cols: "k", metric: "loss", rowValues, colValues };
  const additive = rowEffects.map((r) => colEffects.map((c) => [3 + r + c]));
  const fit = fitAdditive({ ...about, cells: additive });
  assert(Math.abs(fit.mean - 3) < 1e-12);
  rowValues.forEach((v, i) => assert(Math.abs(fit.rowEffects[v] - rowEffects[i]) < 1e-12));
  assert(Math.abs(fit.colEffects.none - colEffects[4]) < 1e-12);
  assert.equal(fit.interaction, 0, `seed ${seed}`);
  assert.equal(fit.seedSd, 0);

  // A product of two centred effects is all interaction.
  const [a, b] = [draw(4), draw(5)];
  const planted = rowEffects.map((r, i) =>
    colEffects.map((c, j) => [-0.5, 0.5].map((noise) => 3 + r + c + a[i] * b[j] + noise))
  );
  const other = fitAdditive({ ...about, cells: planted });
  const squares = (values: number[]) => values.reduce((sum, v) => sum + v * v, 0);
  const cells = rowEffects.flatMap((r, i) => colEffects.map((c, j) => r + c + a[i] * b[j]));
  const product = a.flatMap((x) => b.map((y) => x * y));
  assert(Math.abs(other.interaction - squares(product) / squares(cells)) < 1e-9, `seed ${seed}`);
  assert(Math.abs(other.residuals[2][3] - a[2] * b[3]) < 1e-9, `seed ${seed}`);
  assert(Math.abs(other.maxResidual - Math.max(...product.map(Math.abs))) < 1e-9);
  assert(Math.abs(other.seedSd - Math.SQRT1_2) < 1e-9);
  // What a seed adds to all cells alike is no noise of the residuals.
  assert(other.interactionNoise < 1e-12);
  // Residuals of one seed are ±3, of the other ±1: each of four cells has (1 + 1) / (2 - 1) / 2 of
  // noise, all in all 4 of 2 · 2 · 4.5² + 4 · 2².
  const two = { rowValues: [1, 2], colValues: [1, 2] };
  const crossed = [[1, -1], [-1, 1]].map((row) => row.map((x, j) => [3 * x + 9 * j, x + 9 * j]));
  const { interactionNoise } = fitAdditive({ ...about, ...two, cells: crossed });
  assert(Math.abs(interactionNoise - 4 / 97) < 1e-12, `${interactionNoise}`);
  const noisy = rowEffects.map((r) =>
    colEffects.map((c) => Array.from({ length: 200 }, () => 3 + r + c + draw(2)[0]))
  );
  const noise = fitAdditive({ ...about, cells: noisy });
  // Without interaction the two agree but for chance: a chi-squared of 12 degrees over its mean.
  const ratio = noise.interaction / noise.interactionNoise;
  assert(ratio > 0.1 && ratio < 4, `${ratio}, seed ${seed}`);
  for (const cells of [[], [[[]]], [[[1], [1, 2]]]]) {
    assert.throws(() => fitAdditive({ ...about, cells }), RangeError);
  }
});

Deno.test("a table of no metrics is one of the validation loss", () => {
  const results = madeUpResults({ indexTopk: [8, 16] }, {
    ...{ folder: "x", rng: new Rng(1, "table") },
  });
  const table = resultsTable({ ...results, tabulate: [] });
  assert.match(table, /variant +n +val\/loss/);
});
