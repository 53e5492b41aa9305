import type { Delta } from "../../src/config/experiment.ts";

/**
 * What lets a small MLA model find out how to look things up, at all and within a few hundred steps
 * (see LOG.md): a small learning rate, with which the plateau of guessing among the values in sight
 * is left in most seeds; queries without a latent of their own; weights that start large enough for
 * attention to prefer anything; few symbols; many answers in a batch.
 */
const lookUp: Delta = {
  qLoraRank: null,
  initializerRange: 0.05,
  lr: 1e-3,
  numHiddenLayers: 2,
};

/** Eight pairs and their eight questions, in filler; all eight keys there are. */
export const recall: Delta = { ...lookUp, data: "recall", taskVocab: 17, numPairs: 8 };

/** Strings of 16 symbols, each repeated once. */
export const copy: Delta = { ...lookUp, data: "copy", taskVocab: 32, copyLength: 16 };

/** One pair somewhere in the filler, and one question at the end. */
export const needle: Delta = { ...lookUp, data: "needle", taskVocab: 32, numNeedles: 1 };
