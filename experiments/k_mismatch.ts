import type { Experiment } from "../src/config/experiment.ts";
import { base, seeds } from "./parts/base.ts";
import { small } from "./parts/small.ts";
import { smoke } from "./parts/smoke.ts";

/** An evaluation with each k. */
function atEach(topks: readonly number[]): Record<string, { indexTopk: number }> {
  return Object.fromEntries(topks.map((indexTopk) => [`k=${indexTopk}`, { indexTopk }]));
}

const evaluate = atEach([2, 8, 16, 32, 64, 128, 256, 1024]);
const evaluateSmall = atEach([2, 4, 8, 16, 32, 64, 256]);

function tabulate(evaluations: Record<string, unknown>): string[] {
  const losses = Object.keys(evaluations).map((name) => `${name}/val/loss`);
  return ["val/loss", ...losses, "index/captured_mass"];
}

/** Trained with one k, used with another. */
export const experiment: Experiment = {
  question: "May a model select more or fewer keys than it was trained with?",
  expect:
    "Cerebras, GSM8K, trained with k = 256: 79.8 at 2 048, 78.8 at 256, 79.1 at 128, 0.1 at 2; " +
    "dense 80.0. So the loss should be flat above the trained k and have a cliff far below it",
  config: { ...base, seqLen: 1024, batchSize: 8, measureEvery: 0 },
  axes: { "sparse.indexTopk": [8, 32, 128, 1024] },
  seeds,
  tabulate: tabulate(evaluate),
  baseline: { "sparse.indexTopk": 1024 },
  evaluate,
  sizes: {
    small: {
      config: small,
      axes: { "sparse.indexTopk": [4, 16, 64, 256] },
      baseline: { "sparse.indexTopk": 256 },
      evaluate: evaluateSmall,
      tabulate: tabulate(evaluateSmall),
    },
    smoke: {
      config: smoke,
      axes: { "sparse.indexTopk": [4, 64] },
      seeds: [0],
      baseline: { "sparse.indexTopk": 64 },
      evaluate: atEach([4, 64]),
      tabulate: ["val/loss", "k=4/val/loss", "k=64/val/loss"],
    },
  },
};
