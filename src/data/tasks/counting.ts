import { makeExample, requireOption, type Task, type VocabularyOptions } from "./task.ts";

const QUESTION = 0;
const FIRST_WORD = 1;

/**
 * Counting: which word came most often? Words at random, then a question; scored is the answer, of
 * which there is one.
 *
 * Tokens: 0 question mark, then words. A sequence is `w … w 0`, and the answer its last target. The
 * gold positions are those of the word that is asked for, all of them.
 */
export const counting: Task<VocabularyOptions> = {
  defaults: { taskVocab: 64 },
  symbol: (id) => id === QUESTION ? "?" : `w${id}`,
  generate(rng, seqLen, options) {
    const { taskVocab } = { ...counting.defaults, ...options };
    requireOption("counting", "taskVocab", taskVocab, FIRST_WORD + 2);
    requireOption("counting", "seqLen", seqLen, 2);
    const words = taskVocab - FIRST_WORD;
    const sequence = new Int32Array(seqLen + 1);
    const counts = new Array(words).fill(0);
    for (let i = 0; i < seqLen - 1; i++) {
      const word = rng.below(words);
      counts[word]++;
      sequence[i] = FIRST_WORD + word;
    }
    const most = Math.max(...counts);
    // Any of those that came most often, so that no word is the answer more often than others: a
    // place of each of the rest is given to it, until it is alone.
    const [winner, ...ties] = rng.shuffle([...counts.keys()].filter((w) => counts[w] === most));
    for (const word of ties) {
      const places = [...sequence.keys()].filter((i) => sequence[i] === FIRST_WORD + word);
      sequence[places[rng.below(most)]] = FIRST_WORD + winner;
    }
    sequence[seqLen - 1] = QUESTION;
    sequence[seqLen] = FIRST_WORD + winner;
    const gold = [...sequence.keys()]
      .filter((i) => i < seqLen - 1 && sequence[i] === FIRST_WORD + winner);
    const position = seqLen - 1;
    return makeExample(sequence, [{ position, distance: position - gold.at(-1)!, gold }]);
  },
};
