import {
  type Answer,
  makeExample,
  requireOption,
  type Task,
  type VocabularyOptions,
} from "./task.ts";

/** Options of {@linkcode dyck}. */
export interface DyckOptions extends VocabularyOptions {
  /** Most brackets that are open at a time. */
  maxDepth: number;
}

const CLOSE = 0;

/**
 * Brackets of several kinds, well nested (Dyck words; Hewitt et al., 2020, arXiv 2010.07515): which
 * kind does a bracket close? Scored is the kind after each mark that closes one.
 *
 * Tokens: 0 closes, then the kinds. `k` opens a bracket of kind k, `0 k` closes it. The gold position
 * is that of the bracket that is closed.
 */
export const dyck: Task<DyckOptions> = {
  defaults: { taskVocab: 64, maxDepth: 8 },
  symbol: (id) => id === CLOSE ? ")" : `b${id}`,
  generate(rng, seqLen, options) {
    const { taskVocab, maxDepth } = { ...dyck.defaults, ...options };
    requireOption("dyck", "taskVocab", taskVocab, 3);
    requireOption("dyck", "maxDepth", maxDepth, 1);
    requireOption("dyck", "seqLen", seqLen, 2);
    const sequence = new Int32Array(seqLen + 1);
    const open: number[] = [];
    const answers: Answer[] = [];
    for (let i = 0; i <= seqLen;) {
      // The last two tokens close one if none was: a sequence without an answer teaches nothing.
      const must = open.length === maxDepth || i === seqLen - 1 && !answers.length;
      const closes = open.length > 0 && (must || rng.below(2) === 0) && i < seqLen;
      if (closes) {
        const from = open.pop()!;
        sequence[i] = CLOSE;
        sequence[i + 1] = sequence[from];
        answers.push({ position: i, distance: i - from });
        i += 2;
      } else {
        open.push(i);
        sequence[i++] = 1 + rng.below(taskVocab - 1);
      }
    }
    return makeExample(sequence, answers);
  },
};
