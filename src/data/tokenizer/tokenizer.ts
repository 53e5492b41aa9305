/**
 * What a tokenizer is, and the files that it is saved in.
 *
 * @module
 */

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
   * A text in parts that can be encoded one by one: their ids, joined, are those of the whole text,
   * which may be longer than a string can be.
   *
   * @param pieces of the text, in order; none ends within a character
   * @throws {UserError} if there is no place to cut it for too long
   */
  parts(pieces: Iterable<string>): Iterable<string>;
  /**
   * Text of ids; bytes that are not UTF-8 become U+FFFD.
   *
   * @throws {RangeError} if an id is not in the vocabulary
   */
  decode(ids: ArrayLike<number>): string;
  /**
   * How many bytes of the text, in UTF-8, each of its ids stands for. They add up to the text's: a
   * part of a character counts its own bytes, an unknown character those that it has in the text.
   *
   * @param ids of the whole text, as {@linkcode encode} gives them
   */
  byteLengths(text: string, ids: Int32Array): Int32Array;
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
    ignore_merges: boolean;
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
