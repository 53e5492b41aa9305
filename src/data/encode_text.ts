import { UserError } from "../errors.ts";
import { freeMemory } from "../files/host_memory.ts";
import { formatBytes } from "../text/units.ts";
import type { Corpus } from "./splits.ts";
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
  /** What `validation` consists of, in order: windows do not cross from one to the next. */
  readonly documents: readonly ValidationDocument[];
  /**
   * Of each window of `seqLen + 1` validation ids: bytes of the text, but for its first id. Windows
   * are counted through all documents.
   */
  readonly validationBytes: readonly number[];
}

/** A part of a text that validates. */
export interface ValidationDocument {
  /** Null where the text has no documents. */
  readonly name: string | null;
  /** Where its ids begin among those of validation. */
  readonly begin: number;
  /** Where they end. */
  readonly end: number;
}

/**
 * Encodes the parts of a text, each as a text of its own.
 *
 * @throws {UserError} if the text has changed meanwhile, or its tokens do not fit into memory
 */
export function encodeText(
  tokenizer: Tokenizer,
  corpus: Corpus,
  { seqLen }: { seqLen: number },
): EncodedText {
  const all = idArray(corpus, tokenizer);
  const documents: ValidationDocument[] = [];
  const validationBytes: number[] = [];
  let trained = 0, size = 0;
  for (const { split, document, pieces } of corpus.parts()) {
    const begin = size;
    const firstWindow = validationBytes.length;
    for (const part of tokenizer.parts(pieces)) {
      const ids = tokenizer.encode(part);
      all.set(ids, size);
      if (split === "train") {
        size += ids.length;
        continue;
      }
      for (const length of tokenizer.byteLengths(part, ids)) {
        // The first id of all is never scored.
        const window = Math.ceil((size++ - begin) / seqLen) - 1;
        if (window < 0) continue;
        const at = firstWindow + window;
        validationBytes[at] = (validationBytes[at] ?? 0) + length;
      }
    }
    if (split === "train") trained = size;
    else documents.push({ name: document, begin: begin - trained, end: size - trained });
  }
  // Behind them is memory that was never touched.
  const ids = all.subarray(0, size);
  return {
    ids,
    train: ids.subarray(0, trained),
    validation: ids.subarray(trained),
    documents,
    validationBytes,
  };
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
