/**
 * The byte level of GPT-2's tokenizer: each byte is written as a printable letter, so that tokens
 * are strings without spaces.
 *
 * @module
 */
import type { TokenizerJson } from "./tokenizer.ts";

/**
 * The letter of each byte: printable bytes stand for themselves, the others, in order, for the
 * code points from 256 on.
 */
export const letterOfByte: readonly string[] = makeLetters();

/** The byte of each letter: the inverse of {@linkcode letterOfByte}. */
export const byteOfLetter: ReadonlyMap<string, number> = new Map(
  letterOfByte.map((letter, byte) => [letter, byte]),
);

function makeLetters(): string[] {
  const letters: string[] = [];
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = byte >= 0x21 && byte <= 0x7e || byte >= 0xa1 && byte !== 0xad;
    letters.push(String.fromCharCode(printable ? byte : next++));
  }
  return letters;
}

/** `tokenizer.json` of byte-level BPE: the tokens in the order of their ids, and the merges. */
export function byteLevelJson(
  tokens: readonly string[],
  merges: string[],
  options: { ignoreMerges?: boolean } = {},
): TokenizerJson {
  const json = bpeJson(tokens, merges, null, {
    type: "ByteLevel",
    add_prefix_space: false,
    trim_offsets: false,
    use_regex: true,
  });
  json.model.ignore_merges = options.ignoreMerges ?? false;
  return json;
}

/** `tokenizer.json` of a BPE model. */
export function bpeJson(
  tokens: readonly string[],
  merges: string[],
  unknown: string | null,
  preTokenizer: TokenizerJson["pre_tokenizer"],
): TokenizerJson {
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: preTokenizer,
    post_processor: null,
    decoder: preTokenizer ?? { type: "Fuse" },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: unknown,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges,
    },
  };
}
