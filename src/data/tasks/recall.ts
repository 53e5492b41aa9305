import { UserError } from "../../errors.ts";
import type { Rng } from "../../rng.ts";
import {
  type Answer,
  makeExample,
  requireOption,
  type Task,
  type VocabularyOptions,
} from "./task.ts";

/** Options of {@linkcode recall}. */
export interface RecallOptions extends VocabularyOptions {
  /** Key-value pairs of a sequence; null: as many as fit. */
  numPairs: number | null;
  /**
   * Where the questions stand: slot x behind the pairs is taken with a weight of x^(powerA − 1), as
   * words of a text come back the more rarely the longer they were not seen. 1: anywhere alike.
   */
  powerA: number;
}

const FILLER = 0;

/**
 * Multi-query associative recall, MQAR (Arora et al., "Zoology", 2023, arXiv 2312.04927): after
 * the pairs, every key is asked once, in random order and, by a power law, mostly soon after them.
 * Scored are the values that answer.
 *
 * Tokens: 0 filler, then keys, then values, half each (one value more if `taskVocab` is even). A
 * sequence is `k₁ v₁ … kₙ vₙ`, then slots of two, each a question `k v` or filler `0 0`. Keys are
 * distinct, values may repeat.
 */
export const recall: Task<RecallOptions> = {
  defaults: { taskVocab: 64, numPairs: 8, powerA: 0.01 },
  symbol(id, { taskVocab }) {
    const numKeys = Math.floor((taskVocab - 1) / 2);
    return id === FILLER ? "." : id <= numKeys ? `k${id}` : `v${id - numKeys}`;
  },
  generate(rng, seqLen, options) {
    const { taskVocab, numPairs, powerA } = { ...recall.defaults, ...options };
    requireOption("recall", "taskVocab", taskVocab, 4);
    requireOption("recall", "seqLen", seqLen, 3);
    const numKeys = Math.floor((taskVocab - 1) / 2);
    const firstKey = FILLER + 1, firstValue = firstKey + numKeys;
    const length = seqLen + 1;
    const room = Math.floor(length / 4);
    const n = numPairs ?? Math.min(room, numKeys);
    requireOption("recall", "numPairs", n, 1);
    if (n > numKeys) {
      throw new UserError(
        `Cannot make data=recall with numPairs=${n}: taskVocab=${taskVocab} has only ${numKeys} ` +
          `keys; use numPairs=${numKeys} or taskVocab=${2 * n + 1}`,
      );
    }
    if (n > room) {
      throw new UserError(
        `Cannot make data=recall with numPairs=${n}: pairs and questions take ${4 * n} tokens, ` +
          `more than seqLen=${seqLen}; use numPairs=${room} or seqLen=${4 * n}`,
      );
    }
    const sequence = new Int32Array(length).fill(FILLER);
    const keys = rng.shuffle(Int32Array.from({ length: numKeys }, (_, i) => firstKey + i));
    for (let pair = 0; pair < n; pair++) {
      sequence[2 * pair] = keys[pair];
      sequence[2 * pair + 1] = firstValue + rng.below(taskVocab - firstValue);
    }
    const questions = rng.shuffle(Int32Array.from({ length: n }, (_, pair) => pair));
    const slots = chooseSlots(rng, Math.floor((length - 2 * n) / 2), n, powerA);
    const answers: Answer[] = slots.map((slot, i) => {
      const at = 2 * questions[i], position = 2 * (n + slot);
      sequence[position] = sequence[at];
      sequence[position + 1] = sequence[at + 1];
      return { position, distance: position - (at + 1) };
    });
    return makeExample(sequence, answers);
  },
};

/** `count` of the slots 0 … slots − 1 without repetition, weighted by (slot + 1)^(a − 1), ascending. */
function chooseSlots(rng: Rng, slots: number, count: number, a: number): number[] {
  // The smallest of exponential times with the weights as rates (Efraimidis and Spirakis, 2006).
  const times = Array.from({ length: slots }, (_, slot) => {
    return -Math.log1p(-rng.uniform()) * (slot + 1) ** (1 - a);
  });
  const order = [...times.keys()].sort((x, y) => times[x] - times[y]);
  return order.slice(0, count).sort((x, y) => x - y);
}
