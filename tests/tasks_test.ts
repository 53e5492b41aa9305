import assert from "node:assert/strict";
import { type DatasetOptions, openDataset } from "../src/data/dataset.ts";
import { copy } from "../src/data/tasks/copy.ts";
import { needle } from "../src/data/tasks/needle.ts";
import { recall } from "../src/data/tasks/recall.ts";
import type { Example } from "../src/data/tasks/task.ts";
import { Rng } from "../src/rng.ts";
import { options, seed } from "./data_case.ts";
import { refuses } from "./user_error.ts";

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
