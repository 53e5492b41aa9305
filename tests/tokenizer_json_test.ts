/** Settings of a tokenizer.json: those that change ids are honoured, or refused by their names. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { letterOfByte } from "../src/data/tokenizer/byte_level.ts";
import { TOKENIZER_CONFIG } from "../src/data/tokenizer/tokenizer.ts";
import { createTokenizer, loadTokenizer } from "../src/data/tokenizer/tokenizers.ts";
import { openDataset } from "../src/data/dataset.ts";
import { Rng } from "../src/rng.ts";
import { excerpt, options, seed, withFiles } from "./data_case.ts";
import { refuses, userError } from "./user_error.ts";

type Json = Record<string, unknown>;

const BPE = JSON.stringify(createTokenizer("bpe", excerpt, { vocabSize: 600 }));
const CHAR = JSON.stringify(createTokenizer("char", excerpt, { vocabSize: 0 }));

function changed(saved: string, change: (json: Json, model: Json) => void): Json {
  const json = JSON.parse(saved);
  change(json, json.model);
  return json;
}

/**
 * Texts of any characters, words that merge and all white space, in any order. U+FEFF and U+0085
 * are left out: the library here takes JavaScript's white space, unlike the one in Rust.
 */
function* randomTexts(count: number): Iterable<string> {
  const rng = new Rng(seed, "texts");
  const spaces = [..." \t\n\r\v\f\u00a0\u1680\u2003\u2028\u2029\u202f\u205f\u3000"];
  const words = excerpt.slice(0, 4000).split(/(?= )/);
  const parts = [
    () => words[rng.below(words.length)],
    () => spaces[rng.below(spaces.length)].repeat(1 + rng.below(3)),
    () => ["'s", "'ll", "'re", "'x", "''", " 'd"][rng.below(6)],
    () => String.fromCodePoint(rng.below(0x300)),
    () => String.fromCodePoint(rng.below(0x30000)),
    () => String(rng.below(1e6)),
  ];
  for (let i = 0; i < count; i++) {
    const text = Array.from({ length: 1 + rng.below(12) }, () => parts[rng.below(6)]()).join("");
    yield text.toWellFormed().replaceAll(/[\ufeff\x85]/g, "x");
  }
}

/** Changes that are honoured: the ids are those of Hugging Face's library. */
const honoured: Record<string, (json: Json, model: Json) => void> = {
  "merges as pairs": (_, model) =>
    model.merges = (model.merges as string[]).map((merge) => merge.split(" ")),
  "ignore_merges": (_, model) => {
    model.ignore_merges = true;
    // Words that no merge makes.
    const vocab = model.vocab as Record<string, number>;
    for (const word of ["Ġwhaling", "Ishmael", "Ġvoyage", "鯨"]) {
      const letters = [...new TextEncoder().encode(word.replace("Ġ", " "))];
      vocab[letters.map((byte) => letterOfByte[byte]).join("")] = Object.keys(vocab).length;
    }
  },
  "another order of bytes": (_, model) => {
    const vocab = model.vocab as Record<string, number>;
    model.vocab = Object.fromEntries(
      Object.entries(vocab).map(([token, id]) => [token, Object.keys(vocab).length - 1 - id]),
    );
  },
  "bytes in another order, and nothing else": (_, model) => {
    model.merges = [];
    model.vocab = Object.fromEntries(letterOfByte.toSorted().map((letter, id) => [letter, id]));
  },
  "neutral values": (json, model) => {
    json.pre_tokenizer = { type: "Sequence", pretokenizers: [json.pre_tokenizer] };
    json.post_processor = json.decoder;
    Object.assign(model, { dropout: 0, end_of_word_suffix: "", continuing_subword_prefix: "" });
    Object.assign(model, { unk_token: "a", fuse_unk: true, byte_fallback: true });
    for (const key of ["version", "truncation", "padding"]) delete json[key];
  },
};

for (const [name, change] of Object.entries(honoured)) {
  Deno.test(`honoured: ${name}`, () => {
    const json = changed(BPE, change);
    const ours = loadTokenizer(structuredClone(json));
    const again = loadTokenizer(JSON.parse(JSON.stringify(ours)));
    const theirs = new HuggingFaceTokenizer(json, { ...TOKENIZER_CONFIG });
    for (const text of [...randomTexts(400), excerpt.slice(0, 5000)]) {
      const ids = [...ours.encode(text)];
      assert.deepEqual(ids, theirs.encode(text).ids, `seed ${seed}: ${JSON.stringify(text)}`);
      assert.deepEqual([...again.encode(text)], ids, "saved and read again");
      assert.equal(ours.decode(ids), text);
    }
  });
}

Deno.test("white space is Unicode's: U+0085 is, U+FEFF is not", () => {
  const tokenizer = loadTokenizer(changed(BPE, (_, model) => {
    const vocab = model.vocab as Record<string, number>;
    const add = (left: string, right: string) => {
      vocab[left + right] = Object.keys(vocab).length;
      (model.merges as unknown[]).push(`${left} ${right}`);
    };
    // Merges that reach over U+0085 (c2 85) and U+FEFF (ef bb bf) and their neighbours.
    add("Â", "ħ");
    add("Âħ", "Âħ");
    add("ï", "»");
    add("ï»", "¿");
    add("ï»¿", "!");
    add("Âħ", "!");
  }));
  const words = (text: string) => [...tokenizer.encode(text)].map((id) => tokenizer.decode([id]));
  assert.deepEqual(words("!\u0085\u0085a"), ["!", "\u0085", "\u0085", "a"], "the last one is cut");
  assert.deepEqual(words("\u0085\u0085"), ["\u0085\u0085"]);
  assert.deepEqual(words("\u0085!"), ["\u0085", "!"]);
  assert.deepEqual(words("\ufeff!"), ["\ufeff!"]);
});

