/** Texts in pieces, as large ones are read: everything is the same as of the whole text. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { openCorpus } from "../src/data/corpus.ts";
import { openDataset } from "../src/data/dataset.ts";
import { BpeTokenizer } from "../src/data/tokenizer/bpe_tokenizer.ts";
import { trainBpe } from "../src/data/tokenizer/bpe_training.ts";
import type { TokenizerKind } from "../src/data/tokenizer/tokenizer.ts";
import { createTokenizer } from "../src/data/tokenizer/tokenizers.ts";
import { forEachWord, wholeWords } from "../src/data/tokenizer/words.ts";
import { Rng } from "../src/rng.ts";
import { excerpt, options, seed, withFiles } from "./data_case.ts";
import { refuses } from "./user_error.ts";

const kinds: TokenizerKind[] = ["byte", "char", "bpe"];

/** GPT-2's words as GPT-2 writes them, with Unicode's white space. */
const pattern =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

/** What stands at the edges of words, of pieces and of kinds of characters. */
const edges = [..."slrevmtd'' \t\n\u0085\ufeff\u00a0\u3000a9é鯨²!🐋𝔘𝟗\u0301"];

function randomText(rng: Rng, length: number): string {
  return Array.from({ length }, () => edges[rng.below(edges.length)]).join("");
}

/** Text in pieces of one to `most` characters. */
function inPieces(rng: Rng, text: string, most: number): string[] {
  const characters = [...text];
  const pieces: string[] = [];
  while (characters.length) pieces.push(characters.splice(0, 1 + rng.below(most)).join(""));
  return pieces;
}

function wordsOf(text: string): string[] {
  const words: string[] = [];
  forEachWord(text, (word) => words.push(word));
  return words;
}

Deno.test("words are those of GPT-2's pattern, whole and in pieces", () => {
  const rng = new Rng(seed, "words");
  for (let i = 0; i < 3000; i++) {
    const text = randomText(rng, 1 + rng.below(24));
    const words: string[] = [...text.match(pattern) ?? []];
    const where = `seed ${seed}: ${JSON.stringify(text)}`;
    assert.deepEqual(wordsOf(text), words, where);
    const parts = [...wholeWords(inPieces(rng, text, 1 + rng.below(5)))];
    assert.deepEqual(parts.flatMap(wordsOf), words, where);
  }
  for (const text of ["\ud83d", "a\ud83d b", "\udc0b'", "!\ud835𝔘!\udd18𝔘𝔘"]) {
    assert.deepEqual(wordsOf(text), [...text.match(pattern)!], "half characters");
  }
});

Deno.test("ids, merges and bytes of a text in pieces are those of the whole", () => {
  const rng = new Rng(seed, "pieces");
  for (const kind of kinds) {
    for (let i = 0; i < 20; i++) {
      const text = excerpt.slice(i * 300, i * 300 + 600) + randomText(rng, 200);
      const pieces = inPieces(rng, text, 1 + rng.below(40));
      const whole = createTokenizer(kind, text, { vocabSize: 300 });
      const trained = createTokenizer(kind, pieces, { vocabSize: 300 });
      assert.deepEqual(trained.toJSON(), whole.toJSON(), `seed ${seed}`);
      const parts = [...whole.parts(pieces)];
      const ids = whole.encode(text);
      assert.deepEqual(parts.flatMap((part) => [...whole.encode(part)]), [...ids], `seed ${seed}`);
      assert.deepEqual(
        parts.flatMap((part) => [...whole.byteLengths(part, whole.encode(part))]),
        [...whole.byteLengths(text, ids)],
      );
    }
  }
});

Deno.test("a dataset of files in pieces is that of files at once", () => {
  const rng = new Rng(seed, "files");
  const files = {
    "a.txt": "\ufeff" + excerpt.slice(0, 1500),
    "b.txt": "",
    "c.txt": randomText(rng, 900),
    "d.txt": "鯨🐋".repeat(60) + "\n",
    "e.txt": "é",
  };
  return withFiles(files, async (folder) => {
    const data = join(folder, "*.txt");
    const corpus = await openCorpus(data);
    for (const pieceBytes of [1, 2, 3, 7, 64, 1000]) {
      const large = await openCorpus(data, { pieceBytes, keptBytes: 0 });
      const functions = { pieces: null, parts: null };
      assert.deepEqual({ ...large, ...functions }, { ...corpus, ...functions });
      assert.equal([...large.pieces()].join(""), [...corpus.pieces()].join(""));
      for (const tokenizer of kinds) {
        const asked = { data, tokenizer, vocabSize: 300, seqLen: 16, batchSize: 2 };
        const whole = await openDataset(options(asked));
        const streamed = await openDataset(options({ ...asked, pieceBytes, keptBytes: 0 }));
        assert.deepEqual(streamed.identity, whole.identity);
        assert.equal(streamed.unigramEntropy, whole.unigramEntropy);
        assert.deepEqual(streamed.tokenizer!.toJSON(), whole.tokenizer!.toJSON());
        assert.equal(streamed.validationBatches, whole.validationBatches);
        for (let i = 0; i < whole.validationBatches; i++) {
          assert.deepEqual(streamed.batch("validation", i), whole.batch("validation", i));
        }
        for (let i = 0; i < 40; i++) {
          assert.deepEqual(streamed.batch("train", i), whole.batch("train", i), `seed ${seed}`);
        }
      }
    }
  });
});

