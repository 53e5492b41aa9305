/**
 * What generated tasks have in common. A task makes sequences of any length from a random stream,
 * with exact answers: the loss and the accuracy are taken only where the answer is determined.
 *
 * @module
 */
import { UserError } from "../../errors.ts";
import type { Rng } from "../../rng.ts";

/** A place where the answer is determined by an earlier token. */
export interface Answer {
  /** The position that must predict the answer: `targets[position]`. */
  position: number;
  /** How many positions before `position` the token stands that has to be found. */
  distance: number;
  /** Positions of all tokens that have to be found; default: that one. */
  gold?: readonly number[];
}

/** Where the tokens stand that an answer hangs on. */
export function goldOf({ position, distance, gold }: Answer): readonly number[] {
  return gold ?? [position - distance];
}

/** One sequence of a task. */
export interface Example {
  /** `[seqLen]` */
  tokens: Int32Array;
  /** `[seqLen]`: the token that each position must predict, -1 where it is not scored. */
  targets: Int32Array;
  /** The scored positions in rising order. */
  answers: Answer[];
}

/** A task: its options with their defaults, and its generator. */
export interface Task<Options> {
  readonly defaults: Options;
  /**
   * Makes a sequence. All randomness is drawn from `rng`.
   *
   * @throws {UserError} if the options do not fit each other or `seqLen`
   */
  generate(rng: Rng, seqLen: number, options?: Partial<Options>): Example;
  /** A token, for people. */
  symbol(id: number, options: Options): string;
}

/** Options that every task has. */
export interface VocabularyOptions {
  /** Tokens of the task, its marks included. */
  taskVocab: number;
}

/** Options of tasks that can be asked for one distance. */
export interface DistanceOptions {
  /** Positions from an answer's query back to what has to be found; null: drawn. */
  taskDistance: number | null;
}

/**
 * Cuts a sequence of `seqLen + 1` tokens into tokens and next-token targets, -1 except at the
 * answers.
 */
export function makeExample(sequence: Int32Array, answers: Answer[]): Example {
  const targets = new Int32Array(sequence.length - 1).fill(-1);
  for (const { position } of answers) targets[position] = sequence[position + 1];
  return { tokens: sequence.subarray(0, -1), targets, answers };
}

/**
 * Throws unless a task option is an integer of at least `min`.
 *
 * @throws {UserError}
 */
export function requireOption(task: string, name: string, value: number, min: number): void {
  if (!Number.isInteger(value) || value < min) {
    throw new UserError(
      `Cannot make data=${task} with ${name}=${value}: use an integer of at least ${min}`,
    );
  }
}
