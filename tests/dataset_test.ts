import assert from "node:assert/strict";
import { taskNames } from "../src/config/checks.ts";
import { openDataset } from "../src/data/dataset.ts";
import { unigramEntropy } from "../src/data/entropy.ts";
import { excerpt, excerptPath, options, seed, withFiles } from "./data_case.ts";
import { refuses } from "./user_error.ts";

Deno.test("training batches cover the text once an epoch, in another order each epoch", async () => {
  const dataset = await openDataset(options({ batchSize: 1, seqLen: 1000 }));
  const text = dataset.tokenizer!.encode(excerpt.slice(0, Math.floor(excerpt.length * 0.9)));
  const windows = Math.floor((text.length - 1) / 1000) - 1;
  const places: number[][] = [];
  for (let epoch = 0; epoch < 3; epoch++) {
    const starts: number[] = [];
    for (let i = 0; i < windows; i++) {
      const { tokens, targets, count } = dataset.batch("train", epoch * windows + i);
      assert.equal(count, 1000);
      assert.deepEqual(tokens.subarray(1), targets.subarray(0, -1));
      const start = text.findIndex((_, at) => tokens.every((id, j) => id === text[at + j]));
      assert.ok(start >= 0, `seed ${seed}: window ${i} is not in the text`);
      assert.equal(targets[999], text[start + 1000]);
      starts.push(start);
    }
    places.push(starts);
    const sorted = [...starts].sort((a, b) => a - b);
    for (let i = 1; i < windows; i++) assert.equal(sorted[i] - sorted[i - 1], 1000, `seed ${seed}`);
  }
  assert.notDeepEqual(places[0], places[1], `seed ${seed}`);
  assert.ok(new Set(places.map((starts) => Math.min(...starts))).size > 1, `seed ${seed}`);
});

Deno.test("validation batches cover every token of the last tenth once", async () => {
  const dataset = await openDataset(options({ batchSize: 7, seqLen: 93 }));
  const text = dataset.tokenizer!.encode(excerpt.slice(Math.floor(excerpt.length * 0.9)));
  const targets: number[] = [];
  for (let i = 0; i < dataset.validationBatches; i++) {
    const batch = dataset.batch("validation", i);
    assert.equal(batch.tokens.length, 7 * 93);
    const scored = [...batch.targets].filter((target) => target >= 0);
    assert.equal(batch.count, scored.length);
    assert.ok(batch.count > 0);
    targets.push(...scored);
  }
  assert.deepEqual(targets, [...text.subarray(1)]);
  assert.throws(() => dataset.batch("validation", dataset.validationBatches), RangeError);
});

for (const data of [excerptPath, ...taskNames]) {
  const name = data === excerptPath ? "text" : data;

  Deno.test(`${name}: a batch depends on seed, split and index only`, async () => {
    const [a, b, other] = await Promise.all(
      [seed, seed, seed + 1].map((seed) => openDataset(options({ data, seed, seqLen: 40 }))),
    );
    // The two are asked in different orders.
    const indices = [0, 1, 999, 5, 2 ** 20, 3];
    const first = indices.map((i) => a.batch("train", i));
    const second = indices.toReversed().map((i) => b.batch("train", i)).reverse();
    assert.deepEqual(first, second, `seed ${seed}`);
    assert.deepEqual(a.batch("validation", 1), b.batch("validation", 1), `seed ${seed}`);
    assert.notDeepEqual(a.batch("train", 0), a.batch("train", 1), `seed ${seed}`);
    assert.notDeepEqual(a.batch("train", 0), a.batch("validation", 0), `seed ${seed}`);
    assert.notDeepEqual(a.batch("train", 0).tokens, other.batch("train", 0).tokens);
    for (const bad of [-1, 0.5, NaN]) assert.throws(() => a.batch("train", bad), RangeError);
    for (const { tokens, targets, count } of first) {
      assert.ok(tokens.every((id) => id >= 0 && id < a.vocabSize));
      assert.ok(targets.every((id) => id >= -1 && id < a.vocabSize));
      assert.equal(count, targets.filter((id) => id >= 0).length);
    }
  });
}

Deno.test("vocabulary and unigram entropy belong to the text", async () => {
  const byte = await openDataset(options());
  assert.ok(byte.unigramEntropy! > 2.5 && byte.unigramEntropy! < 3.5);
  const bpe = await openDataset(options({ tokenizer: "bpe", vocabSize: 800 }));
  assert.equal(bpe.vocabSize, 800);
  const reused = await openDataset(
    options({ tokenizerJson: JSON.parse(JSON.stringify(bpe.tokenizer)), seed }),
  );
  assert.deepEqual(reused.batch("train", 4), bpe.batch("train", 4));
});

Deno.test("a text shorter than a sequence is refused with its numbers", async () => {
  await refuses(
    () => openDataset(options({ seqLen: 200_000 })),
    /seqLen=200000.*107\d\d\d tokens.* or seqLen=10[67]\d\d\d/,
  );
  await withFiles(
    { "short.txt": "Call me" },
    (folder) =>
      refuses(() => openDataset(options({ data: `${folder}/short.txt` })), /a longer text$/),
  );
});

Deno.test("the cut between the splits leaves characters whole", () =>
  withFiles({ "whales.txt": "🐋".repeat(15) }, async (folder) => {
    const dataset = await openDataset(
      options({ data: `${folder}/whales.txt`, tokenizer: "char", seqLen: 8 }),
    );
    const { tokens, targets, bytes } = dataset.batch("validation", 0);
    assert.equal(dataset.tokenizer!.decode([tokens[0], targets[0]]), "🐋🐋");
    assert.equal(bytes, 4);
  }));

Deno.test("the least text of one window can be trained on", () =>
  withFiles({ "least.txt": "0123456789012345678" }, async (folder) => {
    const dataset = await openDataset(options({ data: `${folder}/least.txt`, seqLen: 16 }));
    assert.equal(dataset.batch("train", 12).count, 3 * 16);
    assert.equal(dataset.validationBatches, 1);
    assert.equal(dataset.batch("validation", 0).count, 1);
  }));

Deno.test("unigram entropy", () => {
  assert.equal(unigramEntropy([2, 2, 2], 3), 0);
  assert.ok(Math.abs(unigramEntropy([0, 1, 2, 3], 5) - Math.log(4)) < 1e-12);
  assert.ok(Math.abs(unigramEntropy([0, 0, 0, 1], 2) - 0.5623351446) < 1e-9);
  assert.throws(() => unigramEntropy([], 3), RangeError);
  assert.throws(() => unigramEntropy([3], 3), RangeError);
});
