/**
 * Does selection cost more where latents are narrower? Prices of selection over a grid of widths and
 * numbers of keys, several trunks a width.
 *
 * @module
 */
import { expInterval, type Interval, slopeInterval } from "./interval.ts";
import { minimalDetectableEffect } from "./power.ts";

/** What selecting k keys costs one trunk: its loss with k keys, minus with all. */
export interface Price {
  /** Names the trunk; unique over all widths. */
  readonly trunk: string;
  /** Width of the latent, above 0. */
  readonly width: number;
  /** Selected keys, above 0. */
  readonly k: number;
  /** NaN where the run failed or is missing. */
  readonly price: number;
}

/** What {@linkcode interactionOf} finds. */
export interface Interaction {
  /** `log`: of log prices, γ per doubling of width and of k; `linear`: of prices as they are. */
  readonly scale: "log" | "linear";
  /** γ with its t interval over trunks. */
  readonly gamma: Interval;
  /**
   * How many times the price of few keys grows more, from the widest to the narrowest latent, than
   * that of many: exp(−γ · range of log₂ width · range of log₂ k), with its interval; null where the
   * scale is linear.
   */
  readonly ratio: Pick<Interval, "estimate" | "low" | "high"> | null;
  /** The least effect that would have been seen: a ratio above 1, or a difference. */
  readonly detectable: number;
  /** Trunks that counted. */
  readonly trunks: number;
  /** Those that did not, because a cell of theirs has no number. */
  readonly leftOut: readonly string[];
}

/**
 * The interaction γ of the model log price = μ + α_w + β_k + γ · x_w · z_k + u_trunk + ε with
 * x = log₂ width and z = log₂ k centred, u random.
 *
 * For trunks with every k this is the line through their slopes along z: a slope has no part of
 * μ, α or u, and the trunks are independent, so that its t interval is exact for normal errors,
 * also where those of one trunk hang together. Trunks without a number for some k are left out.
 * Where a price is not above 0 no logarithm can be taken: then all prices are taken as they are.
 *
 * @throws {RangeError} for fewer than three whole trunks, or a single width or k
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { interactionOf } from "./interaction.ts";
 *
 * const prices = [16, 64].flatMap((width) =>
 *   [0, 1].flatMap((seed) =>
 *     [8, 32].map((k) => ({ trunk: `${width} ${seed}`, width, k, price: (1 + seed) / k }))
 *   )
 * );
 * const { gamma, ratio } = interactionOf(prices);
 * assert(Math.abs(gamma.estimate) < 1e-12 && Math.abs(ratio!.estimate - 1) < 1e-12);
 * ```
 */
export function interactionOf(prices: readonly Price[]): Interaction {
  const ks = [...new Set(prices.map(({ k }) => k))].sort((a, b) => a - b);
  const byTrunk = Map.groupBy(prices, ({ trunk }) => trunk);
  const isWhole = (own: readonly Price[]) =>
    ks.every((k) => own.some((p) => p.k === k && Number.isFinite(p.price)));
  const whole = [...byTrunk].filter(([, own]) => isWhole(own));
  const leftOut = [...byTrunk.keys()].filter((trunk) => !whole.some(([name]) => name === trunk));
  const widths = new Set(whole.map(([, [{ width }]]) => width));
  if (whole.length < 3 || widths.size < 2 || ks.length < 2) {
    throw new RangeError(
      `Cannot look for an interaction in ${whole.length} whole trunks of ${widths.size} widths and ` +
        `${ks.length} numbers of keys: it needs three, two and two`,
    );
  }
  const isLog = whole.every(([, own]) => own.every(({ price }) => price > 0));
  const z = centred(ks.map(Math.log2));
  const zz = z.reduce((sum, value) => sum + value * value, 0);
  const slopes = whole.map(([, own]) => {
    const at = (k: number) => own.find((p) => p.k === k)!.price;
    const values = ks.map((k) => isLog ? Math.log(at(k)) : at(k));
    return values.reduce((sum, value, i) => sum + z[i] * value, 0) / zz;
  });
  const x = whole.map(([, [{ width }]]) => Math.log2(width));
  const gamma = slopeInterval(x, slopes);
  const range = (Math.max(...x) - Math.min(...x)) * (z[z.length - 1] - z[0]);
  const effect = range * minimalDetectableEffect(gamma);
  const { estimate, low, high } = gamma;
  const turned = { estimate: -estimate * range, low: -high * range, high: -low * range };
  return {
    scale: isLog ? "log" : "linear",
    gamma,
    ratio: isLog ? expInterval({ ...gamma, ...turned }) : null,
    detectable: isLog ? Math.exp(effect) : effect,
    trunks: whole.length,
    leftOut,
  };
}

function centred(values: readonly number[]): number[] {
  const mean = values.reduce((a, b) => a + b) / values.length;
  return values.map((value) => value - mean);
}
