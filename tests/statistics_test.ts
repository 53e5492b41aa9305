import assert from "node:assert/strict";
import { Rng } from "../src/rng.ts";
import { bootstrapInterval } from "../src/statistics/bootstrap.ts";
import {
  normalCdf,
  normalQuantile,
  studentCdf,
  studentQuantile,
} from "../src/statistics/distributions.ts";
import { interactionOf, type Price } from "../src/statistics/interaction.ts";
import {
  differenceInterval,
  meanInterval,
  pairedInterval,
  pValue,
  slopeInterval,
} from "../src/statistics/interval.ts";
import {
  equivalence,
  holm,
  minimalDetectableEffect,
  pairsNeeded,
} from "../src/statistics/power.ts";

/**
 * Values of SciPy 1.17.1: `stats.t.cdf`, `t.ppf`, `norm.cdf`, `norm.ppf`,
 * `ttest_ind(a, b, equal_var=False)`, `ttest_rel(a, b[:5])`, `linregress(x, y)` and
 * `bootstrap((d,), …, n_resamples=200000, method="BCa", random_state=1)` of the samples below.
 */
const scipy = JSON.parse(
  Deno.readTextFileSync(new URL("fixtures/scipy_statistics.json", import.meta.url)),
);
const A = [1.2, 0.7, 2.4, 1.9, 0.3];
const B = [0.4, 0.9, 1.1, 0.2, 0.5, 0.8];
const X = [4, 5, 6, 7, 4, 5, 6, 7];
const Y = [0.1, 0.5, 0.2, 0.9, -0.1, 0.4, 0.8, 1.2];
const D = [0.21, -0.34, 1.75, 0.88, 0.12, 3.9, 0.45, -0.2, 1.1, 0.66, 2.2, 0.05];

function close(got: number, want: number, tolerance = 1e-9): void {
  const error = Math.abs(got - want) / Math.max(Math.abs(want), 1e-12);
  assert(error <= tolerance, `${got} for ${want}: off by ${error}`);
}

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b) / values.length;

Deno.test("distributions are SciPy's", () => {
  for (const [t, df, p] of scipy.t) close(studentCdf(t, df), p);
  for (const [p, df, t] of scipy.tq) close(studentQuantile(p, df), t);
  for (const [z, p] of scipy.n) close(normalCdf(z), p);
  for (const [p, z] of scipy.nq) close(normalQuantile(p), z, 1e-8);
  close(studentCdf(1.3, Infinity), normalCdf(1.3));
  for (const p of [0, 1, NaN]) assert.throws(() => studentQuantile(p, 3), RangeError);
  assert.throws(() => studentCdf(1, 0), RangeError);
});

Deno.test("intervals and p values are SciPy's", () => {
  const welch = differenceInterval(A, B);
  for (const key of ["df", "low", "high"] as const) close(welch[key], scipy.welch[key]);
  close(pValue(welch), scipy.welch.p);
  const paired = pairedInterval(A, B.slice(0, 5));
  for (const key of ["low", "high"] as const) close(paired[key], scipy.paired[key]);
  close(pValue(paired), scipy.paired.p);
  const slope = slopeInterval(X, Y);
  close(slope.estimate, scipy.slope.slope);
  close(slope.se, scipy.slope.se);
  close(pValue(slope), scipy.slope.p);
});

Deno.test("BCa intervals are SciPy's within what drawing leaves open", () => {
  const variance = (values: readonly number[]) => {
    const center = mean(values);
    return mean(values.map((value) => (value - center) ** 2));
  };
  const ofMean = bootstrapInterval(D, mean, { resamples: 40_000 });
  close(ofMean.low, scipy.bca_mean[0], 0.03);
  close(ofMean.high, scipy.bca_mean[1], 0.03);
  close(ofMean.se, scipy.bca_mean[2], 0.03);
  const ofVariance = bootstrapInterval(D, variance, { resamples: 40_000 });
  close(ofVariance.low, scipy.bca_var[0], 0.05);
  close(ofVariance.high, scipy.bca_var[1], 0.05);
  assert.deepEqual(bootstrapInterval(D, mean), bootstrapInterval(D, mean), "seeded");
  assert.notDeepEqual(bootstrapInterval(D, mean), bootstrapInterval(D, mean, { seed: 1 }));
});

