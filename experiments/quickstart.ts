import type { Experiment } from "../src/config/experiment.ts";

/** The first run: a small MLA transformer learns from Moby-Dick in minutes, also without a GPU. */
export const experiment: Experiment = {
  question: "Does a small MLA transformer learn English from 1.2 MB of it?",
  config: {
    preset: "nano",
    data: "moby_dick",
    // Pieces of words: what it writes looks like English sooner than with bytes.
    tokenizer: "bpe",
    vocabSize: 512,
    steps: 600,
  },
};
