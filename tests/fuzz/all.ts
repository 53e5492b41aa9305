/** All fuzzers, in the order in which they run. */
import type { Fuzzer } from "./fuzzer.ts";
import { metricsFuzzer } from "./metrics.ts";

export const fuzzers: readonly Fuzzer[] = [
  metricsFuzzer,
];
