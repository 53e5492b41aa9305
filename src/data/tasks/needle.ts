import { UserError } from "../../errors.ts";
import {
  type Answer,
  makeExample,
  requireOption,
  type Task,
  type VocabularyOptions,
} from "./task.ts";

/** Options of {@linkcode needle}. */
export interface NeedleOptions extends VocabularyOptions {
  /** Key-value pairs hidden in the filler; one of them is asked. */
  numNeedles: number;
  /** Values of a key, which answer one after the other. */
  numValues: number;
  /**
   * The share of the filler that stands before each needle, from 0 (at the start) to 1 (right
   * before the question), one number per needle; null: random.
   */
  needleDepths: readonly number[] | null;
}

const NEEDLE = 0;
const QUESTION = 1;
const FIRST_KEY = 2;

/**
 * Needle in a haystack: keys with their values are hidden in random filler, and at the end one key is
 * asked. Scored are only its values, at the last positions.
 *
 * Tokens: 0 needle mark, 1 question mark, then keys, values (a quarter of the rest each) and
 * filler. A sequence is `filler … 0 k v … filler … 1 k`, and the answer v its last target; with
 * `numValues` above 1 each needle is `0 k v v …`, and all but the last answer stand in the sequence.
 * Keys are distinct, values may repeat.
 */
export const needle: Task<NeedleOptions> = {
  defaults: { taskVocab: 64, numNeedles: 1, numValues: 1, needleDepths: null },
  symbol(id, { taskVocab }) {
    const quarter = Math.floor((taskVocab - FIRST_KEY) / 4);
    const [kind, of] = [Math.floor((id - FIRST_KEY) / quarter), (id - FIRST_KEY) % quarter];
    if (id < FIRST_KEY) return id === NEEDLE ? "!" : "?";
    return kind === 0 ? `k${of}` : kind === 1 ? `v${of}` : `x${id - FIRST_KEY - 2 * quarter}`;
  },
  generate(rng, seqLen, options) {
    const { taskVocab, numNeedles, needleDepths, numValues } = { ...needle.defaults, ...options };
    requireOption("needle", "numValues", numValues, 1);
    requireOption("needle", "taskVocab", taskVocab, FIRST_KEY + 8);
    requireOption("needle", "numNeedles", numNeedles, 1);
    const quarter = Math.floor((taskVocab - FIRST_KEY) / 4);
    const firstValue = FIRST_KEY + quarter, firstFiller = firstValue + quarter;
    const ofNeedle = 2 + numValues;
    const fillers = seqLen - 1 - numValues - ofNeedle * numNeedles;
    if (fillers < 0) {
      throw new UserError(
        `Cannot make data=needle with numNeedles=${numNeedles}: they do not fit seqLen=${seqLen}; ` +
          `use seqLen=${ofNeedle * numNeedles + 1 + numValues} or more`,
      );
    }
    if (numNeedles > quarter) {
      throw new UserError(
        `Cannot make data=needle with numNeedles=${numNeedles}: taskVocab=${taskVocab} has only ` +
          `${quarter} keys; use taskVocab=${4 * numNeedles + FIRST_KEY} or more`,
      );
    }
    const before = placeNeedles(needleDepths, numNeedles, fillers) ??
      Array.from({ length: numNeedles }, () => rng.below(fillers + 1)).sort((a, b) => a - b);
    const keys = rng.shuffle(Int32Array.from({ length: quarter }, (_, i) => FIRST_KEY + i));
    const asked = rng.below(numNeedles);
    const sequence = new Int32Array(seqLen + 1);
    let at = 0, filled = 0, answerAt = 0;
    for (let i = 0; i <= numNeedles; i++) {
      for (const end = i < numNeedles ? before[i] : fillers; filled < end; filled++) {
        sequence[at++] = firstFiller + rng.below(taskVocab - firstFiller);
      }
      if (i === numNeedles) break;
      sequence[at++] = NEEDLE;
      sequence[at++] = keys[i];
      if (i === asked) answerAt = at;
      for (let value = 0; value < numValues; value++) {
        sequence[at++] = firstValue + rng.below(quarter);
      }
    }
    sequence[at++] = QUESTION;
    sequence[at++] = keys[asked];
    const answers = Array.from({ length: numValues }, (_, value): Answer => {
      sequence[at + value] = sequence[answerAt + value];
      return { position: at + value - 1, distance: at - 1 - answerAt };
    });
    return makeExample(sequence, answers);
  },
};

/** Fillers before each needle, in rising order; null if the depths are not chosen. */
function placeNeedles(
  depths: readonly number[] | null,
  numNeedles: number,
  fillers: number,
): number[] | null {
  if (depths === null) return null;
  if (depths.length !== numNeedles || !depths.every((d) => d >= 0 && d <= 1)) {
    throw new UserError(
      `Cannot make data=needle with needleDepths=${depths}: give a number from 0 to 1 for each ` +
        `of numNeedles=${numNeedles}`,
    );
  }
  return depths.map((depth) => Math.round(depth * fillers)).sort((a, b) => a - b);
}
