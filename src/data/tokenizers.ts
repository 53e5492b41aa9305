/**
 * Choosing a tokenizer. All three are saved as Hugging Face's `tokenizer.json`, so other tools read
 * them.
 *
 * @module
 */
import { UserError } from "../errors.ts";
import { BpeTokenizer } from "./bpe_tokenizer.ts";
import { ByteTokenizer } from "./byte_tokenizer.ts";
import { CharTokenizer } from "./char_tokenizer.ts";
import type { Tokenizer, TokenizerJson, TokenizerKind } from "./tokenizer.ts";

/**
 * Makes a tokenizer from a text.
 *
 * - `byte`: a token per byte of UTF-8; learns nothing, 256 tokens
 * - `char`: a token per character (code point) of the text, and one for all others
 * - `bpe`: byte-level byte-pair encoding of at most `vocabSize` tokens; fewer if the text repeats
 *   too little to learn them, so go by the tokenizer's `vocabSize`
 *
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
  text: string,
  options: { vocabSize: number },
): Tokenizer {
  if (kind === "byte") return new ByteTokenizer();
  if (kind === "char") return CharTokenizer.train(text);
  return BpeTokenizer.train(text, options.vocabSize);
}

/**
 * Makes a tokenizer from the content of a `tokenizer.json` that {@linkcode Tokenizer.toJSON} wrote.
 *
 * @throws {UserError} if the content is not of that form
 */
export function loadTokenizer(json: object): Tokenizer {
  const { model, pre_tokenizer, added_tokens, normalizer } = json as Partial<TokenizerJson>;
  if (model?.type !== "BPE" || normalizer || (added_tokens as object[] | undefined)?.length) {
    throw new UserError(
      "Cannot read tokenizer.json: only a BPE model without normalizer and added tokens is " +
        "supported; use one that a training run has saved",
    );
  }
  const ids = Object.values(model.vocab ?? {});
  try {
    requireNumbered(ids);
    if (pre_tokenizer?.type !== "ByteLevel") return new CharTokenizer(model.vocab);
    return model.merges.length === 0 && ids.length === 256
      ? new ByteTokenizer()
      : new BpeTokenizer(model.vocab, model.merges);
  } catch (error) {
    throw new UserError(
      `Cannot read tokenizer.json: ${
        (error as Error).message
      }; the file is damaged, use one that ` +
        "a training run has saved",
    );
  }
}

function requireNumbered(ids: number[]): void {
  const numbers = new Set(ids);
  const all = ids.length > 0 && ids.every((_, id) => numbers.has(id));
  if (!all) throw new RangeError(`its ${ids.length} tokens do not have the ids from 0 on`);
}
