/**
 * Damage, as disks, editors and other programs do it: to bytes and to JSON values.
 *
 * @module
 */
import type { Rng } from "../../src/rng.ts";

/** One of several. */
export function pick<T>(rng: Rng, items: readonly T[]): T {
  return items[rng.below(items.length)];
}

/** Bytes with one to four places changed, removed, repeated or cut off. */
export function mutateBytes(rng: Rng, bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  let out = new Uint8Array(bytes);
  for (let n = 1 + rng.below(4); n > 0; n--) {
    const [from, to] = [rng.below(out.length + 1), rng.below(out.length + 1)].sort((a, b) => a - b);
    const length = Math.min(to - from, 1 + rng.below(16));
    switch (rng.below(6)) {
      case 0:
        if (from < out.length) out[from] ^= 1 << rng.below(8);
        break;
      case 1:
        if (from < out.length) out[from] = pick(rng, [0, 0xff, 0x22, 0x2c, 0x7b, 0x30, 0x0a]);
        break;
      case 2:
        out = joined(out.subarray(0, from), out.subarray(from + length));
        break;
      case 3:
        out = joined(out.subarray(0, to), out.subarray(from, from + length), out.subarray(to));
        break;
      case 4:
        out = joined(out.subarray(0, from), new Uint8Array(length), out.subarray(from + length));
        break;
      default:
        out = out.slice(0, from);
    }
  }
  return out;
}

/** A copy of a JSON value with one to three keys or values changed. */
export function mutateJson(rng: Rng, value: unknown): unknown {
  let out = structuredClone(value);
  for (let n = 1 + rng.below(3); n > 0; n--) out = mutateOnce(rng, out);
  return out;
}

/** A JSON value as the text of a file, with changed keys or values, at times changed bytes. */
export function mutateText(rng: Rng, value: unknown): Uint8Array<ArrayBuffer> {
  const text = new TextEncoder().encode(JSON.stringify(mutateJson(rng, value), null, rng.below(3)));
  return rng.below(3) === 0 ? mutateBytes(rng, text) : text;
}

/** Walks down from the top, and stops at a place by chance. */
function mutateOnce(rng: Rng, value: unknown): unknown {
  if (typeof value !== "object" || value === null) return other(rng, value);
  const keys = Object.keys(value);
  if (!keys.length || rng.below(40) === 0) return other(rng, value);
  const key = pick(rng, keys);
  const parent = value as Record<string, unknown>;
  const child = parent[key];
  if (typeof child === "object" && child !== null && rng.below(4) > 0) {
    parent[key] = mutateOnce(rng, child);
    return value;
  }
  switch (rng.below(6)) {
    case 0:
      if (Array.isArray(value)) value.splice(Number(key), 1);
      else delete parent[key];
      break;
    case 1:
      if (Array.isArray(value)) value.push(structuredClone(child));
      else parent[pick(rng, ["extra", "", "__proto__", "toString", `${key}s`])] = child;
      break;
    case 2:
      parent[key] = structuredClone(parent[pick(rng, keys)]);
      break;
    default:
      parent[key] = other(rng, child);
  }
  return value;
}

/** A value where another was expected: near the old one, or of any type. */
function other(rng: Rng, value: unknown): unknown {
  const kind = rng.below(3);
  if (kind > 0 && typeof value === "number") {
    return pick(rng, [-value, value + 1, value - 1, value * 1e9, value / 3, 0, String(value)]);
  }
  if (kind > 0 && typeof value === "string") {
    return pick(rng, [`${value}x`, value.slice(1), value.toUpperCase(), "", [value], `${value}\n`]);
  }
  if (kind > 0 && typeof value === "boolean") {
    return pick(rng, [!value, String(value), Number(value)]);
  }
  return pick(rng, ODD_VALUES.map((odd) => structuredClone(odd)));
}

const ODD_VALUES: readonly unknown[] = [
  null,
  true,
  0,
  -1,
  0.5,
  2 ** 31,
  2 ** 53,
  1e308,
  "",
  "none",
  "\ud800",
  "two\nlines",
  "../../etc",
  [],
  [null],
  [[]],
  {},
  { a: 1 },
];

function joined(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
