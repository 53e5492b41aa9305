/**
 * Runs a fuzzer in rounds, each with its own seed: a failure is brought back by the seed of its
 * round, within the few inputs of a round.
 *
 * @module
 */
import type { Fuzzer } from "./fuzzer.ts";

/** Inputs of a round. */
const ROUND = 250;
/** Kinds of failures that are kept; a kind is an error's first lines. */
const MOST_KINDS = 20;

/** A failure, with what brings it back. */
export interface Failure {
  readonly seed: number;
  readonly input: string;
  readonly error: string;
}

/** What came of a fuzzer. */
export interface Tally {
  readonly name: string;
  /** Inputs tried. */
  readonly cases: number;
  /** Unclean ones. */
  readonly failed: number;
  /** One of each kind. */
  readonly failures: readonly Failure[];
}

/**
 * Runs rounds with the seeds `seed`, `seed + 1`, … until the time is over, or `rounds` are done.
 */
export async function campaign(
  fuzzer: Fuzzer,
  options: { seed: number; milliseconds: number; rounds?: number },
): Promise<Tally> {
  const { milliseconds, rounds = Infinity } = options;
  const end = performance.now() + milliseconds;
  const kinds = new Map<string, Failure>();
  let [cases, failed] = [0, 0];
  for (let round = 0; round < rounds && performance.now() < end; round++) {
    const seed = options.seed + round;
    let asked = 0;
    const until = () => asked++ >= ROUND || performance.now() >= end;
    const found = await fuzzer.run({ seed, until });
    cases += found.cases;
    failed += found.failures.length;
    for (const failure of found.failures) {
      const kind = failure.error.split("\n").slice(0, 3).join("\n").replaceAll(/\d+/g, "");
      if (!kinds.has(kind) && kinds.size < MOST_KINDS) kinds.set(kind, { seed, ...failure });
    }
  }
  return { name: fuzzer.name, cases, failed, failures: [...kinds.values()] };
}
