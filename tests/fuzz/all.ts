/** All fuzzers, in the order in which they run. */
import { commandLinesFuzzer } from "./command_lines.ts";
import { configsFuzzer } from "./configs.ts";
import { corporaFuzzer } from "./corpora.ts";
import type { Fuzzer } from "./fuzzer.ts";
import { ablationKillsFuzzer, killsFuzzer } from "./kills.ts";
import { longTokensFuzzer } from "./long_tokens.ts";
import { metricsFuzzer } from "./metrics.ts";
import { packageCorporaFuzzer } from "./package_corpora.ts";
import { resultsFuzzer } from "./results.ts";
import { runFilesFuzzer } from "./run_files.ts";
import { safetensorsFuzzer, shardsFuzzer } from "./safetensors.ts";
import { tokenizerJsonFuzzer } from "./tokenizer_json.ts";
import { writeErrorsFuzzer } from "./write_errors.ts";

export const fuzzers: readonly Fuzzer[] = [
  configsFuzzer,
  commandLinesFuzzer,
  metricsFuzzer,
  resultsFuzzer,
  runFilesFuzzer,
  tokenizerJsonFuzzer,
  safetensorsFuzzer,
  shardsFuzzer,
  corporaFuzzer,
  packageCorporaFuzzer,
  longTokensFuzzer,
  killsFuzzer,
  ablationKillsFuzzer,
  writeErrorsFuzzer,
];
