/**
 * Damaged and foreign tokenizer.json files: refused with one line, or the ids are those of Hugging
 * Face's library, and the text comes back.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { TOKENIZER_CONFIG } from "../../src/data/tokenizer/tokenizer.ts";
import { createTokenizer, loadTokenizer } from "../../src/data/tokenizer/tokenizers.ts";
import { Rng } from "../../src/rng.ts";
import { type Findings, type Fuzzer, unclean } from "./fuzzer.ts";
import { mutateBytes, mutateJson, pick } from "./mutate.ts";
import { randomText } from "./random_text.ts";

export const tokenizerJsonFuzzer: Fuzzer = { name: "tokenizer_json", run };

type Json = Record<string, unknown>;

/** Settings of other programs, by the part of the file that they stand in. */
const SETTINGS: readonly [part: string | null, name: string, values: readonly unknown[]][] = [
  ["model", "dropout", [0, 0.1, 1, "0"]],
  ["model", "unk_token", [null, "a", "<unk>", "\ufffd", 3]],
  ["model", "continuing_subword_prefix", ["", "##"]],
  ["model", "end_of_word_suffix", ["", "</w>"]],
  ["model", "fuse_unk", [true, false]],
  ["model", "byte_fallback", [true, false]],
  ["model", "ignore_merges", [true, false, null]],
  ["model", "type", ["WordPiece", "Unigram", "BPE", undefined]],
  ["pre_tokenizer", "add_prefix_space", [true, false]],
  ["pre_tokenizer", "use_regex", [true, false]],
  ["pre_tokenizer", "trim_offsets", [true, false]],
  ["pre_tokenizer", "type", ["Whitespace", "Metaspace", "Digits"]],
  [null, "normalizer", [{ type: "NFC" }, { type: "Lowercase" }, null]],
  [null, "pre_tokenizer", [null, { type: "Sequence", pretokenizers: [] }]],
  [null, "post_processor", [{ type: "ByteLevel" }, { type: "TemplateProcessing" }]],
  [null, "decoder", [{ type: "ByteLevel" }, { type: "Fuse" }, null]],
  [null, "truncation", [{ max_length: 3 }, null]],
  [null, "padding", [{ strategy: { Fixed: 9 } }, null]],
  [null, "added_tokens", [[{ id: 0, content: "a", special: true }], []]],
];

/** Tokens that every vocabulary of bytes has, and that stand often beside each other. */
const OFTEN = ["Ġ", "e", "s", "'", "t", "a", "l", "Ċ", "9", "!"];

function run({ seed, until }: Parameters<Fuzzer["run"]>[0]): Promise<Findings> {
  return fuzz(new Rng(seed, "tokenizer_json"), until);
}

async function fuzz(rng: Rng, until: () => boolean): Promise<Findings> {
  const learnt = randomText(rng, 300) + " the whale's tale, the whale ".repeat(4);
  const saved = (["byte", "char", "bpe"] as const).map((kind) =>
    JSON.stringify(createTokenizer(kind, learnt, { vocabSize: 290 }))
  );
  const failures: Findings["failures"] = [];
  let cases = 0;
  for (; !until(); cases++) {
    let json: Json | null = null;
    while (!json) json = changed(rng, JSON.parse(pick(rng, saved)));
    const texts = [
      learnt.slice(0, 200).toWellFormed(),
      ...Array.from({ length: 4 }, () => randomText(rng, 20)),
    ];
    const input = JSON.stringify(json);
    const error = await unclean(() => check(json, texts));
    if (error) failures.push({ input, error });
  }
  return { cases, failures };
}

/** A changed file; null where it is no JSON object any more. */
function changed(rng: Rng, json: Json): Json | null {
  const model = json.model as Json;
  if (json.pre_tokenizer && rng.below(2) === 0) addTokens(rng, model);
  if (rng.below(4) === 0) {
    model.merges = (model.merges as string[]).map((merge) => merge.split(" "));
  }
  for (let n = rng.below(3); n > 0; n--) {
    const [part, name, values] = pick(rng, SETTINGS);
    const holder = part === null ? json : json[part] as Json | null;
    if (holder) holder[name] = structuredClone(pick(rng, values));
  }
  if (rng.below(3) === 0) shuffleIds(rng, model);
  if (rng.below(2) === 0) return objectOrNull(mutateJson(rng, json));
  if (rng.below(4) > 0) return json;
  try {
    const bytes = mutateBytes(rng, new TextEncoder().encode(JSON.stringify(json)));
    return objectOrNull(JSON.parse(new TextDecoder().decode(bytes)));
  } catch {
    return null;
  }
}

function objectOrNull(value: unknown): Json | null {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? value as Json
    : null;
}

/** Merges that reach over the edges of words, and tokens that no merge makes. */
function addTokens(rng: Rng, model: Json): void {
  const vocab = model.vocab as Record<string, number>;
  const merges = model.merges as string[];
  for (let n = 1 + rng.below(20); n > 0; n--) {
    const left = pick(rng, OFTEN), right = pick(rng, OFTEN);
    vocab[left + right] ??= Object.keys(vocab).length;
    if (rng.below(2) === 0) merges.push(`${left} ${right}`);
  }
}

function shuffleIds(rng: Rng, model: Json): void {
  const tokens = Object.keys(model.vocab as Json);
  const ids = Int32Array.from(tokens, (_, id) => id);
  rng.shuffle(ids);
  model.vocab = Object.fromEntries(tokens.map((token, i) => [token, ids[i]]));
}

function check(json: Json, texts: readonly string[]): void {
  const ours = loadTokenizer(structuredClone(json), "x/tokenizer.json");
  const again = loadTokenizer(JSON.parse(JSON.stringify(ours)));
  const theirs = reference(json);
  for (const text of texts) {
    const ids = [...ours.encode(text)];
    const lengths = ours.byteLengths(text, ours.encode(text));
    assert.equal(lengths.reduce((a, b) => a + b, 0), new TextEncoder().encode(text).length);
    assert.ok(ids.every((id) => id >= 0 && id < ours.vocabSize), "ids are in the vocabulary");
    if (ours.kind !== "char") assert.equal(ours.decode(ids), text);
    assert.deepEqual([...again.encode(text)], ids, "saved and read again");
    if (theirs) assert.deepEqual(ids, theirs.encode(text).ids, JSON.stringify(text));
  }
}

/** The library reads null where a part is missing, and throws where Python's reader does. */
function reference(json: Json): HuggingFaceTokenizer | null {
  const parts = ["normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens"];
  const whole = Object.fromEntries(
    parts.map((part) => [part, part === "added_tokens" ? [] : null]),
  );
  try {
    const filled: Json = { ...whole, ...structuredClone(json) };
    filled.added_tokens ??= [];
    // The library fuses known tokens too, if the unknown one is known; the one in Rust does not.
    (filled.model as Json).fuse_unk = false;
    return new HuggingFaceTokenizer(filled, { ...TOKENIZER_CONFIG });
  } catch {
    return null;
  }
}