Deno.test("the bootstrap draws documents within trunks, too", () => {
  // One trunk's documents differ, trunks do not: only drawing within sees a spread.
  const trunks = Array.from({ length: 6 }, () => [1, 2, 3, 4]);
  const statistic = (units: readonly number[][]) => mean(units.map(mean));
  const within = (documents: number[], rng: Rng) =>
    documents.map(() => documents[rng.below(documents.length)]);
  assert.equal(bootstrapInterval(trunks, statistic, { resamples: 500 }).se, 0);
  const { se } = bootstrapInterval(trunks, statistic, { resamples: 4000, within });
  close(se, Math.sqrt(1.25 / 24), 0.05);
});

Deno.test("a single value, no value and values that are not finite", () => {
  const one = meanInterval([3]);
  assert.equal(one.estimate, 3);
  for (const value of [one.low, one.high, one.se, pValue(one), minimalDetectableEffect(one)]) {
    assert(Number.isNaN(value));
  }
  assert.equal(equivalence(one, 1).isEquivalent, false);
  for (const values of [[], [1, NaN], [1, Infinity]]) {
    assert.throws(() => meanInterval(values), RangeError);
  }
  assert.throws(() => pairedInterval([1, 2], [1]), RangeError);
  assert.throws(() => bootstrapInterval([1], mean), RangeError);
  const equal = meanInterval([2, 2, 2]);
  assert.deepEqual([equal.low, equal.high, pValue(equal, 2), pValue(equal, 1)], [2, 2, 1, 0]);
});

Deno.test("Holm's p values and equivalence", () => {
  assert.deepEqual(holm([0.04, NaN, 0.01, 0.5]), [0.08, NaN, 0.03, 0.5]);
  const { p, isEquivalent } = equivalence(meanInterval([0.01, -0.02, 0.03, 0, 0.015]), 0.05);
  close(p, scipy.tost);
  assert(isEquivalent);
  assert(!equivalence(meanInterval([0.01, -0.02, 0.03, 0, 0.015]), 0.02).isEquivalent);
});

/** Prices of a grid with known γ, trunk and cell noise. */
function simulatedGrid(
  rng: Rng,
  { gamma, trunkSd, cellSd, trunks }: Record<string, number>,
): Price[] {
  return [16, 32, 64, 128].flatMap((width) =>
    Array.from({ length: trunks }, () => trunkSd * rng.normal()).flatMap((u, s) =>
      [16, 64, 256].map((k) => {
        const [x, z] = [Math.log2(width) - 5.5, Math.log2(k) - 6];
        const log = -5 + 0.1 * x - 0.6 * z + gamma * x * z + u + cellSd * rng.normal();
        return { trunk: `${width} ${s}`, width, k, price: Math.exp(log) };
      })
    )
  );
}

Deno.test("on simulated grids intervals cover at their level, and effects of the MDE's size are seen", () => {
  const rng = new Rng(5, "grids");
  const repetitions = 3000;
  const setting = { trunkSd: 0.8, cellSd: 0.26, trunks: 3 };
  // Standard error of γ: cell noise over the spread of z within a trunk and of x over trunks.
  const se = 0.26 / Math.sqrt(8) / Math.sqrt(3 * 5);
  const effect = minimalDetectableEffect({ se, df: 10 });
  const counts = { covered: 0, alarms: 0, seen: 0, mde: 0 };
  for (let i = 0; i < repetitions; i++) {
    const none = interactionOf(simulatedGrid(rng, { ...setting, gamma: 0 })).gamma;
    if (pValue(none) < 0.05) counts.alarms++;
    const there = interactionOf(simulatedGrid(rng, { ...setting, gamma: effect })).gamma;
    if (there.low <= effect && effect <= there.high) counts.covered++;
    if (pValue(there) < 0.05) counts.seen++;
    counts.mde += minimalDetectableEffect(there) / effect / repetitions;
  }
  // Three standard errors of a share of 3 000.
  const within = (count: number, share: number) => {
    const error = Math.abs(count / repetitions - share);
    assert(error < 3 * Math.sqrt(share * (1 - share) / repetitions), `${count} for ${share}`);
  };
  within(counts.covered, 0.95);
  within(counts.alarms, 0.05);
  within(counts.seen, 0.8);
  close(counts.mde, 1, 0.04);
});

