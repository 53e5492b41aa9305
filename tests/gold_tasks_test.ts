/** Tasks with gold positions: what they ask can be answered from there, and from nowhere else. */
import assert from "node:assert/strict";
import { taskNames } from "../src/config/checks.ts";
import { fields } from "../src/config/config.ts";
import { type DatasetOptions, openDataset } from "../src/data/dataset.ts";
import { counting } from "../src/data/tasks/counting.ts";
import { dyck } from "../src/data/tasks/dyck.ts";
import { induction } from "../src/data/tasks/induction.ts";
import { mqar } from "../src/data/tasks/mqar.ts";
import { multihop } from "../src/data/tasks/multihop.ts";
import { needle } from "../src/data/tasks/needle.ts";
import { selectiveCopy } from "../src/data/tasks/selective_copy.ts";
import { type Example, goldOf } from "../src/data/tasks/task.ts";
import { tasks, taskText } from "../src/data/tasks/tasks.ts";
import { goldHits, meanShare } from "../src/measure/gold_recall.ts";
import { Rng } from "../src/rng.ts";
import { options, seed } from "./data_case.ts";
import { CLI, MODEL, run } from "./train_run.ts";
import { refuses } from "./user_error.ts";

/** What all tasks promise; returns the sequence with its last token. */
function check({ tokens, targets, answers }: Example, seqLen: number, vocab: number): number[] {
  assert.deepEqual([tokens.length, targets.length], [seqLen, seqLen]);
  assert(tokens.every((id) => id >= 0 && id < vocab), `seed ${seed}`);
  const scored = [...targets.keys()].filter((i) => targets[i] !== -1);
  assert.deepEqual(answers.map(({ position }) => position), scored);
  for (const answer of answers) {
    const { position, distance } = answer;
    assert(distance > 0 && distance <= position);
    assert.equal(tokens[position - distance], targets[position], `seed ${seed}`);
    assert(goldOf(answer).includes(position - distance));
    assert(goldOf(answer).every((s) => s >= 0 && s < position));
    if (position + 1 < seqLen) assert.equal(tokens[position + 1], targets[position]);
  }
  return [...tokens, targets[seqLen - 1]];
}

Deno.test("configurations know all tasks, and all have names for their symbols", () => {
  assert.deepEqual(Object.keys(tasks), taskNames);
  const rng = new Rng(seed, "texts");
  for (const name of taskNames) {
    assert(
      fields.data.describe.split(" | ").includes(name),
      `--help does not tell of data=${name}`,
    );
    const { tokens } = tasks[name].generate(rng, 60, {});
    const words = taskText(name, tokens, {}).split(" ");
    assert.equal(words.length, 60);
    // Equal symbols have equal names, and others have others.
    const pairs = new Set(words.map((word, i) => `${word} ${tokens[i]}`));
    assert.equal(pairs.size, new Set(tokens).size, name);
    assert.equal(pairs.size, new Set(words).size, name);
  }
});

Deno.test("a sequence of each task stays as it is: results hang on them", async () => {
  const taskOptions = { taskVocab: 22, numPairs: 2, copyLength: 3, numNeedles: 2, maxDepth: 3 };
  // The sequence, then what each answer is and where its gold positions are.
  const known: Record<string, [text: string, answers: string]> = {
    copy: [
      "s3 s0 s3 | s3 s0 s3 ; s14 s15 s18 | s14 s15 s18 ; s12 s2",
      "s3@0 s0@1 s3@2 s14@8 s15@9 s18@10",
    ],
    recall: ["k3 v6 k6 v11 k6 v11 . . k3 v6 . . . . . . . .", "v11@3 v6@1"],
    needle: ["x1 x7 x1 x7 ! k1 v3 x8 x2 x0 x8 x4 x4 ! k0 v2 ? k1", "v3@6"],
    mqar: ["k4 v7 . . . . . . . . . . k4 v7 k10 v2 k10 v2", "v7@1 v2@15"],
    induction: [
      "x15 x8 x10 x9 a4 x15 a4 x15 x16 x16 x15 x16 a3 x12 x15 x11 a3 x12",
      "x15@5 x12@13",
    ],
    multihop: [". . x5 x9 x11 x1 . . x9 c1 x1 c2 . ? x11 c2 ? x5", "c2@5,11 c1@3,9"],
    selectiveCopy: [". . . . . . s4 . . s9 s15 . . . . | s4 s9", "s4@6 s9@9 s15@10"],
    counting: [
      "w10 w2 w10 w7 w14 w15 w16 w3 w16 w2 w7 w8 w2 w10 w19 w6 w2 ?",
      "w2@1,9,12,16",
    ],
    dyck: [
      "b4 ) b4 b9 ) b9 b6 b11 ) b11 b18 ) b18 b16 ) b16 ) b6",
      "b4@0 b9@3 b11@7 b18@10 b16@13 b6@6",
    ],
  };
  for (const data of taskNames) {
    const given = { data, seqLen: 18, batchSize: 1, seed: 3, taskOptions };
    const { tokens, targets, answers } = (await openDataset(options(given))).batch("train", 5);
    const found = answers!.map((answer) =>
      `${taskText(data, [targets[answer.position]], taskOptions)}@${goldOf(answer)}`
    );
    assert.deepEqual([taskText(data, tokens, taskOptions), found.join(" ")], known[data]);
  }
});

