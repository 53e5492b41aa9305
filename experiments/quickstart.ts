import type { Experiment } from "../src/experiment.ts";

/** The first run: a small MLA transformer learns Moby-Dick's bytes in minutes, also without GPU. */
export const experiment: Experiment = {
  question: "Does a small MLA transformer learn English from 1.2 MB of it?",
  config: { preset: "nano", data: "moby_dick" },
};
