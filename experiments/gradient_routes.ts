import type { Experiment } from "../src/config/experiment.ts";
import { base } from "./parts/base.ts";
import { smoke } from "./parts/smoke.ts";
import { recall } from "./parts/tasks.ts";

/** The variants, with so many updates each after the dense stage: of the indexer where it learns. */
function taughtBy(updates: number): Experiment["variants"] {
  const alone = { "sparse.steps": updates };
  const warm = { "warmup.steps": updates / 2, "sparse.steps": updates / 2 };
  return {
    kl: warm,
    both: { ...warm, indexLoss: "both" },
    lm: { ...alone, indexLoss: "lm" },
    native: { ...alone, indexKeyInput: "native" },
    frozen: {
      ...alone,
      stages: [{ name: "dense" }, { name: "sparse", trains: "backbone", kl: "none" }],
    },
  };
}

/** Who may teach an indexer: attention, the model's own loss, both, or nobody. */
export const experiment: Experiment = {
  question: "Can a model's own loss teach its indexer, beside KL to attention or in its place?",
  expect: "KL has a target for every key, the model's own loss says something of those that were " +
    "selected alone: by itself it should find less in as many updates. With KL it should add " +
    "little, within 2 points. An indexer that learns nothing is the floor, attention's own weights " +
    "(native) need no teacher",
  config: {
    ...base,
    ...recall,
    seqLen: 256,
    batchSize: 32,
    kvLoraRank: 64,
    // Scores that go into attention are products.
    indexActivation: "none",
    steps: 4000,
    "dense.schedule": "constant",
    "dense.until": "val/accuracy>=0.99",
    evalEvery: 50,
    measureEvery: 0,
    "sparse.indexTopk": 2,
  },
  variants: taughtBy(600),
  seeds: [10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21],
  tabulate: [
    ...["val/accuracy", "index/gold_recall_any", "index/gold_recall", "dense/val/accuracy"],
    ...["dense/until/steps", "val/loss", "index/captured_mass", "index/oracle_mass", "swap/oracle"],
  ],
  baseline: "kl",
  sizes: {
    smoke: {
      config: {
        ...smoke,
        ...{ numPairs: 4, taskVocab: 24, qLoraRank: null, steps: 20, evalEvery: 10 },
        ...{ "dense.until": "val/accuracy>=0", "sparse.indexTopk": 2 },
      },
      variants: taughtBy(12),
      seeds: [0],
    },
  },
};
