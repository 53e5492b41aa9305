import { UserError } from "../../errors.ts";
import { mostPairs, Places } from "./places.ts";
import {
  type Answer,
  type DistanceOptions,
  makeExample,
  requireOption,
  type Task,
  type VocabularyOptions,
} from "./task.ts";

/** Options of {@linkcode mqar}. */
export interface MqarOptions extends VocabularyOptions, DistanceOptions {
  /** Key-value pairs of a sequence; null: as many as fit. */
  numPairs: number | null;
}

const FILLER = 0;

/**
 * Multi-query associative recall (Arora et al., 2023, arXiv 2312.04927), balanced over distances:
 * pairs and questions stand anywhere among each other, and how far a question is from its pair is
 * drawn from a uniform law of its logarithm, so that every power of two is asked about alike (in
 * `recall` most questions follow soon). Scored are the values that answer.
 *
 * Tokens: 0 filler, then keys, then values, half each. A sequence is slots of two: a pair `k v`, a
 * question `k v` (its value is the answer), or filler `0 0`. Keys are distinct, values may repeat.
 * The gold position is that of the pair's value.
 */
export const mqar: Task<MqarOptions> = {
  defaults: { taskVocab: 64, numPairs: 8, taskDistance: null },
  symbol(id, { taskVocab }) {
    const numKeys = Math.floor((taskVocab - 1) / 2);
    return id === FILLER ? "." : id <= numKeys ? `k${id}` : `v${id - numKeys}`;
  },
  generate(rng, seqLen, options) {
    const { taskVocab, numPairs, taskDistance } = { ...mqar.defaults, ...options };
    requireOption("mqar", "taskVocab", taskVocab, 3);
    requireOption("mqar", "seqLen", seqLen, 3);
    const numKeys = Math.floor((taskVocab - 1) / 2);
    const slots = Math.floor((seqLen + 1) / 2);
    const steps = taskDistance === null ? null : (taskDistance + 1) / 2;
    if (taskDistance !== null && (taskDistance % 2 === 0 || taskDistance > 2 * slots - 3)) {
      throw new UserError(
        `Cannot make data=mqar with taskDistance=${taskDistance}: a question stands 1, 3, 5 … ` +
          `positions after its value, at most ${
            2 * slots - 3
          } in seqLen=${seqLen}; use an odd number`,
      );
    }
    const n = numPairs ?? Math.min(numKeys, mostPairs(slots, steps));
    requireOption("mqar", "numPairs", n, 1);
    if (n > numKeys) {
      throw new UserError(
        `Cannot make data=mqar with numPairs=${n}: taskVocab=${taskVocab} has only ${numKeys} keys; ` +
          `use numPairs=${numKeys} or taskVocab=${2 * n + 1}`,
      );
    }
    const places = new Places(rng, slots, { task: "mqar", seqLen, count: n, steps });
    const sequence = new Int32Array(seqLen + 1).fill(FILLER);
    const keys = rng.shuffle(Int32Array.from({ length: numKeys }, (_, i) => FILLER + 1 + i));
    const firstValue = FILLER + 1 + numKeys;
    const answers: Answer[] = [];
    for (let pair = 0; pair < n; pair++) {
      const { from, to } = places.take();
      const value = firstValue + rng.below(taskVocab - firstValue);
      sequence.set([keys[pair], value], 2 * from);
      sequence.set([keys[pair], value], 2 * to);
      answers.push({ position: 2 * to, distance: 2 * to - (2 * from + 1) });
    }
    return makeExample(sequence, answers.sort((a, b) => a.position - b.position));
  },
};