Deno.test("t intervals, Welch's and BCa's cover at their level", () => {
  const rng = new Rng(6, "samples");
  const draw = (n: number, sd: number) => Array.from({ length: n }, () => sd * rng.normal());
  const repetitions = 2000;
  const counts = { mean: 0, welch: 0 };
  for (let i = 0; i < repetitions; i++) {
    const one = meanInterval(draw(3, 1));
    if (one.low <= 0 && 0 <= one.high) counts.mean++;
    const two = differenceInterval(draw(6, 1), draw(8, 2));
    if (two.low <= 0 && 0 <= two.high) counts.welch++;
  }
  for (const count of Object.values(counts)) {
    assert(Math.abs(count / repetitions - 0.95) < 0.017, `${count} of ${repetitions}`);
  }
  let covered = 0;
  for (let i = 0; i < 300; i++) {
    const { low, high } = bootstrapInterval(draw(24, 1), mean, { resamples: 400, seed: i });
    if (low <= 0 && 0 <= high) covered++;
  }
  // Known to be a little narrow at such n.
  assert(covered / 300 > 0.88 && covered / 300 < 0.98, `${covered} of 300`);
});

Deno.test("the pairs that a plan asks for reach the MDE, and one fewer do not", () => {
  for (const [sd, effect] of [[0.26, 0.255], [1, 0.2], [1, 5]]) {
    const n = pairsNeeded(sd, effect);
    const mde = (n: number) => minimalDetectableEffect({ se: sd / Math.sqrt(n), df: n - 1 });
    assert(mde(n) <= effect);
    assert(n === 2 || mde(n - 1) > effect);
  }
});

Deno.test("missing, zero and negative prices are handled and shown", () => {
  const grid = simulatedGrid(new Rng(7, "grid"), { gamma: 0, trunkSd: 0, cellSd: 0.1, trunks: 3 });
  const missing = grid.map((p, i) => i === 1 ? { ...p, price: NaN } : p);
  const found = interactionOf(missing);
  assert.deepEqual([found.trunks, found.leftOut, found.scale], [11, ["16 0"], "log"]);
  assert(found.ratio!.low < 1 && 1 < found.ratio!.high && found.detectable > 1);
  const gone = interactionOf(grid.filter((_, i) => i !== 1));
  assert.deepEqual(gone.leftOut, ["16 0"]);
  for (const price of [0, -0.001]) {
    const linear = interactionOf(grid.map((p, i) => i === 1 ? { ...p, price } : p));
    assert.deepEqual([linear.scale, linear.ratio, linear.trunks], ["linear", null, 12]);
  }
  assert.throws(() => interactionOf(grid.filter(({ width }) => width === 16)), RangeError);
});

/** Prices of a recorded grid: its runs' losses minus those of the same trunk with all keys. */
function recordedPrices(name: string): Price[] {
  const file = new URL(`../experiments/results/${name}.csv`, import.meta.url);
  const [header, ...lines] = Deno.readTextFileSync(file).trim().split("\n").map((l) =>
    l.split(",")
  );
  const number = (line: string[], key: string) => Number(line[header.indexOf(key)]);
  const rows = lines.map((line) => ({
    width: number(line, "kvLoraRank"),
    k: number(line, "sparse.indexTopk"),
    seed: number(line, "seed"),
    loss: number(line, "val/loss"),
  }));
  const all = rows.filter(({ k }) => k === 1024);
  return rows.filter(({ k }) => k < 1024).map(({ width, k, seed, loss }) => {
    const whole = all.find((row) => row.width === width && row.seed === seed)!;
    return { trunk: `${width} ${seed}`, width, k, price: loss - whole.loss };
  });
}

Deno.test("the first grids could not answer: what narrow latents pay for few keys, with its interval", () => {
  const wanted = {
    compression_sparsity_h100: [0.66, 0.38, 1.14],
    compression_sparsity_two_layers_h100: [1.13, 0.62, 2.08],
  };
  for (const [name, values] of Object.entries(wanted)) {
    const prices = recordedPrices(name).filter(({ k }) => k === 16);
    const logs = (width: number) =>
      prices.filter((p) => p.width === width).map(({ price }) => Math.log(price));
    const { estimate, low, high } = pairedInterval(logs(16), logs(128));
    assert.deepEqual([estimate, low, high].map((v) => Number(Math.exp(v).toFixed(2))), values);
  }
});
