import { UserError } from "../errors.ts";
import { freeMemory } from "../files/host_memory.ts";
import { formatBytes } from "../text/units.ts";
import type { Corpus } from "./corpus.ts";
import type { Tokenizer } from "./tokenizer/tokenizer.ts";

/** Ids in as few bytes as their vocabulary allows. */
export type TokenIds = Uint8Array | Uint16Array | Int32Array;

/** The tokens of a text. */
export interface EncodedText {
  /** All ids: those of `train`, then those of `validation`. */
  readonly ids: TokenIds;
  /** A view of the first ones. */
  readonly train: TokenIds;
  /** A view of the others. */
  readonly validation: TokenIds;
  /** Of each window of `seqLen + 1` validation ids: bytes of the text, but for its first id. */
  readonly validationBytes: readonly number[];
}

/**
 * Encodes the two splits of a text, each as a text of its own.
 *
 * @param options.cut where the validation split begins, in UTF-16 units
 * @throws {UserError} if the text has changed meanwhile, or its tokens do not fit into memory
 */
export function encodeText(
  tokenizer: Tokenizer,
  corpus: Corpus,
  { cut, seqLen }: { cut: number; seqLen: number },
): EncodedText {
  const all = idArray(corpus, tokenizer);
  const pieces = corpus.pieces()[Symbol.iterator]();
  const splits = new Splits(pieces, cut);
  let size = 0;
  for (const part of tokenizer.parts(splits.train())) {
    const ids = tokenizer.encode(part);
    all.set(ids, size);
    size += ids.length;
  }
  const begin = size;
  const validationBytes: number[] = [];
  for (const part of tokenizer.parts(splits.validation())) {
    const ids = tokenizer.encode(part);
    const lengths = tokenizer.byteLengths(part, ids);
    all.set(ids, size);
    for (const length of lengths) {
      // The first id of all is never scored.
      const window = Math.ceil((size++ - begin) / seqLen) - 1;
      if (window >= 0) validationBytes[window] = (validationBytes[window] ?? 0) + length;
    }
  }
  // Behind them is memory that was never touched.
  const ids = all.subarray(0, size);
  return {
    ids,
    train: ids.subarray(0, begin),
    validation: ids.subarray(begin),
    validationBytes,
  };
}

/** The pieces of a text's first part; those of its second one follow in {@linkcode Splits}. */
export function trainPieces(corpus: Corpus, cut: number): Iterable<string> {
  return new Splits(corpus.pieces()[Symbol.iterator](), cut).train();
}

/** Both splits of a text, in one pass over its pieces. */
class Splits {
  readonly #pieces: Iterator<string>;
  readonly #cut: number;
  /** What the piece at the cut has of the second split. */
  #rest = "";

  constructor(pieces: Iterator<string>, cut: number) {
    this.#pieces = pieces;
    this.#cut = cut;
  }

  *train(): Iterable<string> {
    let left = this.#cut;
    while (left > 0) {
      const { done, value: piece } = this.#pieces.next();
      if (done) return;
      let end = Math.min(left, piece.length);
      // Not between the two halves of a surrogate pair.
      if (/^[\udc00-\udfff]/.test(piece.slice(end, end + 1))) end--;
      if (end > 0) yield piece.slice(0, end);
      if (end < piece.length) this.#rest = piece.slice(end);
      left -= piece.length;
    }
  }

  *validation(): Iterable<string> {
    if (this.#rest) yield this.#rest;
    for (let next; !(next = this.#pieces.next()).done;) yield next.value;
  }
}

/** Least tokens of a byte of text. */
const LEAST_TOKENS = { byte: 1, char: 1 / 4, bpe: 0 };

/** Room for all ids: there are at most as many as bytes. Memory that stays untouched costs none. */
function idArray({ name, bytes }: Corpus, { kind, vocabSize }: Tokenizer): TokenIds {
  const ids = vocabSize <= 2 ** 8 ? Uint8Array : vocabSize <= 2 ** 16 ? Uint16Array : Int32Array;
  const size = bytes * ids.BYTES_PER_ELEMENT;
  try {
    if (LEAST_TOKENS[kind] * size < freeMemory()) return new ids(bytes);
  } catch {
    // Told below.
  }
  throw new UserError(
    `Cannot use data=${name}: its tokens may take ${
      formatBytes(size)
    } of memory; use a shorter text`,
  );
}
