import type { Delta, Experiment } from "../src/config/experiment.ts";
import { base, seeds } from "./parts/base.ts";
import { small } from "./parts/small.ts";
import { smoke } from "./parts/smoke.ts";

/**
 * Dense training, `steps` of warm-up, sparse training, all on the same tokens. The dense twin stands
 * before the warm-up: it is the same for all, and the last model is the sparse one.
 */
function warmed(steps: number): Delta {
  const shared = [{ name: "dense" }, { name: "twin" }];
  return {
    stages: steps === 0
      ? [...shared, { name: "sparse", from: "dense" }]
      : [...shared, { name: "warmup", from: "dense", steps }, { name: "sparse" }],
  };
}

/** How long the indexer must watch dense attention first. */
export const experiment: Experiment = {
  question: "How many steps of warm-up does an indexer need, and is dense training needed at all?",
  expect: "Reports use 2.1 B tokens (DeepSeek-V3.2), 0.3-1 B (Cerebras), 20 B (GLM-5, in total), " +
    "40 B (MSA); none starts sparse from scratch. MSA sees the entropy of the selection collapse " +
    "without warm-up",
  config: {
    ...base,
    // Few keys, so that a bad choice costs something.
    indexTopk: 32,
    // The steps to 90 % of what the oracle captures are read from these.
    measureEvery: 25,
  },
  variants: {
    0: warmed(0),
    50: warmed(50),
    200: warmed(200),
    1000: warmed(1000),
    // As many updates of the backbone as the others have in both of their stages.
    scratch: { recipe: "sparse", "sparse.steps": 1440 },
  },
  seeds,
  tabulate: [
    "val/loss",
    "twin/val/loss",
    "index/captured_mass",
    "index/oracle_mass",
    "index/index_entropy",
    "index/dense_kl",
  ],
  baseline: "1000",
  sizes: {
    small: {
      config: { ...small, indexTopk: 16, measureEvery: 20 },
      variants: {
        0: warmed(0),
        20: warmed(20),
        60: warmed(60),
        240: warmed(240),
        scratch: { recipe: "sparse", "sparse.steps": 700 },
      },
      baseline: "240",
    },
    smoke: {
      config: { ...smoke, "sparse.steps": 6 },
      variants: {
        0: warmed(0),
        10: warmed(10),
        scratch: { recipe: "sparse", "sparse.steps": 36 },
      },
      seeds: [0],
      baseline: "10",
    },
  },
};
