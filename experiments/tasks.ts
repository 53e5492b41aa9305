import type { Experiment } from "../src/config/experiment.ts";
import { base, seeds } from "./parts/base.ts";
import { smoke } from "./parts/smoke.ts";
import { copy, needle, recall } from "./parts/tasks.ts";

/** How many keys a task needs. */
export const experiment: Experiment = {
  question:
    "How few keys can each task do with, and does the indexer find those that are far away?",
  expect: "A cliff where k is less than the keys that must be seen: one answer token in the last " +
    "layer, a few neighbours in the first. Converted models lose most on RULER's multi-key and " +
    "counting tasks (Cerebras MSA, RULER 32K: 95.3 to 89.0, 92.6 after training on long texts)",
  config: {
    ...base,
    seqLen: 256,
    batchSize: 32,
    "warmup.steps": 300,
    "sparse.steps": 200,
    measureEvery: 0,
  },
  variants: { copy, recall, needle },
  // All 256 keys are dense attention.
  axes: { "sparse.indexTopk": [1, 2, 4, 8, 16, 256] },
  seeds,
  tabulate: [
    "val/accuracy",
    "val/loss",
    "index/captured_mass",
    "index/oracle_mass",
    "swap/oracle",
    "swap/recency",
    "swap/random",
  ],
  baseline: { "sparse.indexTopk": 256 },
  sizes: {
    smoke: {
      config: { ...smoke, "warmup.steps": 6, "sparse.steps": 6 },
      axes: { "sparse.indexTopk": [2, 64] },
      seeds: [0],
      baseline: { "sparse.indexTopk": 64 },
    },
  },
};
