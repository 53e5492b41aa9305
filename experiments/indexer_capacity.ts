import type { Experiment } from "../src/config/experiment.ts";
import { base, seeds } from "./parts/base.ts";
import { smoke } from "./parts/smoke.ts";

/** How small an indexer may be, and which of its parts it needs. */
export const experiment: Experiment = {
  question:
    "How small may the indexer be, and does it need its ReLU, its key norm, the query latent?",
  expect:
    "DeepSeek-V3.2 has 64 heads of 128 for attention heads of 192, an eighth of the cost of " +
    "dense attention. Scores that are exactly 0 in all heads are ties: with one head about half, " +
    "with H of them 2^-H at first",
  config: { ...base, indexTopk: 32, measureEvery: 100 },
  // Named by heads x width; 4x32 is that of the preset.
  variants: {
    "1x16": { indexNHeads: 1, indexHeadDim: 16 },
    "2x16": { indexNHeads: 2, indexHeadDim: 16 },
    "4x16": { indexHeadDim: 16 },
    "4x32": {},
    "8x64": { indexNHeads: 8, indexHeadDim: 64 },
    noRelu: { indexActivation: "none" },
    noKeyNorm: { indexKeyNorm: "none" },
    fromHidden: { indexInput: "hidden" },
    fromKvLatent: { indexInput: "kvLatent" },
  },
  seeds,
  tabulate: [
    "val/loss",
    "index/captured_mass",
    "index/oracle_mass",
    "index/dense_kl",
    "index/dead_scores",
    "swap/oracle",
  ],
  baseline: "4x32",
  sizes: {
    smoke: {
      config: smoke,
      variants: {
        "1x8": { indexNHeads: 1 },
        "2x8": {},
        noRelu: { indexActivation: "none" },
        fromKvLatent: { indexInput: "kvLatent" },
      },
      seeds: [0],
      baseline: "2x8",
    },
  },
};
