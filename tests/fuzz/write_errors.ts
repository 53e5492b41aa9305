/**
 * Runs and ablations on disks that fail: each ends in one line, or does without what it could not
 * write, and goes on to the same end.
 *
 * @module
 */
import { Rng } from "../../src/rng.ts";
import { ablation, type Ending, training } from "./disturbed.ts";
import { faults } from "./faults.ts";
import type { Fuzzer } from "./fuzzer.ts";
import { pick } from "./mutate.ts";
import { drawCall, survive } from "./survive.ts";

/** Of four rounds one is an ablation. */
export const writeErrorsFuzzer: Fuzzer = {
  name: "write_errors",
  run({ seed, until }) {
    const rng = new Rng(seed, "write errors");
    return survive(seed % 4 === 0 ? ablation : training("cpu"), {
      until,
      draw: () => ({
        at: drawCall(rng),
        kind: pick(rng, Object.keys(faults)),
        stays: rng.below(2) === 0,
      }),
      check,
      isCase: ({ code }) => code !== 0,
    });
  },
};

/**
 * A trace of the program is no line for people, and an error has exactly one: on stderr, or behind
 * the name of an ablation's run, which the next call tries again.
 */
function check({ code, isKilled, stderr }: Ending): string | null {
  const errors = stderr.split("\n").filter((line) => line.startsWith("error:"));
  const isTold = errors.length === 1 && /^error: Cannot \S/.test(errors[0]) ||
    errors.length === 0 && /^\S+ failed: Cannot \S/m.test(stderr);
  const isClean = !isKilled && !/^ +at /m.test(stderr);
  return isClean && (code === 0 || isTold) ? null : `exit code ${code}: ${stderr}`;
}