for (const [name, task] of [["mqar", mqar], ["induction", induction]] as const) {
  Deno.test(`${name}: each answer follows its token, as it did before and nowhere else`, () => {
    const rng = new Rng(seed, name);
    for (let trial = 0; trial < 60; trial++) {
      const seqLen = 3 + rng.below(120), taskVocab = 8 + rng.below(60);
      const slots = Math.floor((seqLen + 1) / 2);
      const taskDistance = rng.below(2) ? 2 * (1 + rng.below(slots - 1)) - 1 : null;
      const numPairs = taskDistance === null ? null : 1;
      const example = task.generate(rng, seqLen, { taskVocab, numPairs, taskDistance });
      check(example, seqLen, taskVocab);
      assert(example.answers.length >= 1);
      for (const { position, distance } of example.answers) {
        const asked = [...example.tokens.keys()]
          .filter((i) => example.tokens[i] === example.tokens[position]);
        assert.deepEqual(asked, [position - distance - 1, position], `seed ${seed}`);
        if (taskDistance !== null) assert.equal(distance, taskDistance);
      }
    }
  });

  Deno.test(`${name}: every power of two is asked about alike`, () => {
    const rng = new Rng(seed, `${name}'s distances`);
    const counts = new Array(8).fill(0);
    for (let trial = 0; trial < 3000; trial++) {
      const { answers } = task.generate(rng, 255, { taskVocab: 64, numPairs: 1 });
      counts[Math.floor(Math.log2((answers[0].distance + 1) / 2))]++;
    }
    // Slots 1, 2 to 3, 4 to 7 … 64 to 127 apart: a seventh each.
    const expected = 3000 / 7;
    for (const count of counts.slice(0, 7)) {
      assert(Math.abs(count - expected) < 6 * Math.sqrt(expected), `seed ${seed}: ${counts}`);
    }
  });

  Deno.test(`${name}: also among many pairs, with a large vocabulary`, () => {
    const rng = new Rng(seed, `${name}'s pairs`);
    const counts = new Array(8).fill(0);
    for (let trial = 0; trial < 300; trial++) {
      const { answers } = task.generate(rng, 511, { taskVocab: 512, numPairs: 32 });
      assert.equal(answers.length, 32);
      for (const { distance } of answers) counts[Math.floor(Math.log2((distance + 1) / 2))]++;
    }
    // A quarter of the slots is taken: what is left is not quite even.
    const expected = 300 * 32 / 8;
    for (const count of counts) {
      assert(Math.abs(count / expected - 1) < 0.2, `seed ${seed}: ${counts}`);
    }
  });

  Deno.test(`${name}: as many pairs at one distance as there is room for, in every sequence`, () => {
    const rng = new Rng(seed, `${name}'s room`);
    for (let trial = 0; trial < 200; trial++) {
      const slots = 2 + rng.below(14), steps = 1 + rng.below(slots - 1);
      // Of the slots that are `steps` apart, one after the other, every two are a pair.
      const chains = Array.from({ length: steps }, (_, i) => Math.ceil((slots - i) / steps));
      const room = chains.reduce((sum, length) => sum + Math.floor(length / 2), 0);
      const given = { taskVocab: 128, taskDistance: 2 * steps - 1 };
      const { answers } = task.generate(rng, 2 * slots - 1, { ...given, numPairs: room });
      assert.equal(answers.length, room);
      assert(answers.every(({ distance }) => distance === given.taskDistance));
      const most = task.generate(rng, 2 * slots - 1, { ...given, numPairs: null });
      assert.equal(most.answers.length, room);
    }
  });
}

