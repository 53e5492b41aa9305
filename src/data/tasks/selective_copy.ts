import { UserError } from "../../errors.ts";
import {
  type Answer,
  makeExample,
  requireOption,
  type Task,
  type VocabularyOptions,
} from "./task.ts";

/** Options of {@linkcode selectiveCopy}. */
export interface SelectiveCopyOptions extends VocabularyOptions {
  /** Symbols to copy; null: a quarter of the sequence. */
  copyLength: number | null;
}

const FILLER = 0;
const SEPARATOR = 1;
const FIRST_SYMBOL = 2;

/**
 * Selective copying (Gu and Dao, "Mamba", 2023, arXiv 2312.00752): symbols stand anywhere in filler,
 * then, after a separator, they are to be said in their order, without the filler. Scored is that.
 *
 * Tokens: 0 filler, 1 separator, then symbols. The gold position of an answer is that of the symbol.
 */
export const selectiveCopy: Task<SelectiveCopyOptions> = {
  defaults: { taskVocab: 64, copyLength: null },
  symbol: (id) => id === FILLER ? "." : id === SEPARATOR ? "|" : `s${id - FIRST_SYMBOL}`,
  generate(rng, seqLen, options) {
    const { taskVocab, copyLength } = { ...selectiveCopy.defaults, ...options };
    requireOption("selectiveCopy", "taskVocab", taskVocab, FIRST_SYMBOL + 2);
    requireOption("selectiveCopy", "seqLen", seqLen, 2);
    const n = copyLength ?? Math.max(1, Math.floor(seqLen / 4));
    requireOption("selectiveCopy", "copyLength", n, 1);
    const room = seqLen - n;
    if (room < n) {
      throw new UserError(
        `Cannot make data=selectiveCopy with copyLength=${n}: symbols and their copy take ` +
          `${2 * n + 1} tokens, more than seqLen=${seqLen}; use copyLength=${
            Math.floor(seqLen / 2)
          }`,
      );
    }
    const places = rng.shuffle(Int32Array.from({ length: room }, (_, i) => i)).slice(0, n).sort();
    const sequence = new Int32Array(seqLen + 1).fill(FILLER);
    sequence[room] = SEPARATOR;
    const answers: Answer[] = [];
    places.forEach((place, i) => {
      sequence[place] = FIRST_SYMBOL + rng.below(taskVocab - FIRST_SYMBOL);
      sequence[room + 1 + i] = sequence[place];
      answers.push({ position: room + i, distance: room + i - place });
    });
    return makeExample(sequence, answers);
  },
};
