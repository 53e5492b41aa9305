import assert from "node:assert/strict";
import { join } from "node:path";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { resolveConfig } from "../src/config/config.ts";
import { PAIR, trainBpe } from "../src/data/tokenizer/bpe_training.ts";
import {
  type Tokenizer,
  type TokenizerJson,
  type TokenizerKind,
} from "../src/data/tokenizer/tokenizer.ts";
import { createTokenizer, loadTokenizer } from "../src/data/tokenizer/tokenizers.ts";
import { forEachWord } from "../src/data/tokenizer/words.ts";
import { UserError } from "../src/errors.ts";
import { initialParameters } from "../src/model/parameters.ts";
import { Rng } from "../src/rng.ts";
import { saveCheckpoint } from "../src/runs/checkpoint.ts";
import { RunFolder } from "../src/runs/run_folder.ts";

const kinds: TokenizerKind[] = ["byte", "char", "bpe"];
const excerpt = Deno.readTextFileSync(new URL("fixtures/moby_excerpt.txt", import.meta.url));
const seed = Math.floor(Math.random() * 2 ** 50);

/** Texts that were not trained on, with scripts, spaces and marks the excerpt does not have. */
const foreign = [
  "Der Wal schläft — 深海の鯨は歌う。 Кит! \u0928\u092e\u0938\u094d\u0924\u0947 🐋🐳 e\u0301 \u00a0x\u2003y",
  "\ufeff it's  we'll\tthey've\r\n\r\n   'S 12345 x² ___---!!! \u0000\u0007 __proto__ <unk>",
  "aaaaaaaaaaaaaaaaaaaaaaaaa abababababababababa   \n \n\n  ",
  " ",
  "",
];

/** Random text over letters that merge often, spaces and some other signs. */
function randomText(rng: Rng, length: number): string {
  const signs = ["a", "b", "n", "th", "the", "e", " ", " ", "\n", "'s", "é", "鯨", "🐋", "9", "."];
  return Array.from({ length }, () => signs[rng.below(signs.length)]).join("");
}

