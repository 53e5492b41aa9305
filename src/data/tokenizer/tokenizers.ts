/**
 * Choosing a tokenizer. All three are saved as Hugging Face's `tokenizer.json`, so other tools read
 * them.
 *
 * @module
 */
import { UserError } from "../../errors.ts";
import { BpeTokenizer } from "./bpe_tokenizer.ts";
import { ByteTokenizer } from "./byte_tokenizer.ts";
import { CharTokenizer } from "./char_tokenizer.ts";
import type { Tokenizer, TokenizerKind } from "./tokenizer.ts";
import { readTokenizerJson } from "./tokenizer_json.ts";

/**
 * Makes a tokenizer from a text.
 *
 * - `byte`: a token per byte of UTF-8; learns nothing, 256 tokens
 * - `char`: a token per character (code point) of the text, and one for all others
 * - `bpe`: byte-level byte-pair encoding of at most `vocabSize` tokens; fewer if the text repeats
 *   too little to learn them, so go by the tokenizer's `vocabSize`
 *
 * @param text the whole text or, of one that is too long for a string, its pieces, none of which ends
 * within a character
 * @param options.vocabSize what `bpe` is to learn, from 256 on; the other kinds ignore it
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { createTokenizer, loadTokenizer } from "./tokenizers.ts";
 *
 * const tokenizer = createTokenizer("bpe", "the whale, the whale", { vocabSize: 260 });
 * const ids = tokenizer.encode("the whale");
 * assert(ids.length < 9);
 * assert.equal(loadTokenizer(tokenizer.toJSON()).decode(ids), "the whale");
 * ```
 */
export function createTokenizer(
  kind: TokenizerKind,
  text: string | Iterable<string>,
  options: { vocabSize: number },
): Tokenizer {
  if (kind === "byte") return new ByteTokenizer();
  const pieces = typeof text === "string" ? [text] : text;
  if (kind === "char") return CharTokenizer.train(pieces);
  return BpeTokenizer.train(pieces, options.vocabSize);
}

/**
 * Makes a tokenizer from the content of a `tokenizer.json`, of this project or of byte-level BPE as
 * in GPT-2.
 *
 * @param file named in errors
 * @throws {UserError} if the content is not of that form, or has settings that are not supported
 */
export function loadTokenizer(json: object, file = "tokenizer.json"): Tokenizer {
  const { kind, vocab, merges, ignoreMerges } = readTokenizerJson(json, file);
  if (kind === "byte") return new ByteTokenizer();
  try {
    if (kind === "char") return new CharTokenizer(vocab);
    return new BpeTokenizer(vocab, merges, { ignoreMerges });
  } catch (error) {
    throw new UserError(
      `Cannot read ${file}: ${(error as Error).message}; the file is damaged, use one that a ` +
        "training run has saved",
    );
  }
}
