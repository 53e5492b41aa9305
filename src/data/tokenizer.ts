/**
 * Tokenizers. All three are saved as Hugging Face's `tokenizer.json`, so other tools read them.
 *
 * @module
 */
import { UserError } from "../errors.ts";
import { BpeTokenizer } from "./bpe_tokenizer.ts";
import { ByteTokenizer } from "./byte_tokenizer.ts";
import { CharTokenizer } from "./char_tokenizer.ts";

/** The kinds of {@linkcode Tokenizer}. */
export type TokenizerKind = "byte" | "char" | "bpe";

/** Turns text into token ids and back. */
export interface Tokenizer {
  /** How text is split. */
  readonly kind: TokenizerKind;
  /** Ids are 0 to `vocabSize - 1`. */
  readonly vocabSize: number;
  /** Ids of any text; what the tokenizer cannot represent becomes U+FFFD (`char` only). */
  encode(text: string): Int32Array;
  /**
   * Text of ids; bytes that are not UTF-8 become U+FFFD.
   *
   * @throws {RangeError} if an id is not in the vocabulary
   */
  decode(ids: ArrayLike<number>): string;
  /** The content of `tokenizer.json`. */
  toJSON(): TokenizerJson;
}

/** Byte level, as GPT-2 has it. Readers want all fields, though decoding needs none of them. */
export interface ByteLevelJson {
  /** What cuts or joins. */
  type: "ByteLevel";
  /** A text begins as it is. */
  add_prefix_space: false;
  /** Offsets include the space before a word. */
  trim_offsets: false;
  /** Text is cut into words first. */
  use_regex: true;
}

/** What this project writes to and reads from a `tokenizer.json`. */
export interface TokenizerJson {
  /** Version of the format. */
  version: "1.0";
  /** Never: texts stay whole. */
  truncation: null;
  /** Never: there is no padding token. */
  padding: null;
  /** There are no special tokens. */
  added_tokens: [];
  /** Text is taken as it is. */
  normalizer: null;
  /** Null for `char`, whose tokens are characters. */
  pre_tokenizer: ByteLevelJson | null;
  /** Nothing is put around a text. */
  post_processor: null;
  /** `Fuse` for `char`: tokens are joined as they are. */
  decoder: ByteLevelJson | { type: "Fuse" };
  /** The vocabulary; `merges` is empty where nothing is merged. */
  model: {
    type: "BPE";
    dropout: null;
    unk_token: string | null;
    continuing_subword_prefix: null;
    end_of_word_suffix: null;
    fuse_unk: false;
    byte_fallback: false;
    ignore_merges: false;
    vocab: Record<string, number>;
    merges: string[];
  };
}

/**
 * The content of the `tokenizer_config.json` beside every `tokenizer.json`. With it transformers'
 * `AutoTokenizer` takes that file as it is, whatever the type of the model.
 */
export const TOKENIZER_CONFIG = {
  tokenizer_class: "PreTrainedTokenizerFast",
  clean_up_tokenization_spaces: false,
} as const;

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
 * import { createTokenizer, loadTokenizer } from "./tokenizer.ts";
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
