import type { Delta } from "../../src/config/experiment.ts";

/**
 * Sizes at which a whole grid takes less than an hour on two CPU cores: models that have seen half
 * of the text once. For first answers where there is no GPU.
 */
export const small: Delta = {
  batchSize: 4,
  seqLen: 256,
  numHiddenLayers: 2,
  steps: 600,
};