Deno.test("multihop: following the assignments gives the constant, in as many steps as there are", () => {
  const rng = new Rng(seed, "multihop");
  for (let trial = 0; trial < 60; trial++) {
    const numHops = 1 + rng.below(5), numPairs = 1 + rng.below(3);
    const seqLen = numPairs * (2 * numHops + 3) + rng.below(60);
    const taskVocab = 40 + rng.below(40);
    const example = multihop.generate(rng, seqLen, { taskVocab, numPairs, numHops });
    const sequence = check(example, seqLen, taskVocab);
    assert.equal(example.answers.length, numPairs);
    const front = sequence.slice(0, seqLen + 1 - 3 * numPairs);
    const set = new Map<number, { value: number; at: number }>();
    for (let i = 0; i + 1 < front.length; i += 2) {
      if (front[i] >= 2) set.set(front[i], { value: front[i + 1], at: i + 1 });
    }
    assert.equal(set.size, numPairs * numHops, `seed ${seed}`);
    for (const answer of example.answers) {
      let name = sequence[answer.position];
      const path: number[] = [];
      for (let found = set.get(name); found; found = set.get(name)) {
        path.push(found.at);
        name = found.value;
      }
      assert.equal(name, example.targets[answer.position], `seed ${seed}`);
      assert.deepEqual(path, goldOf(answer));
      assert.equal(path.length, numHops);
    }
  }
});

Deno.test("needle: all values of the asked key answer, one after the other", () => {
  const rng = new Rng(seed, "needle with values");
  for (let trial = 0; trial < 60; trial++) {
    const numNeedles = 1 + rng.below(4), numValues = 1 + rng.below(4);
    const seqLen = (2 + numValues) * numNeedles + 1 + numValues + rng.below(60);
    const example = needle.generate(rng, seqLen, { taskVocab: 60, numNeedles, numValues });
    const sequence = check(example, seqLen, 60);
    assert.equal(example.answers.length, numValues);
    const [first] = example.answers;
    const at = first.position - first.distance;
    assert.deepEqual(
      sequence.slice(at, at + numValues),
      sequence.slice(-numValues),
      `seed ${seed}`,
    );
    assert.deepEqual([sequence[at - 2], sequence[at - 1]], [0, sequence[first.position]]);
  }
});

Deno.test("selective copying: the symbols in their order, without the filler", () => {
  const rng = new Rng(seed, "selective copy");
  for (let trial = 0; trial < 60; trial++) {
    const copyLength = 1 + rng.below(9), seqLen = 2 * copyLength + rng.below(50);
    const example = selectiveCopy.generate(rng, seqLen, { taskVocab: 20, copyLength });
    const sequence = check(example, seqLen, 20);
    const at = sequence.indexOf(1);
    assert.deepEqual(sequence.slice(0, at).filter((id) => id >= 2), sequence.slice(at + 1));
    assert.equal(sequence.length - at - 1, copyLength);
  }
});

Deno.test("counting: the answer came more often than any other, and gold is all of it", () => {
  const rng = new Rng(seed, "counting");
  for (let trial = 0; trial < 100; trial++) {
    const seqLen = 2 + rng.below(40), taskVocab = 3 + rng.below(12);
    const example = counting.generate(rng, seqLen, { taskVocab });
    check(example, seqLen, taskVocab);
    const words = [...example.tokens.subarray(0, -1)];
    const countOf = (word: number) => words.filter((id) => id === word).length;
    const answer = example.targets[seqLen - 1];
    for (const word of new Set(words)) {
      assert(word === answer || countOf(word) < countOf(answer), `seed ${seed}: ${words}`);
    }
    const gold = goldOf(example.answers[0]);
    assert.deepEqual(gold, [...words.keys()].filter((i) => words[i] === answer));
  }
});

Deno.test("counting: every word is as often the answer", () => {
  const rng = new Rng(seed, "counting's answers");
  const counts = new Array(4).fill(0);
  // Three words of four: mostly several are the most frequent.
  for (let trial = 0; trial < 2000; trial++) {
    const { targets } = counting.generate(rng, 4, { taskVocab: 5 });
    counts[targets[3] - 1]++;
  }
  for (const count of counts) {
    assert(Math.abs(count - 500) < 6 * Math.sqrt(500), `seed ${seed}: ${counts}`);
  }
});

