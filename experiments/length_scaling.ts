import type { Experiment } from "../src/config/experiment.ts";
import { base } from "./parts/base.ts";
import { smoke } from "./parts/smoke.ts";

/** What a step costs by length and form of attention. */
export const experiment: Experiment = {
  question:
    "From which length on is sparse attention faster than dense attention, and how do the " +
    "costs of its parts grow?",
  expect: "Core attention grows with S k, index scores with S², with a constant that is " +
    "H_I (d_I + 1) against H (n + r + v): 132 against 320 here, so that the total stays quadratic. " +
    "MSA reports 28.4x less attention compute at 1M tokens and 14.2x faster prefill; at 200K the " +
    "indexer is 81 % of prefill (IndexCache)",
  config: {
    ...base,
    batchSize: 2,
    // Speed is what is asked, not loss; the first steps make pipelines.
    steps: 60,
    evalEvery: 0,
    evalBatches: 1,
    measureEvery: 0,
    // GPU time by kernel group.
    profile: true,
  },
  variants: {
    mha: { attention: "mha", recipe: "dense" },
    mla: { recipe: "dense" },
    masked: { recipe: "sparse", sparseForm: "masked" },
    gathered: { recipe: "sparse", sparseForm: "gathered" },
  },
  axes: { seqLen: [256, 512, 1024, 2048, 4096, 8192] },
  tabulate: ["time/step_ms", "time/tokens_per_s", "val/loss"],
  baseline: { variant: "mla" },
  sizes: {
    smoke: { config: { ...smoke, batchSize: 1, steps: 6 }, axes: { seqLen: [64, 128] } },
  },
};
