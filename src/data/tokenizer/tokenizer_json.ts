/**
 * Reading a `tokenizer.json`. Other programs write settings into it that change ids: each is
 * honoured, or refused by its name, and so is everything that this file does not know.
 *
 * @module
 */
import { UserError } from "../../errors.ts";
import { PAIR } from "./bpe_training.ts";
import { letterOfByte } from "./byte_level.ts";
import type { TokenizerKind } from "./tokenizer.ts";

/** What a `tokenizer.json` says. */
export interface TokenizerParts {
  /** The kind that gives its ids. */
  readonly kind: TokenizerKind;
  /** The id of each token. */
  readonly vocab: Record<string, number>;
  /** Pairs of tokens with a space between, in the order in which they are merged. */
  readonly merges: readonly string[];
  /** Whether a word that is a token is that token, whatever its merges make of it. */
  readonly ignoreMerges: boolean;
}

/** What is told of a value in an error, at most. */
const LONGEST_VALUE = 60;

type Settings = Readonly<Record<string, unknown>>;

/**
 * Looks at everything in the content of a `tokenizer.json`.
 *
 * @param file named in errors
 * @throws {UserError} if it is damaged, or has a setting that is not supported
 */
export function readTokenizerJson(json: object, file: string): TokenizerParts {
  const { version, model, pre_tokenizer, decoder, added_tokens, post_processor, ...rest } =
    json as Settings;
  const reader: SettingsReader = new SettingsReader(file);
  if (!isObject(model)) reader.damaged("it has no model");
  reader.allow("version", version, ["1.0"]);
  reader.allowAll("", rest, { normalizer: [null], truncation: [null], padding: [null] });
  if (!isEmptyList(added_tokens)) reader.allow("added_tokens", added_tokens, [null]);
  const before = onlyPart(pre_tokenizer, "pretokenizers");
  return isByteLevel(before)
    ? byteLevelParts(reader, { model, before, decoder, after: post_processor })
    : characterParts(reader, { model, before, decoder, after: post_processor });
}

interface Parts {
  readonly model: Settings;
  readonly before: unknown;
  readonly decoder: unknown;
  readonly after: unknown;
}

/** Text in bytes: there is a token for every byte, so none is unknown. */
function byteLevelParts(
  reader: SettingsReader,
  { model, before, decoder, after }: Parts,
): TokenizerParts {
  const { type: _, ...settings } = before as Settings;
  reader.allowAll("pre_tokenizer.", settings, {
    add_prefix_space: [false],
    use_regex: [true],
    trim_offsets: [true, false],
  });
  // Both only say where tokens lie in the text, or join them.
  if (!isByteLevel(decoder)) reader.refuse("decoder", decoder);
  if (!isByteLevel(onlyPart(after, "processors"))) reader.allow("post_processor", after, [null]);
  const { unk_token, ...rest } = model;
  if (typeof unk_token !== "string") reader.allow("model.unk_token", unk_token, [null]);
  const { vocab, merges, ignoreMerges } = modelParts(reader, rest, {
    fuse_unk: [true, false, null],
    byte_fallback: [true, false, null],
  });
  const missing = letterOfByte.find((letter) => !Object.hasOwn(vocab, letter));
  if (missing) reader.damaged(`its vocabulary lacks the byte ${missing}`);
  const isByte = merges.length === 0 &&
    letterOfByte.every((letter, byte) => vocab[letter] === byte) &&
    Object.keys(vocab).length === letterOfByte.length;
  return { kind: isByte ? "byte" : "bpe", vocab, merges, ignoreMerges };
}

/** A token per character, and U+FFFD for all others. */
function characterParts(
  reader: SettingsReader,
  { model, before, decoder, after }: Parts,
): TokenizerParts {
  reader.allow("pre_tokenizer", before, [null]);
  // They would go over whole texts.
  if (!isEmptyList(model.merges)) reader.refuse("pre_tokenizer", null, " where there are merges");
  reader.allow("post_processor", after, [null]);
  if (!isObject(decoder) || decoder.type !== "Fuse") reader.allow("decoder", decoder, [null]);
  const { unk_token, ...rest } = model;
  if (unk_token === undefined) reader.refuse("model.unk_token", null);
  reader.allow("model.unk_token", unk_token, ["\ufffd"]);
  const parts = modelParts(reader, rest, { fuse_unk: [false, null], byte_fallback: [false, null] });
  for (const token of Object.keys(parts.vocab)) {
    if ([...token].length !== 1 || !token.isWellFormed()) {
      reader.damaged(`its token ${shown(token)} is not one character, and it has no merges`);
    }
  }
  // The only words that are tokens are single characters.
  return { kind: "char", ...parts, ignoreMerges: false };
}

