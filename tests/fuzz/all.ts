/** All fuzzers, in the order in which they run. */
import type { Fuzzer } from "./fuzzer.ts";
import { ablationKillsFuzzer, killsFuzzer } from "./kills.ts";
import { metricsFuzzer } from "./metrics.ts";
import { resultsFuzzer } from "./results.ts";
import { runFilesFuzzer } from "./run_files.ts";
import { writeErrorsFuzzer } from "./write_errors.ts";

export const fuzzers: readonly Fuzzer[] = [
  metricsFuzzer,
  resultsFuzzer,
  runFilesFuzzer,
  killsFuzzer,
  ablationKillsFuzzer,
  writeErrorsFuzzer,
];
