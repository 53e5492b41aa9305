/** An experiment of a few seconds, for the tests of ablations. */
import type { Delta, Experiment } from "../src/config/experiment.ts";

const TEXT = new URL("fixtures/moby_excerpt.txt", import.meta.url).pathname;
/** A model small enough to train for a few steps in a moment, through stages that go back. */
const CONFIG: Delta = {
  data: TEXT,
  hiddenSize: 32,
  numHiddenLayers: 1,
  numAttentionHeads: 2,
  intermediateSize: 48,
  batchSize: 2,
  seqLen: 32,
  steps: 20,
  logEvery: 4,
  evalEvery: 0,
  evalBatches: 1,
  saveEvery: 8,
  measureEvery: 0,
  indexTopk: 6,
  sampleTokens: 0,
  stages: [
    { name: "dense", steps: 20 },
    { name: "warmup", steps: 10 },
    { name: "twin", steps: 8, from: "dense" },
    { name: "sparse", steps: 8, from: "warmup" },
  ],
};
export const MANY: Experiment = {
  question: "Do runs share their beginnings?",
  config: CONFIG,
  variants: {
    few: { "sparse.indexTopk": 4 },
    more: { "sparse.indexTopk": 9 },
    // Its warm-up is measured with another k, too.
    always: { indexTopk: 4 },
    heads: { indexNHeads: 3 },
    wild: { lr: 1e30, clip: null, warmupSteps: 0 },
  },
  tabulate: ["sparse/val/loss", "twin/val/loss"],
  baseline: "more",
  evaluate: { "k=2": { indexTopk: 2 } },
};