/** What both have, the other settings of the model being neutral or among `allowed`. */
function modelParts(
  reader: SettingsReader,
  model: Settings,
  allowed: Readonly<Record<string, readonly unknown[]>>,
): Omit<TokenizerParts, "kind"> {
  const { type, vocab, merges, ignore_merges, ...rest } = model;
  if (type === undefined) reader.refuse("model.type", null);
  reader.allow("model.type", type, ["BPE"]);
  reader.allow("model.ignore_merges", ignore_merges, [true, false, null]);
  reader.allowAll("model.", rest, {
    ...allowed,
    dropout: [null, 0],
    continuing_subword_prefix: [null, ""],
    end_of_word_suffix: [null, ""],
  });
  if (!isObject(vocab)) reader.damaged("it has no vocabulary");
  requireNumbered(reader, Object.values(vocab));
  if (!Array.isArray(merges)) reader.damaged("it has no merges");
  return {
    vocab: vocab as Record<string, number>,
    merges: merges.map((merge) => readMerge(reader, merge, vocab)),
    ignoreMerges: ignore_merges === true,
  };
}

function requireNumbered(reader: SettingsReader, ids: readonly unknown[]): void {
  const numbers = new Set(ids);
  if (ids.length === 0 || !ids.every((_, id) => numbers.has(id))) {
    reader.damaged(`its ${ids.length} tokens do not have the ids from 0 on`);
  }
  if (ids.length > PAIR) reader.damaged(`it has ${ids.length} tokens, more than ${PAIR}`);
}

/** A merge is "a b", or since 2024 ["a", "b"]. */
function readMerge(reader: SettingsReader, merge: unknown, vocab: Settings): string {
  const pair: unknown = typeof merge === "string" ? merge.split(" ") : merge;
  if (!Array.isArray(pair) || pair.length !== 2 || !pair.every((part) => isToken(part))) {
    reader.damaged(`its merge ${shown(merge)} is no pair of tokens`);
  }
  for (const token of [...pair, pair.join("")]) {
    if (!Object.hasOwn(vocab, token)) {
      reader.damaged(`${shown(token)} of its merge ${shown(merge)} is not in its vocabulary`);
    }
  }
  return pair.join(" ");
}

function isToken(part: unknown): part is string {
  return typeof part === "string" && part !== "" && !part.includes(" ");
}

/** Refuses settings by their names. */
class SettingsReader {
  readonly #file: string;

  constructor(file: string) {
    this.#file = file;
  }

  damaged(reason: string): never {
    throw new UserError(
      `Cannot read ${this.#file}: ${reason}; the file is damaged, use one that a training run ` +
        "has saved",
    );
  }

  /** @param when more about why, e.g. " where there are merges" */
  refuse(name: string, value: unknown, when = ""): never {
    throw new UserError(
      `Cannot read ${this.#file}: ${name}=${shown(value)} is not supported${when}; use a ` +
        "tokenizer without it, or one that a training run has saved",
    );
  }

  /** A setting that is missing is as its reader has it by default, which is neutral. */
  allow(name: string, value: unknown, values: readonly unknown[]): void {
    if (value !== undefined && !values.includes(value)) this.refuse(name, value);
  }

  /** Of a setting without a name here, no value is known to change nothing but null. */
  allowAll(
    prefix: string,
    settings: Settings,
    values: Readonly<Record<string, readonly unknown[]>>,
  ): void {
    for (const [name, value] of Object.entries(settings)) {
      this.allow(prefix + name, value, Object.hasOwn(values, name) ? values[name] : [null]);
    }
  }
}

/** The part of a `Sequence` of one; all else as it is. */
function onlyPart(value: unknown, key: "pretokenizers" | "processors"): unknown {
  if (!isObject(value) || value.type !== "Sequence") return value;
  const parts = value[key];
  return Array.isArray(parts) && parts.length === 1 ? parts[0] : value;
}

function isByteLevel(value: unknown): boolean {
  return isObject(value) && value.type === "ByteLevel";
}

function isObject(value: unknown): value is Settings {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isEmptyList(value: unknown): boolean {
  return Array.isArray(value) && value.length === 0;
}

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > LONGEST_VALUE ? `${text.slice(0, LONGEST_VALUE)}…` : text;
}
