import type { Experiment } from "../src/config/experiment.ts";
import { base } from "./parts/base.ts";
import { smoke } from "./parts/smoke.ts";
import { recall } from "./parts/tasks.ts";

/** Whether an index may read what MLA caches, and no more. */
export const experiment: Experiment = {
  question: "Can an indexer find by what MLA caches of a token what it finds by its hidden state?",
  expect:
    "DSA's index keys come from hidden states and are cached beside the latents (22 % more in " +
    "DeepSeek-V3.2). Keys of the latent alone lack the rope key, which no width removes: they should " +
    "fail where latents are narrow, though dense attention answers from the same latents. Keys of " +
    "latent and rope key read all that attention reads: within 2 points of those of hidden states " +
    "at every width",
  config: {
    ...base,
    ...recall,
    seqLen: 256,
    batchSize: 32,
    // How long it takes to learn to look things up differs by seed: of those that have, all is asked.
    steps: 1800,
    "dense.schedule": "wsd",
    "warmup.steps": 200,
    "sparse.steps": 50,
    evalEvery: 0,
    measureEvery: 0,
    stages: [{ name: "dense" }, { name: "warmup" }, { name: "sparse" }],
  },
  axes: {
    kvLoraRank: [6, 12, 64],
    indexKeyInput: ["hidden", "kvLatent", "kvLatentRope"],
    "sparse.indexTopk": [2, 4],
  },
  seeds: [10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21],
  tabulate: [
    ...["val/accuracy", "dense/val/accuracy", "val/loss"],
    ...["index/captured_mass", "index/oracle_mass", "swap/oracle"],
  ],
  baseline: { indexKeyInput: "hidden" },
  sizes: {
    smoke: {
      config: {
        ...smoke,
        ...{ numPairs: 4, taskVocab: 24, qLoraRank: null, steps: 30 },
        ...{ "warmup.steps": 6, "sparse.steps": 6 },
      },
      axes: {
        kvLoraRank: [6, 16],
        indexKeyInput: ["hidden", "kvLatent", "kvLatentRope"],
        "sparse.indexTopk": [2],
      },
      seeds: [0],
    },
  },
};
