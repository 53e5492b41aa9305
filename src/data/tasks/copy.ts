import {
  type Answer,
  makeExample,
  requireOption,
  type Task,
  type VocabularyOptions,
} from "./task.ts";

/** Options of {@linkcode copy}. */
export interface CopyOptions extends VocabularyOptions {
  /** Symbols of a string; null: half of the sequence, so that there is one string. */
  copyLength: number | null;
}

const SEPARATOR = 0;
const END = 1;
const FIRST_SYMBOL = 2;

/**
 * The copy task: a random string, a separator, the same string. Scored is only the copy.
 *
 * Tokens: 0 separator, 1 end, the rest symbols. A sequence is cut from blocks
 * `s₁ … sₙ 0 s₁ … sₙ 1`, each with a string of its own; every answer is found n positions back.
 */
export const copy: Task<CopyOptions> = {
  defaults: { taskVocab: 64, copyLength: null },
  symbol: (id) => id === SEPARATOR ? "|" : id === END ? ";" : `s${id - FIRST_SYMBOL}`,
  generate(rng, seqLen, options) {
    const { taskVocab, copyLength } = { ...copy.defaults, ...options };
    requireOption("copy", "taskVocab", taskVocab, FIRST_SYMBOL + 2);
    requireOption("copy", "seqLen", seqLen, 2);
    const half = Math.floor(seqLen / 2);
    const length = copyLength ?? half;
    requireOption("copy", "copyLength", length, 1);
    if (length > half) requireOption("copy", "seqLen", seqLen, 2 * length);
    const sequence = new Int32Array(seqLen + 1);
    const answers: Answer[] = [];
    const block = 2 * length + 2;
    for (let i = 0; i <= seqLen; i++) {
      const place = i % block;
      if (place < length) sequence[i] = FIRST_SYMBOL + rng.below(taskVocab - FIRST_SYMBOL);
      else if (place === length) sequence[i] = SEPARATOR;
      else if (place === block - 1) sequence[i] = END;
      else {
        sequence[i] = sequence[i - length - 1];
        answers.push({ position: i - 1, distance: length });
      }
    }
    return makeExample(sequence, answers);
  },
};