/** A tokenizer's files in a checkpoint, as a library reads them. */
async function savedFiles(tokenizer: Tokenizer): Promise<[json: object, config: object]> {
  const root = await Deno.makeTempDir();
  try {
    const config = resolveConfig({ numHiddenLayers: 1, vocabSize: tokenizer.vocabSize });
    const run = RunFolder.create(config, { experiment: "tokenizer", root });
    const parameters = initialParameters(config);
    const state = { parameters, m: parameters, v: parameters };
    const snapshot = { step: 0, config, state, tokenizer: tokenizer.toJSON() };
    const folder = await saveCheckpoint(run.path, snapshot);
    const read = async (name: string) => JSON.parse(await Deno.readTextFile(join(folder, name)));
    return [await read("tokenizer.json"), await read("tokenizer_config.json")];
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

function expectSame(ours: Tokenizer, theirs: HuggingFaceTokenizer, text: string): void {
  const ids = [...ours.encode(text)];
  const where = `${ours.kind}, seed ${seed}: ${JSON.stringify(text).slice(0, 80)}`;
  assert.deepEqual(ids, theirs.encode(text).ids, where);
  if (ids.length > 0) assert.equal(ours.decode(ids), theirs.decode(ids), where);
  if (ours.kind !== "char") assert.equal(ours.decode(ids), text, where);
}

for (const kind of kinds) {
  const tokenizer = createTokenizer(kind, excerpt, { vocabSize: 1000 });
  const saved = JSON.stringify(tokenizer);

  Deno.test(`${kind}: a checkpoint gives the same ids and text in Hugging Face's library`, async () => {
    const files = await savedFiles(tokenizer);
    // What AutoTokenizer needs: without a class it takes that of the model's type.
    assert.deepEqual(files[1], {
      tokenizer_class: "PreTrainedTokenizerFast",
      clean_up_tokenization_spaces: false,
    });
    // Python's reader refuses a part with a field missing, JavaScript's does not.
    for (const part of ["pre_tokenizer", "decoder"] as const) {
      const { type, ...rest } = (files[0] as TokenizerJson)[part] ?? { type: "Fuse" };
      const wanted = ["add_prefix_space", "trim_offsets", "use_regex"];
      assert.deepEqual(Object.keys(rest), type === "ByteLevel" ? wanted : [], part);
    }
    const theirs = new HuggingFaceTokenizer(...files);
    const rng = new Rng(seed, kind);
    for (const text of [excerpt.slice(0, 20_000), ...foreign]) expectSame(tokenizer, theirs, text);
    for (let i = 0; i < 50; i++) expectSame(tokenizer, theirs, randomText(rng, 1 + rng.below(60)));
    // Cut in the middle of characters, which makes U+FFFD.
    const ids = [...tokenizer.encode("🐋鯨é")];
    for (let n = 1; n < ids.length; n++) {
      assert.equal(tokenizer.decode(ids.slice(n)), theirs.decode(ids.slice(n)));
    }
  });

  Deno.test(`${kind}: saving, loading and training again change nothing`, () => {
    const loaded = loadTokenizer(JSON.parse(saved));
    assert.equal(loaded.kind, kind);
    assert.equal(loaded.vocabSize, tokenizer.vocabSize);
    assert.equal(JSON.stringify(loaded), saved);
    const again = createTokenizer(kind, excerpt, { vocabSize: 1000 });
    assert.equal(JSON.stringify(again), saved);
    for (const text of foreign) assert.deepEqual(loaded.encode(text), tokenizer.encode(text));
  });

  Deno.test(`${kind}: text it was trained on comes back`, () => {
    const ids = tokenizer.encode(excerpt);
    assert.equal(tokenizer.decode(ids), excerpt);
    assert.ok(ids.every((id) => id >= 0 && id < tokenizer.vocabSize));
    for (const bad of [-1, tokenizer.vocabSize, 0.5]) {
      assert.throws(() => tokenizer.decode([bad]), RangeError);
    }
  });
}

Deno.test("byte ids are bytes, char ids follow the code points", () => {
  const byte = createTokenizer("byte", "", { vocabSize: 0 });
  assert.deepEqual([...byte.encode("aé")], [97, 0xc3, 0xa9]);
  const char = createTokenizer("char", "ba🐋a", { vocabSize: 0 });
  assert.equal(char.vocabSize, 4);
  assert.deepEqual([...char.encode("ab🐋?")], [1, 2, 3, 0]);
  assert.equal(char.decode([1, 0]), "a\ufffd");
});

/** The pairs that training from scratch at every step would merge. */
function mergeNaively(text: string, vocabSize: number): string[] {
  const words: number[][][] = [];
  forEachWord(
    text,
    (word) => words.push([...new TextEncoder().encode(word)].map((byte) => [byte])),
  );
  const ids = new Map<string, number>();
  for (let byte = 0; byte < 256; byte++) ids.set(String(byte), byte);
  const merges = new Set<string>();
  while (ids.size < vocabSize) {
    const counts = new Map<string, number>();
    for (const word of words) {
      for (let i = 0; i + 1 < word.length; i++) {
        const key = `${ids.get(word[i].join())} ${ids.get(word[i + 1].join())}`;
        counts.set(key, (counts.get(key) ?? 0) + 1);
      }
    }
    const rank = ([key, count]: [string, number]) => {
      const [left, right] = key.split(" ").map(Number);
      return [-count, left, right];
    };
    const [best, count] = [...counts].sort((a, b) => {
      const x = rank(a), y = rank(b);
      return x[0] - y[0] || x[1] - y[1] || x[2] - y[2];
    })[0] ?? ["", 0];
    if (count < 2) break;
    merges.add(best);
    const [left, right] = best.split(" ").map(Number);
    for (const word of words) {
      for (let i = 0; i + 1 < word.length; i++) {
        if (ids.get(word[i].join()) === left && ids.get(word[i + 1].join()) === right) {
          word.splice(i, 2, [...word[i], ...word[i + 1]]);
          if (!ids.has(word[i].join())) ids.set(word[i].join(), ids.size);
        }
      }
    }
  }
  return [...merges];
}

Deno.test("bpe learns the merges of naive training", () => {
  const rng = new Rng(seed, "bpe");
  const texts = Array.from({ length: 20 }, () => randomText(rng, 300));
  for (const text of [...texts, excerpt.slice(0, 1500), "aaaaaaaaa aaaaaaa aaaa"]) {
    const { tokens, merges } = trainBpe([text], 320);
    const pairs = merges.map((key) => `${Math.floor(key / PAIR)} ${key % PAIR}`);
    assert.deepEqual(pairs, mergeNaively(text, 320), `seed ${seed}: ${text.slice(0, 60)}`);
    assert.equal(new Set(tokens).size, tokens.length);
  }
});

Deno.test("bpe stops where nothing repeats and refuses impossible sizes", () => {
  assert.equal(createTokenizer("bpe", "abcdefg", { vocabSize: 400 }).vocabSize, 256);
  for (const vocabSize of [0, 255, 300.5, 2 ** 21]) {
    assert.throws(() => createTokenizer("bpe", "text", { vocabSize }), RangeError);
  }
});

Deno.test("bpe encodes one very long word without delay", () => {
  const tokenizer = createTokenizer("bpe", excerpt, { vocabSize: 600 });
  const word = excerpt.replace(/[^a-z]/g, "").repeat(3);
  const start = performance.now();
  assert.equal(tokenizer.decode(tokenizer.encode(word)), word);
  assert.ok(performance.now() - start < 5000);
});

Deno.test("a foreign or damaged tokenizer.json is refused in one line", () => {
  const saved = JSON.stringify(createTokenizer("bpe", excerpt, { vocabSize: 260 }));
  const damage: ((json: Record<string, unknown>, model: Record<string, unknown>) => void)[] = [
    (json) => delete json.model,
    (_, model) => model.type = "WordPiece",
    (json) => json.added_tokens = [{ id: 0, content: "<s>" }],
    (json) => json.normalizer = { type: "NFC" },
    (json) => json.pre_tokenizer = null,
    (_, model) => model.vocab = {},
    (_, model) => (model.vocab as Record<string, number>).a = 1000,
    (_, model) => delete model.merges,
    (_, model) => (model.merges as string[]).push("q zz"),
    (_, model) => model.merges = [7],
  ];
  for (const change of damage) {
    const json = JSON.parse(saved);
    change(json, json.model);
    assert.throws(
      () => loadTokenizer(json),
      (error) =>
        error instanceof UserError && /^Cannot read tokenizer.json: .*[^.]$/.test(error.message),
      String(change),
    );
  }
});
