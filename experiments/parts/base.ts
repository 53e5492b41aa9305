import type { Delta } from "../../src/config/experiment.ts";

/** What the experiments have in common, on the dims of `tiny`. */
export const base: Delta = {
  preset: "tiny",
  data: "moby_dick",
  // 8 192 tokens a step at any length; each experiment sets both.
  seqLen: 512,
  batchSize: 16,
  // Eight passes over 1.2 MB of text: past the steep part of the curve.
  steps: 1200,
  // Only ends of stages are compared.
  evalEvery: 500,
  saveEvery: 0,
  keepCheckpoints: 1,
  sampleTokens: 0,
};

/** Enough to tell a difference from luck. */
export const seeds: readonly number[] = [0, 1, 2];
