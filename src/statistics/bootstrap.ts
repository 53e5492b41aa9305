/**
 * Intervals of any statistic by drawing again from the units that it was computed of.
 *
 * @module
 */
import { Rng } from "../rng.ts";
import { normalCdf, normalQuantile } from "./distributions.ts";
import { LEVEL } from "./interval.ts";

/** How {@linkcode bootstrapInterval} draws. */
export interface BootstrapOptions<Unit> {
  /** Default 10 000. */
  readonly resamples?: number;
  /** Default 0. The same seed gives the same interval. */
  readonly seed?: number;
  /** Share of repetitions that the interval is to cover; default 0.95. */
  readonly level?: number;
  /** Draws again what is within a unit, e.g. the documents that a trunk was evaluated on. */
  readonly within?: (unit: Unit, rng: Rng) => Unit;
}

/** A bootstrap interval. */
export interface BootstrapInterval {
  /** The statistic of the units themselves. */
  readonly estimate: number;
  /** Lower limit. */
  readonly low: number;
  /** Upper limit. */
  readonly high: number;
  /** Standard deviation over the resamples. */
  readonly se: number;
  /** Units. */
  readonly n: number;
}

/**
 * The bias-corrected and accelerated (BCa) interval of Efron (1987): units are drawn with
 * replacement, then, if asked, what is within each; acceleration is the jackknife's. With few units
 * it is too narrow: beside it stands a t interval where n is below ten.
 *
 * @param units what is independent of each other: trunks
 * @param statistic any function of a list of units
 * @throws {RangeError} for fewer than two units
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { bootstrapInterval } from "./bootstrap.ts";
 *
 * const mean = (values: readonly number[]) => values.reduce((a, b) => a + b) / values.length;
 * const { estimate, low, high } = bootstrapInterval([1, 2, 3, 4, 10], mean);
 * assert(low > 1 && low < estimate && estimate < high && high < 10);
 * ```
 */
export function bootstrapInterval<Unit>(
  units: readonly Unit[],
  statistic: (units: readonly Unit[]) => number,
  options: BootstrapOptions<Unit> = {},
): BootstrapInterval {
  const { resamples = 10_000, seed = 0, level = LEVEL, within } = options;
  const n = units.length;
  if (n < 2) throw new RangeError(`Cannot draw again from ${n} unit${n === 1 ? "" : "s"}: use two`);
  const estimate = statistic(units);
  const rng = new Rng(seed, "bootstrap");
  const drawn = Float64Array.from({ length: resamples }, () => {
    const sample = Array.from({ length: n }, () => units[rng.below(n)]);
    return statistic(within ? sample.map((unit) => within(unit, rng)) : sample);
  }).sort();
  const limit = (share: number) => quantileOf(drawn, correctedShare(share));
  // Half of the ties count as below, so that a statistic with few values is not called biased.
  const below = countBelow(drawn, estimate, false);
  const upTo = countBelow(drawn, estimate, true);
  const bias = normalQuantile(clampShare((below + upTo) / 2 / resamples, resamples));
  const acceleration = jackknifeAcceleration(units, statistic);
  return {
    estimate,
    low: limit((1 - level) / 2),
    high: limit((1 + level) / 2),
    se: sdOf(drawn),
    n,
  };

  function correctedShare(share: number): number {
    const z = bias + normalQuantile(share);
    return normalCdf(bias + z / (1 - acceleration * z));
  }
}

/** A sixth of the skewness of the statistic's values when each unit in turn is left out. */
function jackknifeAcceleration<Unit>(
  units: readonly Unit[],
  statistic: (units: readonly Unit[]) => number,
): number {
  const values = units.map((_, i) => statistic(units.filter((_, j) => j !== i)));
  const mean = values.reduce((a, b) => a + b) / values.length;
  const sum = (power: number) => values.reduce((s, value) => s + (mean - value) ** power, 0);
  const spread = sum(2);
  return spread === 0 ? 0 : sum(3) / (6 * spread ** 1.5);
}

/** The order statistic at a share of sorted values. */
function quantileOf(sorted: Float64Array, share: number): number {
  const index = Math.ceil(share * sorted.length) - 1;
  return sorted[Math.min(Math.max(index, 0), sorted.length - 1)];
}

/** How many of the sorted values are below `limit`, or `upTo` it. */
function countBelow(sorted: Float64Array, limit: number, upTo: boolean): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (upTo ? sorted[middle] <= limit : sorted[middle] < limit) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** A share that is neither 0 nor 1: as if half a resample lay beyond. */
function clampShare(share: number, resamples: number): number {
  const least = 0.5 / resamples;
  return Math.min(Math.max(share, least), 1 - least);
}

function sdOf(values: Float64Array): number {
  const mean = values.reduce((a, b) => a + b) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return Math.sqrt(squares / (values.length - 1));
}
