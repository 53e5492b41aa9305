import type { Delta, Experiment } from "../src/config/experiment.ts";
import { base, seeds } from "./parts/base.ts";
import { smoke } from "./parts/smoke.ts";

/** Dense models go on at the low rate for as many steps as the sparse stage has. */
function dense(config: Delta): Delta {
  const stages = [{ name: "dense" }, { name: "twin", from: "dense" }];
  return { ...config, recipe: "dense", stages };
}

/** MHA, GQA, MQA, MLA and MLA with DSA, at the same size. */
export const experiment: Experiment = {
  question: "Which attention is best for its parameters, and which for its cache?",
  expect: "DeepSeek-V2, 7B dense, MMLU: MHA 45.2, GQA-8 41.2, MQA 37.9, and MLA above MHA with a " +
    "fraction of the cache. GLM-5 finds MLA below GQA-8 unless Muon is split by heads, so the " +
    "optimizer matters. DSA adds its key to the cache, which costs latent width at equal cache",
  // A gate, up and down row each cost 384 weights a layer: the MLP makes up for attention.
  config: { ...base, indexTopk: 64, measureEvery: 0 },
  variants: {
    // Equal parameters, 0.95 M: cache of 256, 128, 64, 80 and 112 elements a layer.
    mha: dense({ attention: "mha", intermediateSize: 406 }),
    gqa: dense({ attention: "gqa", numKeyValueHeads: 2, intermediateSize: 448 }),
    mqa: dense({ attention: "gqa", numKeyValueHeads: 1, intermediateSize: 470 }),
    mla: dense({}),
    mlaDsa: { intermediateSize: 340 },
    // The same parameters and a cache of 80 elements a layer.
    mhaCache80: dense({ attention: "mha", headDim: 10, intermediateSize: 523 }),
    gqaCache80: dense({
      attention: "gqa",
      numKeyValueHeads: 2,
      headDim: 20,
      intermediateSize: 496,
    }),
    mqaCache80: dense({
      attention: "gqa",
      numKeyValueHeads: 1,
      headDim: 40,
      intermediateSize: 443,
    }),
    mlaDsaCache80: { kvLoraRank: 32, intermediateSize: 372 },
  },
  seeds,
  tabulate: ["val/loss", "dense/val/loss"],
  baseline: "mla",
  sizes: {
    smoke: {
      config: smoke,
      variants: {
        mha: dense({ attention: "mha" }),
        mqa: dense({ attention: "gqa", numKeyValueHeads: 1 }),
        mla: dense({}),
        mlaDsa: {},
      },
      seeds: [0],
    },
  },
};
