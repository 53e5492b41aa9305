import { publishedMosa } from "../src/config/hugging_face.ts";
import type { Delta, Experiment } from "../src/config/experiment.ts";
import { base, seeds } from "./parts/base.ts";
import { small } from "./parts/small.ts";
import { smoke } from "./parts/smoke.ts";

/** Keys of a query. */
const TOPK = 32;

/** MoSA as published: its heads choose with the future in view: not a language model's loss. */
const LOOKS_AHEAD: Delta = { attention: "mosa", ...publishedMosa };

/** Keys chosen by a rule: there is nothing for an indexer to learn in the sparse stage. */
function rule(selector: "random" | "recency" | "sinkRecency" | "oracle"): Delta {
  return { selector, "sparse.trains": "backbone", "sparse.kl": "none" };
}

function blocks(blockSize: number, blockPool: "max" | "mean" = "max"): Delta {
  return { selector: "block", blockSize, blockPool };
}

/** Baselines of their own kind, dense from the start, with as many updates. */
function alone(config: Delta): Delta {
  const stages = [{ name: "dense" }, { name: "twin", from: "dense" }];
  return { ...config, recipe: "dense", stages };
}

/** Who should pick the keys. */
export const experiment: Experiment = {
  question:
    "What is a trained token selector worth against blocks, rules, chance and the oracle, " +
    "and against a sliding window and MoSA?",
  expect: "MSA finds blocks of 32 about as good as 64 and 128, and 92.5 % of the attention in 16 " +
    "blocks. Sliding windows lose most of what is far away (GLM-5, RULER 128K: 44.9 against 75.3); " +
    "DSA is near full attention. MoSA reports up to 27 % lower perplexity at equal FLOPs, but its " +
    "heads choose tokens with the future in view",
  config: {
    ...base,
    indexTopk: TOPK,
    stages: [{ name: "dense" }, { name: "warmup" }, { name: "sparse" }],
    measureEvery: 0,
  },
  variants: {
    learned: {},
    block4: blocks(4),
    block8: blocks(8),
    block16: blocks(16),
    block32: blocks(32),
    block8mean: blocks(8, "mean"),
    random: rule("random"),
    recency: rule("recency"),
    sinkRecency: rule("sinkRecency"),
    oracle: rule("oracle"),
    dense: alone({}),
    window: alone({ window: TOPK }),
    // A head's 178 tokens make 15 931 pairs; 32 keys for each of 512 queries make 15 888.
    mosa: alone({ ...LOOKS_AHEAD, indexTopk: 178 }),
  },
  seeds,
  tabulate: ["val/loss", "index/captured_mass", "index/oracle_mass", "swap/dense"],
  baseline: "dense",
  sizes: {
    small: {
      config: { ...small, indexTopk: 16 },
      variants: {
        learned: {},
        block4: blocks(4),
        block8: blocks(8),
        block16: blocks(16),
        random: rule("random"),
        recency: rule("recency"),
        sinkRecency: rule("sinkRecency"),
        oracle: rule("oracle"),
        dense: alone({}),
        window: alone({ window: 16 }),
        // 4 005 pairs of a head; 16 keys for each of 256 queries make 3 976.
        mosa: alone({ ...LOOKS_AHEAD, indexTopk: 89 }),
      },
    },
    smoke: {
      config: { ...smoke, indexTopk: 8 },
      variants: {
        learned: {},
        block4: blocks(4),
        sinkRecency: rule("sinkRecency"),
        oracle: rule("oracle"),
        dense: alone({}),
        window: alone({ window: 8 }),
        mosa: alone({ ...LOOKS_AHEAD, indexTopk: 31 }),
      },
      seeds: [0],
    },
  },
};
