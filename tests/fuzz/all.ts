/** All fuzzers, in the order in which they run. */
import type { Fuzzer } from "./fuzzer.ts";
import { metricsFuzzer } from "./metrics.ts";
import { resultsFuzzer } from "./results.ts";
import { runFilesFuzzer } from "./run_files.ts";

export const fuzzers: readonly Fuzzer[] = [
  metricsFuzzer,
  resultsFuzzer,
  runFilesFuzzer,
];