/** What a refused setting is called, and how it gets into the file. */
const refused: [name: string, saved: string, change: (json: Json, model: Json) => void][] = [
  ["pre_tokenizer.add_prefix_space=true", BPE, before({ add_prefix_space: true })],
  ["pre_tokenizer.use_regex=false", BPE, before({ use_regex: false })],
  ["pre_tokenizer.behavior=1", BPE, before({ behavior: 1 })],
  ["pre_tokenizer=null", BPE, (json) => json.pre_tokenizer = null],
  ['pre_tokenizer={"type":"Whitespace"}', BPE, before({ type: "Whitespace" }, true)],
  ['pre_tokenizer={"type":"Whitespace"}', CHAR, before({ type: "Whitespace" }, true)],
  ['pre_tokenizer={"type":"Sequence",', BPE, (json) => {
    const split = { type: "Split", pattern: { Regex: "\\d" }, behavior: "Isolated", invert: false };
    const pretokenizers = [split, json.pre_tokenizer];
    json.pre_tokenizer = { type: "Sequence", pretokenizers };
  }],
  ["model.dropout=0.1", BPE, (_, model) => model.dropout = 0.1],
  ['model.end_of_word_suffix="</w>"', BPE, (_, model) => model.end_of_word_suffix = "</w>"],
  [
    'model.continuing_subword_prefix="##"',
    BPE,
    (_, model) => model.continuing_subword_prefix = "##",
  ],
  ['model.ignore_merges="yes"', BPE, (_, model) => model.ignore_merges = "yes"],
  ["model.fuse_unk=true", CHAR, (_, model) => model.fuse_unk = true],
  ["model.byte_fallback=true", CHAR, (_, model) => model.byte_fallback = true],
  ['model.unk_token="<unk>"', CHAR, (_, model) => model.unk_token = "<unk>"],
  ["model.unk_token=null", CHAR, (_, model) => model.unk_token = null],
  ['model.type="Unigram"', BPE, (_, model) => model.type = "Unigram"],
  ["model.alpha=0.5", BPE, (_, model) => model.alpha = 0.5],
  ['normalizer={"type":"NFC"}', BPE, (json) => json.normalizer = { type: "NFC" }],
  ['truncation={"max_length":512}', BPE, (json) => json.truncation = { max_length: 512 }],
  [
    'padding={"strategy":"BatchLongest"}',
    BPE,
    (json) => json.padding = { strategy: "BatchLongest" },
  ],
  [
    'added_tokens=[{"id":0,"content":"<s>"}]',
    BPE,
    (json) => json.added_tokens = [{ id: 0, content: "<s>" }],
  ],
  [
    'post_processor={"type":"TemplateProcessing"}',
    BPE,
    (json) => json.post_processor = { type: "TemplateProcessing" },
  ],
  [
    'post_processor={"type":"TemplateProcessing"}',
    CHAR,
    (json) => json.post_processor = { type: "TemplateProcessing" },
  ],
  ['decoder={"type":"WordPiece"}', BPE, (json) => json.decoder = { type: "WordPiece" }],
  ['decoder={"type":"WordPiece"}', CHAR, (json) => json.decoder = { type: "WordPiece" }],
  ['version="2.0"', BPE, (json) => json.version = "2.0"],
  ["something=1", BPE, (json) => json.something = 1],
];

function before(changes: Json, replaced = false): (json: Json) => void {
  return (json) => {
    json.pre_tokenizer = replaced ? changes : { ...json.pre_tokenizer as Json, ...changes };
  };
}

Deno.test("every other setting that changes ids is refused by its name, value and file", () => {
  for (const [name, saved, change] of refused) {
    const message = userError(() => loadTokenizer(changed(saved, change), "models/a/b.json"));
    assert.ok(message.startsWith(`Cannot read models/a/b.json: ${name}`), `${name}: ${message}`);
    assert.match(message, / is not supported.*; use a tokenizer without it/);
  }
});

Deno.test("damage that would change ids is refused", () => {
  const damage: [string, (json: Json, model: Json) => void, string?][] = [
    ["no pair of tokens", (_, model) => (model.merges as unknown[]).push("a b c")],
    ["no pair of tokens", (_, model) => (model.merges as unknown[]).push(["a", "b", "c"])],
    ["no pair of tokens", (_, model) => (model.merges as unknown[]).push(["a", 1])],
    ["no pair of tokens", (_, model) => (model.merges as unknown[]).push("ab")],
    ["not in its vocabulary", (_, model) => (model.merges as unknown[]).push(["a", "toString"])],
    ["ids from 0 on", (_, model) => (model.vocab as Json).a = 5],
    ["lacks the byte", (_, model) => {
      const vocab = model.vocab as Json;
      vocab.Qq = vocab.Ā;
      delete vocab.Ā;
    }],
    ["not one character", (_, model) => {
      const vocab = model.vocab as Json;
      vocab.ab = vocab.a;
      delete vocab.a;
    }, CHAR],
    ["has no vocabulary", (_, model) => model.vocab = ["a"]],
  ];
  for (const [reason, change, saved = BPE] of damage) {
    const message = userError(() => loadTokenizer(changed(saved, change)));
    assert.ok(message.includes(reason), message);
  }
});

Deno.test("a dataset names the file of a tokenizer that it cannot use", () =>
  withFiles({}, async (folder) => {
    const tokenizerJson = changed(BPE, (_, model) => model.dropout = 0.5);
    const tokenizerFile = join(folder, "tokenizer.json");
    await refuses(
      () => openDataset(options({ tokenizerJson, tokenizerFile })),
      new RegExp(`Cannot read ${tokenizerFile}: model.dropout=0.5`),
    );
  }));
