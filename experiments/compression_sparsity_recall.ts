import type { Experiment } from "../src/config/experiment.ts";
import { experiment as onText } from "./compression_sparsity.ts";
import { smoke } from "./parts/smoke.ts";
import { recall } from "./parts/tasks.ts";

/** The grid of `compression_sparsity` where attention is all that helps: associative recall. */
export const experiment: Experiment = {
  ...onText,
  question:
    "How far can latents be compressed before top-k selection hurts, where each answer hangs " +
    "on one earlier token?",
  expect:
    "Only a few keys matter, so small k should cost nothing as long as the index finds them. " +
    "What narrow latents lose is the identity of tokens, for attention and index alike: here, if " +
    "anywhere, the two losses should not add up",
  config: {
    ...onText.config,
    ...recall,
    // Answers of four times as many sequences a step: with half of them 8 of 12 models are still on
    // the plateau after 1 500 steps (see LOG.md).
    batchSize: 32,
    steps: 1000,
    // How long the plateau lasts differs by seed: the full rate for most of the steps.
    "dense.schedule": "wsd",
    "warmup.steps": 50,
    "twin.steps": 50,
    "sparse.steps": 50,
  },
  tabulate: ["val/accuracy", "twin/val/accuracy", ...onText.tabulate!],
  sizes: {
    // Latents of 32 and 64 find out in every seed, of 16 in two of three (see LOG.md).
    small: {
      config: {
        seqLen: 128,
        batchSize: 32,
        hiddenSize: 64,
        intermediateSize: 128,
        numAttentionHeads: 2,
        steps: 1000,
        "warmup.steps": 60,
        "twin.steps": 50,
        "sparse.steps": 50,
      },
      axes: { kvLoraRank: [16, 32, 64], "sparse.indexTopk": [1, 2, 4, 8, 128] },
      baseline: { "sparse.indexTopk": 128 },
    },
    smoke: {
      ...onText.sizes!.smoke,
      config: {
        ...smoke,
        ...recall,
        numPairs: 4,
        taskVocab: 24,
        "warmup.steps": 6,
        "twin.steps": 6,
        "sparse.steps": 6,
      },
    },
  },
};
