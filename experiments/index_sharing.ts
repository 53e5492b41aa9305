import type { Experiment } from "../src/config/experiment.ts";
import { base, seeds } from "./parts/base.ts";
import { smoke } from "./parts/smoke.ts";

/** One indexer for several layers. */
export const experiment: Experiment = {
  question:
    "How many layers may share one indexer, and should it learn the attention of all of them?",
  expect: "IndexCache (2603.12201), long-context average: 51.0 without sharing; 51.6 with every " +
    "second layer's indexer kept and taught by all it serves, 49.8 taught by its own layer; 50.6 " +
    "with every fourth. Sharing without training for it: 47.4, 43.0, and 35.3 for every eighth",
  config: {
    ...base,
    // Enough layers for an eighth.
    numHiddenLayers: 8,
    steps: 1000,
    indexTopk: 32,
    measureEvery: 0,
  },
  variants: {
    all: {},
    half: { indexShare: 2 },
    halfServed: { indexShare: 2, indexShareLoss: "served" },
    quarter: { indexShare: 4 },
    quarterServed: { indexShare: 4, indexShareLoss: "served" },
    eighth: { indexShare: 8 },
    eighthServed: { indexShare: 8, indexShareLoss: "served" },
  },
  seeds,
  tabulate: [
    "val/loss",
    "index/captured_mass",
    "index/oracle_mass",
    "index/neighbour_overlap",
    "swap/dense",
    "swap/oracle",
  ],
  baseline: "all",
  sizes: {
    smoke: {
      config: smoke,
      variants: {
        all: {},
        half: { indexShare: 2 },
        halfServed: { indexShare: 2, indexShareLoss: "served" },
      },
      seeds: [0],
    },
  },
};
