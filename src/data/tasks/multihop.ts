import { UserError } from "../../errors.ts";
import {
  type Answer,
  makeExample,
  requireOption,
  type Task,
  type VocabularyOptions,
} from "./task.ts";

/** Options of {@linkcode multihop}. */
export interface MultihopOptions extends VocabularyOptions {
  /** Chains of a sequence, each asked once; null: as many as fit. */
  numPairs: number | null;
  /** Assignments of a chain: 1 is a lookup. */
  numHops: number;
}

const FILLER = 0;
const QUESTION = 1;
const FIRST = 2;

/**
 * Variables that are set to variables: `x y` says that x is y, and the last of a chain is set to a
 * constant. Assignments of all chains stand in random order, then each chain is asked by its first
 * variable; scored is the constant, which takes `numHops` lookups to find.
 *
 * Tokens: 0 filler, 1 question mark, then variables (three quarters of the rest) and constants. A
 * sequence is assignments `x y` and filler `0 0` in slots of two, then questions `1 x c`. Variables are
 * distinct. The gold positions are those of the right-hand sides of the chain, all of them.
 */
export const multihop: Task<MultihopOptions> = {
  defaults: { taskVocab: 64, numPairs: 2, numHops: 2 },
  symbol(id, { taskVocab }) {
    const variables = Math.floor(3 * (taskVocab - FIRST) / 4);
    if (id < FIRST) return id === FILLER ? "." : "?";
    return id < FIRST + variables ? `x${id - FIRST}` : `c${id - FIRST - variables}`;
  },
  generate(rng, seqLen, options) {
    const { taskVocab, numPairs, numHops } = { ...multihop.defaults, ...options };
    requireOption("multihop", "taskVocab", taskVocab, FIRST + 3);
    requireOption("multihop", "numHops", numHops, 1);
    const variables = Math.floor(3 * (taskVocab - FIRST) / 4);
    const length = seqLen + 1;
    const ofChain = 2 * numHops + 3;
    const n = numPairs ??
      Math.max(1, Math.min(Math.floor(length / ofChain), Math.floor(variables / numHops)));
    requireOption("multihop", "numPairs", n, 1);
    if (n * numHops > variables) {
      throw new UserError(
        `Cannot make data=multihop with numPairs=${n} and numHops=${numHops}: taskVocab=${taskVocab} ` +
          `has only ${variables} variables; use taskVocab=${
            Math.ceil(4 * n * numHops / 3) + FIRST
          }`,
      );
    }
    if (n * ofChain > length) {
      throw new UserError(
        `Cannot make data=multihop with numPairs=${n} and numHops=${numHops}: chains and questions ` +
          `take ${n * ofChain} tokens, more than seqLen=${seqLen}; use seqLen=${n * ofChain - 1}`,
      );
    }
    const slots = Math.floor((length - 3 * n) / 2);
    const names = rng.shuffle(Int32Array.from({ length: variables }, (_, i) => FIRST + i));
    const constants = Array.from(
      { length: n },
      () => FIRST + variables + rng.below(taskVocab - FIRST - variables),
    );
    const places = rng.shuffle(Int32Array.from({ length: slots }, (_, i) => i));
    const sequence = new Int32Array(length).fill(FILLER);
    const at = (chain: number, hop: number) => places[chain * numHops + hop];
    for (let chain = 0; chain < n; chain++) {
      for (let hop = 0; hop < numHops; hop++) {
        const [own, next] = [names[chain * numHops + hop], names[chain * numHops + hop + 1]];
        const value = hop === numHops - 1 ? constants[chain] : next;
        sequence.set([own, value], 2 * at(chain, hop));
      }
    }
    const order = rng.shuffle(Int32Array.from({ length: n }, (_, i) => i));
    const answers: Answer[] = [];
    order.forEach((chain, i) => {
      const start = length - 3 * (n - i);
      sequence.set([QUESTION, names[chain * numHops], constants[chain]], start);
      const position = start + 1;
      const gold = Array.from({ length: numHops }, (_, hop) => 2 * at(chain, hop) + 1);
      answers.push({ position, distance: position - gold[numHops - 1], gold });
    });
    return makeExample(sequence, answers);
  },
};
