import type { Delta } from "../../src/config/experiment.ts";

/**
 * Sizes at which a run takes a second or two on a CPU: for tests of the machinery, not for answers.
 * The other stages have a fifth of these steps, unless an experiment says otherwise.
 */
export const smoke: Delta = {
  batchSize: 4,
  seqLen: 64,
  hiddenSize: 32,
  intermediateSize: 64,
  numHiddenLayers: 2,
  numAttentionHeads: 2,
  qLoraRank: 24,
  kvLoraRank: 16,
  qkNopeHeadDim: 8,
  qkRopeHeadDim: 4,
  vHeadDim: 8,
  indexNHeads: 2,
  indexHeadDim: 8,
  indexTopk: 8,
  steps: 30,
  evalBatches: 2,
};
