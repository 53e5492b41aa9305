import type { Experiment } from "../src/config/experiment.ts";
import { base, seeds } from "./parts/base.ts";
import { small } from "./parts/small.ts";
import { smoke } from "./parts/smoke.ts";

/** What the indexer is asked to imitate, and how its error is weighed. */
export const experiment: Experiment = {
  question:
    "Which loss teaches the indexer best: direction of the KL, its support, its target, one for " +
    "all heads or for each, its weight? And may it train the backbone?",
  expect: "All reports use forward KL; over selected keys (DeepSeek-V3.2) or all (Megatron's " +
    "default); with weights from 0.001 to 1. With own AdamW moments and own clipping the weight " +
    "should hardly matter. Reverse KL is untried: it should seek the mode and lose mass. MSA " +
    "reports that training diverges if a KL of large weight reaches the backbone",
  config: { ...base, indexTopk: 32, measureEvery: 100 },
  variants: {
    published: {},
    // Dense attention beside sparse attention is what this costs.
    allKeys: { "sparse.kl": "dense" },
    renormalized: { klTarget: "renormalized" },
    // Each index head learns from one attention head, as lemyx's kernels do. The KL that is measured
    // is that of the sum, which this does not minimise: captured mass compares.
    perHead: { klHeads: "each" },
    reverse: { klDirection: "reverse" },
    reverseAllKeys: { klDirection: "reverse", "sparse.kl": "dense" },
    weight1e3: { indexerLossWeight: 1e-3 },
    weight1e2: { indexerLossWeight: 1e-2 },
    // The KL's gradient goes on into the backbone, at weight 1 and 0.01.
    attached: { indexerDetach: false },
    attached1e2: { indexerDetach: false, indexerLossWeight: 1e-2 },
    // The indexer stays as the warm-up left it: the part of the sparse stage's KL.
    frozenIndexer: { "sparse.trains": "backbone", "sparse.kl": "none" },
  },
  seeds,
  tabulate: [
    "val/loss",
    "index/captured_mass",
    "index/oracle_mass",
    "index/dense_kl",
    "index/index_entropy",
    "swap/oracle",
  ],
  baseline: "published",
  sizes: {
    small: { config: { ...small, indexTopk: 16 } },
    smoke: {
      config: smoke,
      variants: {
        published: {},
        allKeys: { "sparse.kl": "dense" },
        perHead: { klHeads: "each" },
        reverse: { klDirection: "reverse" },
        frozenIndexer: { "sparse.trains": "backbone", "sparse.kl": "none" },
      },
      seeds: [0],
    },
  },
};