Deno.test("a large text that changes while it is read is refused", () =>
  withFiles({ "a.txt": excerpt }, async (folder) => {
    const path = join(folder, "a.txt");
    const changes: [string, RegExp][] = [
      [excerpt.replace("a", "b"), /changes while it is read/],
      [excerpt.slice(1), /changes while it is read/],
      [excerpt + "more", /changes while it is read/],
    ];
    for (const [changed, message] of changes) {
      await Deno.writeTextFile(path, excerpt);
      const corpus = await openCorpus(path, { pieceBytes: 999, keptBytes: 0 });
      await Deno.writeTextFile(path, changed);
      await refuses(() => Promise.resolve().then(() => [...corpus.pieces()]), message);
      await Deno.writeTextFile(path, excerpt);
      const pieces = corpus.pieces()[Symbol.iterator]();
      pieces.next();
      await Deno.writeTextFile(path, changed);
      const rest = () => Promise.resolve().then(() => [...{ [Symbol.iterator]: () => pieces }]);
      // The first piece may have been read before the change.
      if (changed.length !== excerpt.length) await refuses(rest, message);
    }
  }));

Deno.test("characters that are cut off, or broken at the edge of a piece, are not UTF-8", () =>
  withFiles({}, async (folder) => {
    const whale = new TextEncoder().encode("abc🐋");
    for (const bytes of [whale.slice(0, 6), whale.slice(4), whale.with(4, 0x41)]) {
      await Deno.writeFile(join(folder, "x"), bytes);
      for (const pieceBytes of [1, 4, 99]) {
        await refuses(() => openCorpus(join(folder, "x"), { pieceBytes }), /not UTF-8 text/);
      }
    }
  }));

Deno.test("what is no file is refused at once: devices, pipes, sockets, folders, links to nothing", () =>
  withFiles({}, async (folder) => {
    const pipe = join(folder, "pipe");
    await new Deno.Command("mkfifo", { args: [pipe] }).output();
    await Deno.symlink(join(folder, "gone"), join(folder, "link.txt"));
    await Deno.symlink("/dev/zero", join(folder, "zero.txt"));
    await Deno.mkdir(join(folder, "folder.txt"));
    using _socket = Deno.listen({ transport: "unix", path: join(folder, "socket") });
    await refuses(() => openCorpus("/dev/zero"), /^Cannot read \/dev\/zero: it is a device/);
    await refuses(() => openCorpus("/dev/null"), /it is a device/);
    await refuses(() => openCorpus(join(folder, "zero.txt")), /it is a device/);
    await refuses(() => openCorpus(pipe), /it is a pipe/);
    await refuses(() => openCorpus(join(folder, "socket")), /it is a socket/);
    await refuses(() => openCorpus(join(folder, "folder.txt")), /is a folder; .*\*\.txt/);
    await refuses(() => openCorpus(join(folder, "link.txt")), /no such file/);
    await refuses(() => openCorpus(join(folder, "*.txt")), /no file matches/);
    // Reading it would wait for messages.
    if (Deno.build.os === "linux") await refuses(() => openCorpus("/proc/kmsg"), /is empty/);
  }));

Deno.test("long runs without spaces are encoded and learnt, in time and without recursion", () => {
  const rng = new Rng(seed, "runs");
  const tokenizer = createTokenizer("bpe", excerpt, { vocabSize: 300 });
  const hanzi = Array.from(
    { length: 300_000 },
    () => String.fromCodePoint(0x4e00 + rng.below(9e3)),
  );
  const runs = ["a".repeat(2_000_000), " ".repeat(2_000_000), "'".repeat(1e6), hanzi.join("")];
  for (const run of runs) {
    const start = performance.now();
    const ids = tokenizer.encode(run);
    assert.ok(tokenizer.decode(ids) === run);
    const pieces = Array.from(
      { length: 20 },
      (_, i) => run.slice(i * run.length / 20, (i + 1) * run.length / 20),
    );
    const parts = [...tokenizer.parts(pieces)];
    assert.ok(parts.join("") === run);
    BpeTokenizer.train(pieces, 270);
    assert.ok(performance.now() - start < 30_000, "not in the square of its length");
  }
});

Deno.test("a run that memory cannot hold is refused in one line", () => {
  const piece = "a".repeat(2 ** 20);
  const endless = function* () {
    for (;;) yield piece;
  };
  return refuses(
    () => Promise.resolve().then(() => [...wholeWords(endless())]),
    /a run of over 16777216 letters.*; break it up, or use tokenizer=byte/,
  );
});

Deno.test("of more words than are counted at a time the rarest are forgotten", () => {
  const rng = new Rng(seed, "rare");
  const rare = () => Array.from({ length: 8 }, () => "bcdfgh"[rng.below(6)]).join("");
  const text = Array.from({ length: 4000 }, (_, i) => i % 4 ? " whale" : ` ${rare()}`).join("");
  const learnt = trainBpe([text], 261, { mostWords: 50 });
  assert.equal(learnt.tokens.at(-1), "Ġwhale");
  assert.deepEqual(learnt, trainBpe(inPieces(rng, text, 99), 261, { mostWords: 50 }));
  assert.deepEqual(trainBpe([text], 300, { mostWords: 1001 }), trainBpe([text], 300));
});
