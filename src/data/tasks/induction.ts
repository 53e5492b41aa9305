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

/** Options of {@linkcode induction}. */
export interface InductionOptions extends VocabularyOptions, DistanceOptions {
  /** Tokens that come twice; null: as many as fit. */
  numPairs: number | null;
}

/**
 * Induction at a distance (Olsson et al., 2022, arXiv 2209.11895): random tokens, among them some
 * that come twice; after the second time comes what came after the first. Scored is that.
 *
 * Tokens: a quarter come twice or not at all, the others are anything. A sequence is slots of two,
 * random but for a token `a` and what follows it, twice. How far apart they are is drawn as in
 * `mqar`, or `taskDistance`. The gold position is that of what followed the first time.
 */
export const induction: Task<InductionOptions> = {
  defaults: { taskVocab: 64, numPairs: 8, taskDistance: null },
  symbol(id, { taskVocab }) {
    const marks = Math.floor(taskVocab / 4);
    return id < marks ? `a${id}` : `x${id - marks}`;
  },
  generate(rng, seqLen, options) {
    const { taskVocab, numPairs, taskDistance } = { ...induction.defaults, ...options };
    requireOption("induction", "taskVocab", taskVocab, 4);
    requireOption("induction", "seqLen", seqLen, 3);
    const marks = Math.floor(taskVocab / 4);
    const slots = Math.floor((seqLen + 1) / 2);
    const steps = taskDistance === null ? null : (taskDistance + 1) / 2;
    if (taskDistance !== null && (taskDistance % 2 === 0 || taskDistance > 2 * slots - 3)) {
      throw new UserError(
        `Cannot make data=induction with taskDistance=${taskDistance}: a token stands 1, 3, 5 … ` +
          `positions after what it followed, at most ${
            2 * slots - 3
          } in seqLen=${seqLen}; use an ` +
          "odd number",
      );
    }
    const n = numPairs ?? Math.min(marks, mostPairs(slots, steps));
    requireOption("induction", "numPairs", n, 1);
    if (n > marks) {
      throw new UserError(
        `Cannot make data=induction with numPairs=${n}: taskVocab=${taskVocab} has only ${marks} ` +
          `tokens that come twice; use numPairs=${marks} or taskVocab=${4 * n}`,
      );
    }
    const places = new Places(rng, slots, { task: "induction", seqLen, count: n, steps });
    const any = () => marks + rng.below(taskVocab - marks);
    const sequence = Int32Array.from({ length: seqLen + 1 }, any);
    const twice = rng.shuffle(Int32Array.from({ length: marks }, (_, i) => i));
    const answers: Answer[] = [];
    for (let i = 0; i < n; i++) {
      const { from, to } = places.take();
      const next = any();
      sequence.set([twice[i], next], 2 * from);
      sequence.set([twice[i], next], 2 * to);
      answers.push({ position: 2 * to, distance: 2 * to - (2 * from + 1) });
    }
    return makeExample(sequence, answers.sort((a, b) => a.position - b.position));
  },
};
