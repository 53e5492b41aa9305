/** Linear probes of rows whose information is known. */
import assert from "node:assert/strict";
import type { Batch } from "../src/data/dataset.ts";
import { Probe } from "../src/measure/density/probe.ts";
import { classesOf, earlierLabels, probeTokens } from "../src/measure/density/probed_tokens.ts";
import { initialParameters } from "../src/model/parameters.ts";
import { denseView } from "../src/model/stage_view.ts";
import { type Device, openDevice } from "../src/open_device.ts";
import { Rng } from "../src/rng.ts";
import { config, options } from "./oracle_case.ts";

const ROWS = 2048;

/** Rows of so many numbers, each made by `value`. */
function rowsOf(cols: number, value: (row: number, col: number) => number): Float32Array {
  return Float32Array.from(
    { length: ROWS * cols },
    (_, i) => value(Math.floor(i / cols), i % cols),
  );
}

function near(got: number, want: number, tolerance: number, what: string): void {
  assert(Math.abs(got - want) <= tolerance, `${what}: ${got}, not ${want}`);
}

async function probed(
  device: Device,
  labels: Int32Array,
  { cols, classes, value }: {
    cols: number;
    classes: number;
    value: (row: number, col: number) => number;
  },
) {
  using probe = await Probe.open(device, { rows: ROWS, cols, classes });
  return (await probe.bits(rowsOf(cols, value), labels, { seed: 1 }))!;
}

Deno.test("probes find what rows hold, and nothing where they hold nothing", async (t) => {
  using device = await openDevice("auto");
  const rng = new Rng(3, "labels");
  // Label 0 half of the time, label 1 a quarter, 2 and 3 an eighth each: 1.75 bits.
  const labels = Int32Array.from(
    { length: ROWS },
    () => [0, 0, 0, 0, 1, 1, 2, 3][rng.below(8)],
  );
  const known = { cols: 4, classes: 4 };

  await t.step("a code of the label holds all of it", async () => {
    const value = (row: number, col: number) => Number(labels[row] === col);
    const { entropy, bits, control } = await probed(device, labels, { ...known, value });
    near(entropy, 1.75, 0.05, "entropy");
    near(bits, entropy, 0.01, "bits");
    near(control, 0, 0.02, "control");
  });

  await t.step("whether it is 0 is one bit", async () => {
    const value = (row: number, col: number) => Number(col === 2 && labels[row] > 0);
    const { entropy, bits, control } = await probed(device, labels, { ...known, value });
    near(bits, 1, 0.03, "bits");
    assert(bits < entropy - 0.5);
    near(control, 0, 0.02, "control");
  });

  await t.step("noise holds nothing, and neither do constants", async () => {
    const noise = new Rng(4, "noise");
    const value = () => noise.normal();
    const { bits, control } = await probed(device, labels, { cols: 32, classes: 4, value });
    near(bits, 0, 0.03, "noise");
    near(control, 0, 0.03, "its control");
    const none = await probed(device, labels, { ...known, value: () => 1 });
    near(none.bits, 0, 0.01, "constants");
    assert(none.bits <= 0, "how often labels occur tells nothing");
  });

  await t.step("what it has not seen counts alone: what misleads there is below 0", async () => {
    const last = 3 / 4 * ROWS;
    const value = (row: number, col: number) =>
      Number((row < last ? labels[row] : (labels[row] + 1) % 4) === col);
    const { bits } = await probed(device, labels, { ...known, value });
    assert(bits < -1, `${bits}`);
  });

  await t.step("rows without a label count nothing, and too few labels are no answer", async () => {
    const half = labels.map((label, row) => row % 2 ? label : -1);
    const value = (row: number, col: number) => Number((row % 2 ? labels[row] : 3) === col);
    const { entropy, bits } = await probed(device, half, { ...known, value });
    near(bits, entropy, 0.01, "bits");
    using probe = await Probe.open(device, { rows: ROWS, ...known });
    const few = labels.map((label, row) => row < 3 ? label : -1);
    assert.equal(await probe.bits(rowsOf(4, value), few, { seed: 1 }), null);
  });

  await t.step("again gives the same bits, bit for bit, whatever came before", async () => {
    using probe = await Probe.open(device, { rows: ROWS, ...known });
    const rows = rowsOf(4, (row, col) => Math.sin(row * (1 + labels[row]) + col));
    const first = await probe.bits(rows, labels, { seed: 1 });
    const other = await probe.bits(rows.toReversed(), labels, { seed: 2 });
    assert.deepEqual(await probe.bits(rows, labels, { seed: 1 }), first);
    assert.notDeepEqual(other, first);
  });
});

Deno.test("labels are the most frequent tokens, and those before them in the sequence", () => {
  const tokens = Int32Array.of(5, 1, 5, 9, 9, 5);
  const all = classesOf(tokens, 3);
  assert.deepEqual([[...all.labels], all.classes, all.other], [[0, 2, 0, 1, 1, 0], 3, 0]);
  const some = classesOf(tokens, 2);
  assert.deepEqual([[...some.labels], some.classes, some.other], [[0, 1, 0, 1, 1, 0], 2, 0.5]);
  const labels = Int32Array.of(3, 4, 5, 6, 7, 8);
  assert.deepEqual([...earlierLabels(labels, 3, 0)], [3, 4, 5, 6, 7, 8]);
  assert.deepEqual([...earlierLabels(labels, 3, 1)], [-1, 3, 4, -1, 6, 7]);
  assert.deepEqual([...earlierLabels(labels, 3, 4)], [-1, -1, -1, -1, -1, -1]);
});

Deno.test("latents of the first layer hold their token and none before it, those of the next do", async () => {
  const c = config({
    ...{ vocabSize: 8, seqLen: 64, batchSize: 16, numHiddenLayers: 2, window: 2, recipe: "dense" },
    ...{ seed: 9, kvLoraRank: 16, hiddenSize: 32, intermediateSize: 32 },
  });
  using device = await openDevice("auto");
  using engine = await device.open({
    ...options(c, denseView),
    ...{ initial: initialParameters(c), trained: [] },
  });
  const rng = new Rng(5, "tokens");
  const batches = Array.from({ length: 2 }, (): Batch => {
    const tokens = Int32Array.from({ length: 1024 }, () => rng.below(8));
    return { tokens, targets: tokens, count: 1024 };
  });
  const stage = c.stages[0];
  const found = await probeTokens(engine, { config: c, stage, batches, device });
  assert.deepEqual([found.rows, found.classes, found.other], [2048, 8, 0]);
  assert.deepEqual(found.layers.map((probes) => probes.map(({ distance }) => distance)), [
    [0, 1, 2, 4],
    [0, 1, 2, 4],
  ]);
  const [first, second] = found.layers.map((probes) => probes.map(({ bits }) => bits));
  near(first[0], 3, 0.02, "the token itself");
  for (const bits of first.slice(1)) near(bits, 0, 0.03, "others");
  assert(second[0] > 0.5 && second[1] > 0.1, `${second}`);
  // A window of two tokens reaches no further in one layer.
  for (const bits of second.slice(2)) near(bits, 0, 0.03, "beyond the window");
  for (const { control } of found.layers.flat()) near(control, 0, 0.03, "control");
});
