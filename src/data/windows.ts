import { UserError } from "../errors.ts";
import { Rng } from "../rng.ts";
import type { TokenIds, ValidationDocument } from "./encode_text.ts";

/** A document of the validation split, and what of it is scored: all but its first token. */
export interface DocumentWindows {
  /** Null where the text has no documents. */
  readonly name: string | null;
  /** Sequences, one after the other; the last one may be shorter. */
  readonly windows: number;
  /** Scored tokens. */
  readonly tokens: number;
  /** Bytes of the text that they stand for. */
  readonly bytes: number;
}

/**
 * Windows of `seqLen + 1` ids, so that every one of `seqLen` ids has its next one.
 *
 * Training takes windows that do not overlap, all once an epoch in a new random order; each epoch
 * also begins at a random place, so that the cuts fall elsewhere. Validation takes all windows in
 * the order of the text, document by document, the last one of each shorter.
 */
export class Windows {
  readonly #train: TokenIds;
  readonly #validation: TokenIds;
  readonly #validationBytes: readonly number[];
  readonly #documents: readonly ValidationDocument[];
  /** The window that each document begins with, and behind them the number of all. */
  readonly #firstWindows: readonly number[];
  readonly #seqLen: number;
  readonly #seed: number;
  /** Windows of an epoch. */
  readonly trainWindows: number;
  readonly validationWindows: number;
  #epoch = -1;
  #start = 0;
  #order: Int32Array;

  /** @throws {UserError} if a split is too short for a window */
  constructor(
    { name, train, validation, documents, validationBytes, seqLen, seed }: {
      name: string;
      train: TokenIds;
      validation: TokenIds;
      /** What `validation` consists of. */
      documents: readonly ValidationDocument[];
      /** Bytes of the text that the ids of each window of `validation` stand for, but the first. */
      validationBytes: readonly number[];
      seqLen: number;
      seed: number;
    },
  ) {
    const firstWindows = [0];
    for (const { begin, end } of documents) {
      // A document of one token has nothing to be scored.
      const windows = Math.max(0, Math.ceil((end - begin - 1) / seqLen));
      firstWindows.push(firstWindows.at(-1)! + windows);
    }
    this.validationWindows = firstWindows.at(-1)!;
    if (train.length <= seqLen || this.validationWindows === 0) {
      throw new UserError(
        `Cannot use data=${name} with seqLen=${seqLen}: the text has only ${train.length} tokens ` +
          `for training and ${validation.length} for validation; use a longer text` +
          (train.length > 2 && validation.length > 1 ? ` or seqLen=${train.length - 1}` : ""),
      );
    }
    this.#train = train;
    this.#validation = validation;
    this.#validationBytes = validationBytes;
    this.#documents = documents;
    this.#firstWindows = firstWindows;
    this.#seqLen = seqLen;
    this.#seed = seed;
    const whole = Math.floor((train.length - 1) / seqLen);
    // One window is given up so that the start can move by a whole window.
    this.trainWindows = Math.max(1, whole - 1);
    this.#order = new Int32Array(this.trainWindows);
  }

  /** The training window of a sample, counted from 0 over all epochs. Not a copy. */
  train(sample: number): TokenIds {
    const epoch = Math.floor(sample / this.trainWindows);
    if (epoch !== this.#epoch) this.#enter(epoch);
    const begin = this.#start + this.#order[sample % this.trainWindows] * this.#seqLen;
    return this.#train.subarray(begin, begin + this.#seqLen + 1);
  }

  /** A validation window: at most `seqLen + 1` ids, none past its document's end. Not a copy. */
  validation(window: number): TokenIds {
    const document = this.#documentOf(window);
    if (document === null) return this.#validation.subarray(0, 0);
    const { begin, end } = this.#documents[document];
    const from = begin + (window - this.#firstWindows[document]) * this.#seqLen;
    return this.#validation.subarray(from, Math.min(end, from + this.#seqLen + 1));
  }

  /** What the validation windows are of, in their order. */
  documents(): DocumentWindows[] {
    return this.#documents.map(({ name, begin, end }, i) => {
      const [first, last] = [this.#firstWindows[i], this.#firstWindows[i + 1]];
      let bytes = 0;
      for (let window = first; window < last; window++) bytes += this.validationBytes(window);
      return { name, windows: last - first, tokens: Math.max(0, end - begin - 1), bytes };
    });
  }

  /** The document of a validation window; null past the last window. */
  #documentOf(window: number): number | null {
    if (window >= this.validationWindows) return null;
    let [low, high] = [0, this.#documents.length];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.#firstWindows[middle] <= window) low = middle;
      else high = middle;
    }
    return low;
  }

  /** Bytes of the text that a validation window's ids stand for, all but the first. */
  validationBytes(window: number): number {
    return this.#validationBytes[window] ?? 0;
  }

  #enter(epoch: number): void {
    const rng = new Rng(this.#seed, `epoch ${epoch}`);
    const slack = this.#train.length - 1 - this.trainWindows * this.#seqLen;
    this.#start = rng.below(slack + 1);
    for (let i = 0; i < this.#order.length; i++) this.#order[i] = i;
    rng.shuffle(this.#order);
    this.#epoch = epoch;
  }
}
