import { byteLevelJson, byteOfLetter, letterOfByte } from "./byte_level.ts";
import { PAIR, trainBpe } from "./bpe_training.ts";
import { MinHeap } from "./min_heap.ts";
import type { Tokenizer, TokenizerJson } from "./tokenizer.ts";
import { forEachWord, ownString, wholeWords } from "./words.ts";

/** Words whose tokens are kept; a text of ten megabytes has some sixty thousand. */
const CACHE_SIZE = 200_000;
/** Longest of them, in UTF-16 units. */
const CACHED_LENGTH = 256;

/** Byte-level byte-pair encoding, as in GPT-2 (Radford et al., 2019): represents every text. */
export class BpeTokenizer implements Tokenizer {
  readonly kind = "bpe";
  readonly vocabSize: number;
  readonly #tokens: readonly string[];
  readonly #merges: readonly string[];
  /** Bytes of each token. */
  readonly #bytes: readonly Uint8Array[];
  /** Id of each byte. */
  readonly #idOfByte: Int32Array;
  /** Rank of each pair, `left * PAIR + right`; less is merged first. */
  readonly #ranks: ReadonlyMap<number, number>;
  /** Id that the merge of each rank makes. */
  readonly #merged: Int32Array;
  /** The id of each token that is taken for a whole word, whatever its merges would make. */
  readonly #wholeWords: ReadonlyMap<string, number> | null;
  /** Bytes of the longest token. */
  readonly #longest: number;
  readonly #cache = new Map<string, number[]>();

  /**
   * @param vocab the id of each token, written in the byte alphabet
   * @param merges pairs of tokens with a space between, in the order in which they are merged
   * @param options.ignoreMerges whether a word that is a token is always that token, as in Llama 3
   * @throws {RangeError} if a byte or a part of a merge is not in the vocabulary
   */
  constructor(
    vocab: Record<string, number>,
    merges: readonly string[],
    options: { ignoreMerges?: boolean } = {},
  ) {
    const ids = new Map(Object.entries(vocab));
    const idOf = (token: string): number => {
      const id = ids.get(token);
      if (id === undefined) {
        throw new RangeError(`Cannot make a bpe tokenizer: ${token} is not in its vocabulary`);
      }
      return id;
    };
    const tokens: string[] = [];
    for (const [token, id] of ids) tokens[id] = token;
    this.#tokens = tokens;
    this.#merges = merges;
    this.vocabSize = tokens.length;
    this.#bytes = tokens.map((token) =>
      Uint8Array.from(token, (letter) => {
        const byte = byteOfLetter.get(letter);
        if (byte === undefined) {
          throw new RangeError(`Cannot make a bpe tokenizer: ${token} is not in bytes`);
        }
        return byte;
      })
    );
    this.#longest = this.#bytes.reduce((most, { length }) => Math.max(most, length), 0);
    this.#idOfByte = Int32Array.from(letterOfByte, idOf);
    const pairs = merges.map((merge) => merge.split(" "));
    this.#ranks = new Map(
      pairs.map(([left, right], rank) => [idOf(left) * PAIR + idOf(right), rank]),
    );
    this.#merged = Int32Array.from(pairs, ([left, right]) => idOf(left + right));
    this.#wholeWords = options.ignoreMerges ? ids : null;
  }

  /** Learns at most `vocabSize` tokens from a text; see {@linkcode trainBpe}. */
  static train(pieces: Iterable<string>, vocabSize: number): BpeTokenizer {
    const { tokens, merges } = trainBpe(pieces, vocabSize);
    return new BpeTokenizer(
      Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges.map((key) => `${tokens[Math.floor(key / PAIR)]} ${tokens[key % PAIR]}`),
    );
  }

  encode(text: string): Int32Array {
    let ids = new Int32Array(Math.ceil(text.length / 2) + 16);
    let n = 0;
    forEachWord(text, (letters) => {
      const word = this.#encodeWord(letters);
      if (n + word.length > ids.length) {
        const wider = new Int32Array(2 * ids.length + word.length);
        wider.set(ids);
        ids = wider;
      }
      for (let i = 0; i < word.length; i++) ids[n++] = word[i];
    });
    return ids.slice(0, n);
  }

  parts(pieces: Iterable<string>): Iterable<string> {
    return wholeWords(pieces);
  }

  decode(ids: ArrayLike<number>): string {
    const parts = Array.from(ids, (id) => {
      const bytes = this.#bytes[id];
      if (!bytes) {
        throw new RangeError(`Cannot decode token ${id}: the vocabulary has ${this.vocabSize}`);
      }
      return bytes;
    });
    const all = new Uint8Array(parts.reduce((sum, bytes) => sum + bytes.length, 0));
    let at = 0;
    for (const bytes of parts) {
      all.set(bytes, at);
      at += bytes.length;
    }
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(all);
  }

  byteLengths(_text: string, ids: Int32Array): Int32Array {
    return ids.map((id) => this.#bytes[id].length);
  }

  toJSON(): TokenizerJson {
    return byteLevelJson(this.#tokens, [...this.#merges], {
      ignoreMerges: this.#wholeWords !== null,
    });
  }

  #encodeWord(word: string): number[] {
    if (word.length > CACHED_LENGTH) return this.#merge(word);
    let ids = this.#cache.get(word);
    if (!ids) {
      if (this.#cache.size === CACHE_SIZE) this.#cache.clear();
      ids = this.#merge(word);
      this.#cache.set(ownString(word), ids);
    }
    return ids;
  }

  /** The token that is a whole word, where one is taken whatever merges would make of it. */
  #wholeWord(bytes: Uint8Array): number | undefined {
    if (!this.#wholeWords || bytes.length > this.#longest) return undefined;
    return this.#wholeWords.get(Array.from(bytes, (byte) => letterOfByte[byte]).join(""));
  }

  /** Merges the pair of least rank, ties from the left, until no pair has a rank. */
  #merge(word: string): number[] {
    const bytes = new TextEncoder().encode(word);
    const whole = this.#wholeWord(bytes);
    if (whole !== undefined) return [whole];
    const symbols = Int32Array.from(bytes, (byte) => this.#idOfByte[byte]);
    const size = symbols.length;
    const next = Int32Array.from(symbols, (_, i) => i + 1);
    const previous = Int32Array.from(symbols, (_, i) => i - 1);
    const heap = new MinHeap();
    const rankAt = (i: number): number | undefined =>
      i >= 0 && next[i] < size ? this.#ranks.get(symbols[i] * PAIR + symbols[next[i]]) : undefined;
    const offer = (i: number): void => {
      const rank = rankAt(i);
      if (rank !== undefined) heap.push(rank, i);
    };
    for (let i = 0; i + 1 < size; i++) offer(i);
    while (heap.size > 0) {
      const rank = heap.key;
      const i = heap.pop();
      // Symbols that were merged away are -1, so that their pairs have no rank.
      if (rankAt(i) !== rank) continue;
      const j = next[i];
      symbols[i] = this.#merged[rank];
      symbols[j] = -1;
      next[i] = next[j];
      if (next[i] < size) previous[next[i]] = i;
      offer(previous[i]);
      offer(i);
    }
    return Array.from(symbols).filter((id) => id >= 0);
  }
}
