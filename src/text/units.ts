/**
 * Numbers for people.
 *
 * @module
 */

/**
 * `13179648` as `13.2 M`; whole numbers below a thousand as they are, others with three digits.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { withUnit } from "./units.ts";
 *
 * assert.deepEqual([13179648, 512, 0.12345].map(withUnit), ["13.2 M", "512", "0.123"]);
 * ```
 */
export function withUnit(value: number): string {
  if (!Number.isFinite(value)) return "–";
  const power = Math.min(6, Math.floor(Math.log10(Math.max(Math.abs(value), 1)) / 3));
  if (power === 0) return Number.isInteger(value) ? `${value}` : value.toPrecision(3);
  return `${(value / 1000 ** power).toPrecision(3)} ${" kMGTPE"[power]}`;
}

/**
 * With some digits after the point; what would show as zero instead with two significant digits.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { decimals } from "./units.ts";
 *
 * assert.deepEqual([1.5, 0, -2.14e-5].map((x) => decimals(x)), ["1.5000", "0.0000", "-2.1e-5"]);
 * ```
 */
export function decimals(value: number, digits = 4): string {
  const text = value.toFixed(digits);
  return value !== 0 && Number(text) === 0 ? value.toExponential(1) : text;
}

/** `1234.56` as `1,234.6`. */
export function grouped(value: number): string {
  return value.toLocaleString("en-US", { maximumFractionDigits: 1 });
}

/** `1.5 GiB`. */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = bytes < 1 ? 0 : Math.min(4, Math.floor(Math.log2(bytes) / 10));
  const value = bytes / 1024 ** power;
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${units[power]}`;
}
