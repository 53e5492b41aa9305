import type { Experiment } from "../src/config/experiment.ts";
import { base } from "./parts/base.ts";
import { smoke } from "./parts/smoke.ts";
import { recall } from "./parts/tasks.ts";

/** What an index has to read to find what attention would, on models that answer densely. */
export const experiment: Experiment = {
  question:
    "What must an index read to find by it: hidden states, latents, all that is cached, or " +
    "attention itself?",
  expect: "Models are trained until they answer 99 % densely, at every width. Keys of the latent " +
    "alone should then fail where latents are narrow; keys of latent and rope key should be within " +
    "2 points of those of hidden states; attention's own weights (native), which no index has to " +
    "learn, are what an index could at most find by",
  config: {
    ...base,
    ...recall,
    seqLen: 256,
    batchSize: 32,
    steps: 4000,
    // As long as it takes to learn to look things up, which differs by seed; at one rate, so that
    // it does not matter when that is.
    "dense.schedule": "constant",
    "dense.until": "val/accuracy>=0.99",
    "warmup.steps": 300,
    "sparse.steps": 60,
    evalEvery: 50,
    measureEvery: 0,
    stages: [{ name: "dense" }, { name: "warmup" }, { name: "sparse" }],
  },
  axes: {
    kvLoraRank: [6, 8, 12, 64],
    indexKeyInput: ["hidden", "kvLatent", "kvLatentRope", "native"],
    "sparse.indexTopk": [2, 4],
  },
  seeds: [10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21],
  tabulate: [
    ...["val/accuracy", "index/gold_recall_any", "index/gold_recall"],
    ...["dense/val/accuracy", "dense/until/steps", "val/loss"],
    ...["index/captured_mass", "index/oracle_mass", "swap/oracle"],
  ],
  baseline: { indexKeyInput: "hidden" },
  sizes: {
    smoke: {
      config: {
        ...smoke,
        ...{ numPairs: 4, taskVocab: 24, qLoraRank: null, steps: 20, evalEvery: 10 },
        ...{ "dense.until": "val/accuracy>=0", "warmup.steps": 6, "sparse.steps": 6 },
      },
      axes: {
        kvLoraRank: [6, 16],
        indexKeyInput: ["hidden", "kvLatentRope", "native"],
        "sparse.indexTopk": [2],
      },
      seeds: [0],
    },
  },
};
