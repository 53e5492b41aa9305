import type { Experiment } from "../src/config/experiment.ts";
import { base, seeds } from "./parts/base.ts";
import { small } from "./parts/small.ts";
import { smoke } from "./parts/smoke.ts";

/** The grid of latent width × selected keys, on text. */
export const experiment: Experiment = {
  question:
    "How far can latents be compressed before top-k selection hurts, and do the losses of " +
    "compression and selection add up?",
  expect:
    "No such grid is published. Compression alone: +0.3 % validation loss for half the cache " +
    "(2506.09342, 30 M parameters), no average loss at 6.4x in a distilled 1B model (2503.11132). " +
    "Selection alone: parity at 1 key in 64 in DeepSeek-V3.2. If an index reads what the latent has " +
    "lost, the two add up to more than their sum at small widths",
  config: {
    ...base,
    seqLen: 1024,
    batchSize: 8,
    // The twin stands before the sparse stage, on whose tokens it trains: all k share it.
    stages: [
      { name: "dense" },
      { name: "warmup" },
      { name: "twin" },
      { name: "sparse", from: "warmup" },
    ],
    measureEvery: 0,
  },
  axes: {
    kvLoraRank: [16, 32, 64, 128],
    // All 1 024 keys are dense attention, trained like the others: the reference of each row.
    "sparse.indexTopk": [16, 32, 64, 128, 1024],
  },
  seeds,
  tabulate: [
    "val/loss",
    "twin/val/loss",
    "index/captured_mass",
    "index/oracle_mass",
    "swap/oracle",
    "swap/random",
    "latent/effective_rank",
    "latent/reconstruction_error",
  ],
  baseline: { "sparse.indexTopk": 1024 },
  sizes: {
    small: {
      config: { ...small, "twin.steps": 100, "sparse.steps": 100 },
      axes: { kvLoraRank: [16, 32, 64, 128], "sparse.indexTopk": [8, 16, 32, 64, 256] },
      baseline: { "sparse.indexTopk": 256 },
    },
    smoke: {
      config: smoke,
      axes: { kvLoraRank: [8, 16], "sparse.indexTopk": [4, 16, 64] },
      seeds: [0, 1],
      baseline: { "sparse.indexTopk": 64 },
    },
  },
};