Deno.test("dyck: what is closed is what was opened last", () => {
  const rng = new Rng(seed, "dyck");
  for (let trial = 0; trial < 60; trial++) {
    const seqLen = 2 + rng.below(trial % 2 ? 80 : 4), taskVocab = 3 + rng.below(9);
    const maxDepth = 1 + rng.below(6);
    const example = dyck.generate(rng, seqLen, { taskVocab, maxDepth });
    const { tokens, targets, answers } = example;
    check(example, seqLen, taskVocab);
    assert(answers.length > 0, `seed ${seed}: something is asked`);
    const open: number[] = [];
    for (let i = 0; i < seqLen; i++) {
      if (tokens[i] !== 0) {
        open.push(i);
        assert(open.length <= maxDepth, `seed ${seed}`);
        continue;
      }
      const from = open.pop()!;
      assert.equal(targets[i], tokens[from], `seed ${seed}`);
      const answer = answers.find(({ position }) => position === i)!;
      assert.deepEqual(goldOf(answer), [from]);
      i++;
    }
  }
});

Deno.test("of several gold positions each is looked for", () => {
  // The query at 4 selects 0, 2 and 4 of its five keys; that of the second sequence selects all.
  const mask = Int32Array.of(1, 1, 1, 1, 0b10101, 31, 31, 31, 31, 31);
  const answer = { position: 4, distance: 1, gold: [0, 3] };
  const answers = [answer, { ...answer, position: 9 }];
  const hits = goldHits([mask], { answers }, 5);
  assert.deepEqual(hits, [[[true, false], [true, true]]]);
  assert.equal(meanShare(hits[0]), 0.75);
  // A query of the second of two sequences of 70 tokens, three words of bits each.
  const rows = new Int32Array(2 * 70 * 3);
  const selected = [5, 31, 32, 37, 64];
  for (const s of selected) rows[139 * 3 + (s >> 5)] |= 1 << (s & 31);
  const gold = Array.from({ length: 69 }, (_, s) => s);
  const [[found]] = goldHits([rows], { answers: [{ position: 139, distance: 1, gold }] }, 70);
  assert.deepEqual(gold.filter((s) => found[s]), selected);
});

Deno.test("options of tasks that do not fit are refused when the dataset is opened", async () => {
  const cases: [string, DatasetOptions["taskOptions"], RegExp][] = [
    ["mqar", { numPairs: 40 }, /numPairs=40.*only 31 keys; use numPairs=31 or taskVocab=81/],
    ["mqar", { numPairs: 20 }, /numPairs=20: they do not fit seqLen=50; use numPairs=12 or/],
    ["mqar", { taskDistance: 4 }, /taskDistance=4: .*1, 3, 5/],
    ["mqar", { taskDistance: 49, numPairs: 1 }, /taskDistance=49: .*at most 47/],
    [
      "mqar",
      { taskDistance: 47, numPairs: 2 },
      /numPairs=2: .*at this taskDistance; use numPairs=1 or/,
    ],
    ["induction", { numPairs: 17 }, /numPairs=17.*only 16 tokens.*taskVocab=68/],
    ["induction", { taskDistance: 2 }, /taskDistance=2/],
    ["multihop", { numHops: 30, taskVocab: 200 }, /take 126 tokens.*use seqLen=125/],
    ["multihop", { numHops: 5, numPairs: 4, taskVocab: 20 }, /only 13 variables; use taskVocab=29/],
    ["needle", { numValues: 30 }, /seqLen=50; use seqLen=63/],
    ["selectiveCopy", { copyLength: 26 }, /take 53 tokens.*use copyLength=25/],
    ["counting", { taskVocab: 2 }, /taskVocab=2/],
    ["dyck", { maxDepth: 0 }, /maxDepth=0/],
  ];
  for (const [data, taskOptions, message] of cases) {
    await refuses(() => openDataset(options({ data, taskOptions })), message);
  }
});

Deno.test("training tells of a task how a sequence begins", async () => {
  const cwd = await Deno.makeTempDir();
  const task = ["data=mqar", "taskVocab=9", "numPairs=1", "seed=7"];
  const args = [...MODEL, ...task, "recipe=dense", "steps=1", "seqLen=60"];
  const { code, stderr } = await run(CLI, args, cwd);
  assert.equal(code, 0, stderr);
  const taskOptions = { taskVocab: 9, numPairs: 1 };
  const given = options({ data: "mqar", seqLen: 60, seed: 7, taskOptions });
  const { tokens } = (await openDataset(given)).batch("train", 0);
  const text = taskText("mqar", tokens.subarray(0, 60), taskOptions);
  assert.equal(/^sample +(.*) …$/m.exec(stderr)?.[1], text.slice(0, 100), stderr);
  await Deno.remove(cwd, { recursive: true });
});
