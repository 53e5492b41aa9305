/**
 * Random numbers: the counter-based generator Philox4x32-10 (Salmon et al., "Parallel random
 * numbers: as easy as 1, 2, 3", SC 2011). Word number p of a stream is a function of
 * (seed, stream, p), so any place of any stream is reached at once, and streams never overlap.
 *
 * @module
 */

/**
 * The Philox4x32-10 block function: writes the 4 words that belong to a counter of 4 words and a
 * key of 2 words to `out`. All words are taken modulo 2³².
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { philox4x32 } from "./rng.ts";
 *
 * const out = new Uint32Array(4);
 * philox4x32(0, 0, 0, 0, 0, 0, out);
 * // A known answer of Random123.
 * assert.equal(out[0], 0x6627e8d5);
 * ```
 */
export function philox4x32(
  c0: number,
  c1: number,
  c2: number,
  c3: number,
  k0: number,
  k1: number,
  out: Uint32Array,
): void {
  c0 |= 0;
  c1 |= 0;
  c2 |= 0;
  c3 |= 0;
  k0 |= 0;
  k1 |= 0;
  for (let round = 0; round < 10; round++) {
    // High words of c0 * 0xD2511F53 and c2 * 0xCD9E8D57 from 16-bit halves: JavaScript has no
    // 64-bit product of integers.
    let low = c0 & 0xffff, high = c0 >>> 16;
    let t = (Math.imul(high, 0x1f53) + (Math.imul(low, 0x1f53) >>> 16)) | 0;
    let s = (Math.imul(low, 0xd251) + (t & 0xffff)) | 0;
    const high0 = (Math.imul(high, 0xd251) + (t >>> 16) + (s >>> 16)) | 0;
    low = c2 & 0xffff;
    high = c2 >>> 16;
    t = (Math.imul(high, 0x8d57) + (Math.imul(low, 0x8d57) >>> 16)) | 0;
    s = (Math.imul(low, 0xcd9e) + (t & 0xffff)) | 0;
    const high1 = (Math.imul(high, 0xcd9e) + (t >>> 16) + (s >>> 16)) | 0;
    const low0 = Math.imul(c0, 0xd2511f53), low1 = Math.imul(c2, 0xcd9e8d57);
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 = (k0 + 0x9e3779b9) | 0;
    k1 = (k1 + 0xbb67ae85) | 0;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/**
 * Standard normal quantile of (word + 0.5) / 2³²: algorithm AS 241, PPND7 (Wichura, 1988), with a
 * relative error of 1e-7. Its branch for the far tail is missing because 32 bits end at ±6.3.
 */
function normalQuantile(word: number): number {
  const q = (word - 2147483647.5) / 4294967296;
  if (Math.abs(q) <= 0.425) {
    const r = 0.180625 - q * q;
    return q *
      (((59.109374720 * r + 159.29113202) * r + 50.434271938) * r + 3.3871327179) /
      (((67.187563600 * r + 78.757757664) * r + 17.895169469) * r + 1);
  }
  const r = Math.sqrt(-Math.log(0.5 - Math.abs(q))) - 1.6;
  const z = (((0.17023821103 * r + 1.3067284816) * r + 2.7568153900) * r + 1.4234372777) /
    ((0.12021132975 * r + 0.73700164250) * r + 1);
  return q < 0 ? -z : z;
}

/** The two counter words of a stream. Strings (FNV-1a, 63 bits) and numbers never meet. */
function streamWords(stream: number | string): [number, number] {
  if (typeof stream === "number") {
    requireCount("stream", stream);
    return [stream >>> 0, Math.floor(stream / 2 ** 32)];
  }
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(stream)) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  }
  return [Number(hash & 0xffffffffn), (Number(hash >> 32n) | 0x80000000) >>> 0];
}

function requireCount(name: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new RangeError(`Cannot seed a generator: ${name} is ${value}, not an integer from 0 on`);
  }
}

/**
 * A seekable random stream.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { Rng } from "./rng.ts";
 *
 * const weights = new Float32Array(1000);
 * const rng = new Rng(7, "model.embed_tokens.weight");
 * rng.fillNormal(weights, 0.02);
 * // Any place of a stream is reached at once.
 * assert.equal(new Rng(7, "model.embed_tokens.weight", 1000).uint32(), rng.uint32());
 * ```
 */
export class Rng {
  readonly #seed: readonly [number, number];
  readonly #stream: readonly [number, number];
  readonly #words = new Uint32Array(4);
  #position: number;

  /**
   * Starts at a place of a stream.
   *
   * @param seed an integer from 0 to 2⁵³ - 1
   * @param stream what the numbers are for: a name or an integer from 0 to 2⁵³ - 1
   * @param position the first word to draw
   * @throws {RangeError} if a number is not such an integer
   */
  constructor(seed: number, stream: number | string, position = 0) {
    requireCount("the seed", seed);
    requireCount("the position", position);
    this.#seed = [seed >>> 0, Math.floor(seed / 2 ** 32)];
    this.#stream = streamWords(stream);
    this.#position = position;
    if (position % 4 !== 0) this.#fetch();
  }

  /** Index of the word that is drawn next. */
  get position(): number {
    return this.#position;
  }

  /** Computes the block of 4 words around the current position. */
  #fetch(): void {
    const block = Math.floor(this.#position / 4);
    const [s0, s1] = this.#stream;
    const [k0, k1] = this.#seed;
    philox4x32(block, Math.floor(block / 2 ** 32), s0, s1, k0, k1, this.#words);
  }

  /** A uniform integer from 0 to 2³² - 1. Takes one word, as all methods do where not said else. */
  uint32(): number {
    const i = this.#position % 4;
    if (i === 0) this.#fetch();
    this.#position++;
    return this.#words[i];
  }

  /** A uniform multiple of 2⁻³² in [0, 1). */
  uniform(): number {
    return this.uint32() / 4294967296;
  }

  /** A normal number of mean 0 and variance 1, within ±6.3. */
  normal(): number {
    return normalQuantile(this.uint32());
  }

  /**
   * A uniform integer from 0 to n - 1, without bias. Takes one word, rarely more.
   *
   * @throws {RangeError} if n is not an integer from 1 to 2³²
   */
  below(n: number): number {
    if (!Number.isInteger(n) || n < 1 || n > 4294967296) {
      throw new RangeError(`Cannot draw an integer below ${n}: it must be from 1 to 2³²`);
    }
    const end = 4294967296 - 4294967296 % n;
    let word = this.uint32();
    while (word >= end) word = this.uint32();
    return word % n;
  }

  /** Fills `out` with `std * normal()`; about 15 ns a number. */
  fillNormal(out: Float32Array, std = 1): void {
    const words = this.#words;
    let i = 0;
    while (i < out.length) {
      const first = this.#position % 4;
      if (first === 0) this.#fetch();
      const end = Math.min(4, first + out.length - i);
      for (let j = first; j < end; j++) out[i++] = std * normalQuantile(words[j]);
      this.#position += end - first;
    }
  }

  /** Shuffles an array in place (Fisher–Yates). */
  shuffle<T extends { length: number; [index: number]: unknown }>(items: T): T {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      const kept = items[i];
      items[i] = items[j];
      items[j] = kept;
    }
    return items;
  }
}
