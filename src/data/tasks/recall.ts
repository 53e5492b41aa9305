import { UserError } from "../../errors.ts";
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
}

const FILLER = 0;

/**
 * Multi-query associative recall, MQAR (Arora et al., "Zoology", 2023, arXiv 2312.04927): after
 * the pairs, every key is asked once, in random order and at random places. Scored are the values
 * that answer.
 *
 * Tokens: 0 filler, then keys, then values, half each (one value more if `taskVocab` is even). A
 * sequence is `k₁ v₁ … kₙ vₙ`, then slots of two, each a question `k v` or filler `0 0`. Keys are
 * distinct, values may repeat.
 */
export const recall: Task<RecallOptions> = {
  defaults: { taskVocab: 64, numPairs: 8 },
  generate(rng, seqLen, options) {
    const { taskVocab, numPairs } = { ...recall.defaults, ...options };
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
    const slots = Math.floor((length - 2 * n) / 2);
    const answers: Answer[] = [];
    for (let slot = 0; slot < slots; slot++) {
      const open = n - answers.length;
      // Takes each slot with the chance that makes all choices of n slots equally likely.
      if (rng.below(slots - slot) >= open) continue;
      const pair = questions[answers.length];
      const position = 2 * n + 2 * slot;
      sequence[position] = sequence[2 * pair];
      sequence[position + 1] = sequence[2 * pair + 1];
      answers.push({ position, distance: position - (2 * pair + 1) });
    }
    return makeExample(sequence, answers);
  },
};
