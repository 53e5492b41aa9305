import type { Experiment } from "../src/config/experiment.ts";
import { base, seeds } from "./parts/base.ts";
import { smoke } from "./parts/smoke.ts";

/** Where positions enter MLA and its indexer. */
export const experiment: Experiment = {
  question:
    "Does RoPE belong into the latent, beside it, or nowhere, and how do the choices extend " +
    "to longer sequences?",
  expect:
    "MLA with a decoupled rope key is about 2 % better than MHA and without RoPE 3-5 % worse " +
    "(2506.09342). Rotating the latent itself makes scores depend on positions, not distances: " +
    "worse, and much worse beyond the trained length. An indexer evaluated with the other layout " +
    "than it was trained with, the error of the first V3.2 release, hurts only beyond k keys",
  config: {
    ...base,
    // Short, so that 4 times the length is still cheap to evaluate.
    seqLen: 256,
    batchSize: 32,
    steps: 1000,
    indexTopk: 32,
    measureEvery: 0,
  },
  variants: {
    rope8: { qkRopeHeadDim: 8 },
    rope16: {},
    rope32: { qkRopeHeadDim: 32 },
    // The control: see latentAttention.
    onLatent: { latentRope: "onLatent" },
    none: { latentRope: "none" },
  },
  // Interleaved is half-split but for a permutation of weights: no axis value, an evaluation.
  axes: { indexRope: ["halfSplit", "none"] },
  seeds,
  tabulate: [
    "val/loss",
    "2x length/val/loss",
    "4x length/val/loss",
    "interleaved index/val/loss",
    "index/captured_mass",
    "swap/dense",
    "swap/oracle",
  ],
  baseline: { variant: "rope16" },
  evaluate: {
    "2x length": { seqLen: 512, batchSize: 8 },
    "4x length": { seqLen: 1024, batchSize: 4 },
    "interleaved index": { indexRope: "interleaved" },
  },
  sizes: {
    smoke: {
      config: { ...smoke, seqLen: 32 },
      variants: {
        rope4: {},
        onLatent: { latentRope: "onLatent" },
        none: { latentRope: "none" },
      },
      seeds: [0],
      baseline: { variant: "rope4" },
      tabulate: ["val/loss", "2x length/val/loss", "interleaved index/val/loss"],
      evaluate: { "2x length": { seqLen: 64 }, "interleaved index": { indexRope: "interleaved" } },
    },
  },
};
