/**
 * Learns byte-pair merges (Sennrich et al., 2016). The words of the text are counted once; then
 * every pair of neighbours keeps its count and its places, so that a merge costs only what it
 * changes.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { letterOfByte } from "./byte_level.ts";
import { MinHeap } from "./min_heap.ts";
import { forEachWord, ownString, wholeWords } from "./words.ts";

/** Factor of the first id in the number that stands for a pair of ids. */
export const PAIR = 2 ** 20;

/** UTF-16 units of the words that are counted at a time; each takes some 60 bytes later. */
const MOST_LETTERS = 2 ** 26;

/** What {@linkcode trainBpe} learns. */
export interface BpeModel {
  /** Tokens in the order of their ids, in the letters of the byte alphabet. */
  tokens: string[];
  /** Pairs of ids, `left * PAIR + right`, in the order in which they are merged. */
  merges: number[];
}

interface Pair {
  count: number;
  /** Places of its left symbol; some may have been merged away since. */
  places: number[];
}

/**
 * Merges the most frequent pair (ties: least ids) until there are `vocabSize` tokens, or no pair
 * occurs twice. Deterministic.
 *
 * @param pieces of the text; none ends within a character
 * @param options.mostWords different words that are counted at a time; where there are more, see
 * {@linkcode WordCounts}
 * @throws {RangeError} if `vocabSize` is not an integer from 256 to 2²⁰
 */
export function trainBpe(
  pieces: Iterable<string>,
  vocabSize: number,
  options: { mostWords?: number } = {},
): BpeModel {
  if (!Number.isInteger(vocabSize) || vocabSize < 256 || vocabSize > PAIR) {
    throw new RangeError(
      `Cannot learn ${vocabSize} tokens: byte-level BPE takes a vocabSize from 256 to ${PAIR}`,
    );
  }
  const { symbols, counts } = layOut(countWords(pieces, options.mostWords));
  const size = symbols.length;
  const next = new Int32Array(size), previous = new Int32Array(size);
  const pairs = new Map<number, Pair>();
  const touched = new Set<number>();

  function change(left: number, right: number, place: number, by: number): void {
    const key = left * PAIR + right;
    let pair = pairs.get(key);
    if (!pair) pairs.set(key, pair = { count: 0, places: [] });
    pair.count += by;
    if (by > 0) {
      pair.places.push(place);
      touched.add(key);
    }
  }

  for (let i = 0; i < size; i++) {
    next[i] = i + 1;
    previous[i] = i - 1;
    if (i + 1 < size && symbols[i] >= 0 && symbols[i + 1] >= 0) {
      change(symbols[i], symbols[i + 1], i, counts[i]);
    }
  }

  const tokens = [...letterOfByte];
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const merges = new Set<number>();
  const heap = new MinHeap();
  while (tokens.length < vocabSize) {
    for (const key of touched) heap.push(-pairs.get(key)!.count, key);
    touched.clear();
    if (heap.size === 0 || heap.key > -2) break;
    const count = -heap.key;
    const key = heap.pop();
    const pair = pairs.get(key);
    if (pair?.count !== count) {
      // Pairs that have become rarer since their entry was made come back with their true count.
      if (pair && pair.count < count) heap.push(-pair.count, key);
      continue;
    }
    const left = Math.floor(key / PAIR), right = key % PAIR;
    // Two pairs can spell the same token, "a" + "bc" and "ab" + "c": it keeps its first id, and
    // with it pairs that were merged before can come back.
    const token = tokens[left] + tokens[right];
    let id = ids.get(token);
    if (id === undefined) {
      id = tokens.length;
      tokens.push(token);
      ids.set(token, id);
    }
    merges.add(key);
    // Left to right, so that of three equal symbols the first two are merged.
    for (const i of pair.places.sort((a, b) => a - b)) {
      const j = next[i];
      if (symbols[i] !== left || symbols[j] !== right) continue;
      const before = previous[i], after = next[j], n = counts[i];
      if (before >= 0 && symbols[before] >= 0) {
        change(symbols[before], left, before, -n);
        change(symbols[before], id, before, n);
      }
      if (symbols[after] >= 0) {
        change(right, symbols[after], j, -n);
        change(id, symbols[after], i, n);
      }
      symbols[i] = id;
      symbols[j] = -1;
      next[i] = after;
      previous[after] = i;
    }
    pairs.delete(key);
  }
  return { tokens, merges: [...merges] };
}

/** How often each word of the text occurs. */
function countWords(pieces: Iterable<string>, mostWords?: number): ReadonlyMap<string, number> {
  const counts = new WordCounts(mostWords);
  for (const part of wholeWords(pieces)) {
    forEachWord(part, (word) => counts.add(word));
  }
  return counts.words;
}

/**
 * Counts of words within some gigabytes of memory. Where a text has more different words than that
 * holds, hundreds of megabytes of text at least, the rarest of those so far are forgotten: first
 * those that occurred once, next time those that occurred twice, and so on.
 */
class WordCounts {
  readonly words = new Map<string, number>();
  readonly #mostWords: number;
  #length = 0;
  #forgotten = 0;

  constructor(mostWords = 2 ** 23) {
    this.#mostWords = mostWords;
  }

  add(word: string): void {
    const count = this.words.get(word);
    if (count !== undefined) {
      this.words.set(word, count + 1);
      return;
    }
    if (this.words.size >= this.#mostWords || this.#length > MOST_LETTERS) this.#forget();
    this.words.set(ownString(word), 1);
    this.#length += word.length;
  }

  #forget(): void {
    this.#forgotten++;
    for (const [word, count] of this.words) {
      if (count > this.#forgotten) continue;
      this.words.delete(word);
      this.#length -= word.length;
    }
  }
}

/** The bytes of all words, each with its word's count, and a -1 after every word. */
function layOut(
  words: ReadonlyMap<string, number>,
): { symbols: Int32Array; counts: Float64Array } {
  let size = 0, longest = 0;
  for (const word of words.keys()) {
    const bytes = Buffer.byteLength(word);
    size += bytes + 1;
    longest = Math.max(longest, bytes);
  }
  const symbols = new Int32Array(size).fill(-1), counts = new Float64Array(size);
  const encoder = new TextEncoder();
  const bytes = new Uint8Array(longest);
  let at = 0;
  for (const [word, count] of words) {
    const { written } = encoder.encodeInto(word, bytes);
    symbols.set(bytes.subarray(0, written), at);
    counts.fill(count, at, at + written);
    at += written + 1;
  }
  return { symbols, counts };
}
