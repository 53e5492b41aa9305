/**
 * Linear probes: what of a token's label can be read off a row of numbers, in bits.
 *
 * @module
 */
import type { Batch } from "../../data/dataset.ts";
import type { Engine, ParameterSpec } from "../../engine.ts";
import type { Device } from "../../open_device.ts";
import { linear } from "../../ops/token/linear.ts";
import { crossEntropy } from "../../ops/token/cross_entropy.ts";
import { Rng } from "../../rng.ts";

/** Of the rows with a label: the first half is trained on, the next quarter says when to stop. */
const TRAINED = 1 / 2, TUNED = 1 / 4;
/** Full-batch steps of AdamW at most, and how many lie between looks at the rows for stopping. */
const MOST_STEPS = 400, LOOK_EVERY = 5;
/** Looks after which a probe stops if they have not gained so many nats. */
const PATIENCE = 4, LEAST_GAIN = 1e-3;
/** Per step; rows are standardised. */
const LEARNING_RATE = 0.02;

/** What a probe finds. */
export interface ProbedBits {
  /** H(y) of the held-out labels, in bits. */
  readonly entropy: number;
  /** H(y) − CE of the probe on the held-out rows, in bits; below 0 where it misleads. */
  readonly bits: number;
  /** The same of a probe for labels shuffled among the rows: about 0, or the rows are too few. */
  readonly control: number;
}

/** Trains probes for the same rows, or others as many. */
export class Probe implements Disposable {
  readonly #engine: Engine;
  readonly #rows: number;
  readonly #cols: number;
  readonly #classes: number;

  private constructor(engine: Engine, [rows, cols, classes]: readonly [number, number, number]) {
    this.#engine = engine;
    this.#rows = rows;
    this.#cols = cols;
    this.#classes = classes;
  }

  /** A probe from `rows` rows of `cols` numbers to one of `classes` labels, 0 and so on. */
  static async open(
    device: Pick<Device, "open">,
    { rows, cols, classes }: { rows: number; cols: number; classes: number },
  ): Promise<Probe> {
    const shape = (name: string, rows: number): ParameterSpec => ({
      ...{ name, rows, cols: cols + 1, shape: [rows, cols + 1], group: name, decay: false },
    });
    const parameters = [shape("rows", rows), shape("probe", classes)];
    const engine = await device.open({
      parameters,
      initial: new Map(parameters.map(({ name, rows, cols }) => [
        name,
        new Float32Array(rows * cols),
      ])),
      loss(parameters, { targets, inverseCount }) {
        const logits = linear(parameters("rows"), parameters("probe"));
        const { loss } = crossEntropy(logits, targets, inverseCount);
        return { losses: [{ tensor: loss, weight: 1 }], metrics: { loss }, logits };
      },
      ...{ batchSize: 1, seqLen: rows, trained: ["probe"], autotune: false },
    });
    return new Probe(engine, [rows, cols, classes]);
  }

  /**
   * Bits of the labels that a linear softmax probe reads off the rows, on rows that it has not seen
   * (Belinkov, "Probing Classifiers", 2022, arXiv:2102.12452), beside a control. It is trained on the
   * first half of the rows with a label, until the loss of the next quarter stops falling, and tested
   * on the last quarter: a lower bound of what the rows tell.
   *
   * @param rows `[rows, cols]`
   * @param labels one a row; -1: none
   * @param seed of the control's shuffling
   * @returns null if there are fewer than four labels
   */
  async bits(
    rows: Float32Array,
    labels: Int32Array,
    { seed }: { seed: number },
  ): Promise<ProbedBits | null> {
    const labelled = [...labels.keys()].filter((row) => labels[row] >= 0);
    if (labelled.length < 4) return null;
    const shuffled = labels.slice();
    const order = new Rng(seed, "shuffled labels of a probe").shuffle([...labelled]);
    labelled.forEach((row, i) => shuffled[row] = labels[order[i]]);
    const features = this.#standardised(rows);
    const own = await this.#heldOut(features, labels, labelled);
    const control = await this.#heldOut(features, shuffled, labelled);
    return { ...own, control: control.bits };
  }

  [Symbol.dispose](): void {
    this.#engine[Symbol.dispose]();
  }

  async #heldOut(
    features: Float32Array,
    labels: Int32Array,
    labelled: readonly number[],
  ): Promise<{ entropy: number; bits: number }> {
    const from = Math.floor(labelled.length * TRAINED);
    const to = from + Math.ceil(labelled.length * TUNED);
    const [train, tune, test] = [
      labelled.slice(0, from),
      labelled.slice(from, to),
      labelled.slice(to),
    ]
      .map((chosen) => this.#batch(labels, chosen));
    const [rows, probe] = [features, this.#start(train)];
    const zeros = new Map([
      ["rows", new Float32Array(rows.length)],
      ["probe", new Float32Array(probe.length)],
    ]);
    const parameters = new Map([["rows", rows], ["probe", probe]]);
    this.#engine.importState({ parameters, m: zeros, v: zeros });
    const nats = async (batch: Batch) => (await this.#engine.evaluate(batch)).loss;
    let least = await nats(tune), loss = await nats(test);
    for (let update = 1, looks = 0; update <= MOST_STEPS && looks < PATIENCE; update++) {
      const numbers = { lr: LEARNING_RATE, weightDecay: 0, clip: 0, update };
      const hyper = { beta1: 0.9, beta2: 0.99, eps: 1e-8, groups: { probe: numbers } };
      this.#engine.step([train], hyper);
      if (update % LOOK_EVERY !== 0) continue;
      await this.#engine.metrics();
      const found = await nats(tune);
      looks = found < least - LEAST_GAIN ? 0 : looks + 1;
      if (looks) continue;
      least = found;
      loss = await nats(test);
    }
    await this.#engine.metrics();
    const entropy = entropyOf(test.targets);
    return { entropy, bits: entropy - loss / Math.LN2 };
  }

  /** Columns of mean 0 and variance 1, constant ones of 0, and a last one of ones. */
  #standardised(rows: Float32Array): Float32Array {
    const [n, cols] = [this.#rows, this.#cols];
    const out = new Float32Array(n * (cols + 1)).fill(1);
    for (let col = 0; col < cols; col++) {
      let sum = 0, squares = 0;
      for (let row = 0; row < n; row++) sum += rows[row * cols + col];
      const mean = sum / n;
      for (let row = 0; row < n; row++) squares += (rows[row * cols + col] - mean) ** 2;
      const scale = squares > 0 ? Math.sqrt(n / squares) : 0;
      for (let row = 0; row < n; row++) {
        out[row * (cols + 1) + col] = (rows[row * cols + col] - mean) * scale;
      }
    }
    return out;
  }

  /** A probe that knows how often the labels occur, and nothing of the rows. */
  #start({ targets }: Batch): Float32Array {
    const counts = new Float64Array(this.#classes).fill(0.5);
    for (const label of targets) if (label >= 0) counts[label]++;
    const start = new Float32Array(this.#classes * (this.#cols + 1));
    const total = counts.reduce((a, b) => a + b);
    counts.forEach((count, i) =>
      start[i * (this.#cols + 1) + this.#cols] = Math.log(count / total)
    );
    return start;
  }

  #batch(labels: Int32Array, chosen: readonly number[]): Batch {
    const targets = new Int32Array(this.#rows).fill(-1);
    for (const row of chosen) targets[row] = labels[row];
    return { tokens: new Int32Array(this.#rows), targets, count: chosen.length };
  }
}

/** Entropy of the labels as they occur, in bits; -1 is none. */
function entropyOf(labels: Int32Array): number {
  const counts = new Map<number, number>();
  let all = 0;
  for (const label of labels) {
    if (label < 0) continue;
    counts.set(label, (counts.get(label) ?? 0) + 1);
    all++;
  }
  return [...counts.values()].reduce((sum, n) => sum - n / all * Math.log2(n / all), 0);
}
