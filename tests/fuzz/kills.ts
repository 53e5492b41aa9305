/**
 * Runs and ablations that are killed, at moments of any kind, and gone on with until they are done.
 *
 * @module
 */
import { Rng } from "../../src/rng.ts";
import type { Disturbance } from "./disturb.ts";
import { ablation, type Program, training } from "./disturbed.ts";
import type { Fuzzer } from "./fuzzer.ts";
import { drawCall, survive } from "./survive.ts";

/** Of three rounds one is on WebGPU, where there is more to start. */
export const killsFuzzer: Fuzzer = {
  name: "kills",
  run: (options) => kill(training(options.seed % 3 === 0 ? "webgpu" : "cpu"), options),
};

export const ablationKillsFuzzer: Fuzzer = {
  name: "ablation_kills",
  run: (options) => kill(ablation, options),
};

/** Milliseconds after its first words. */
const MOST_MS = 400;

function kill(program: Program, { seed, until }: Parameters<Fuzzer["run"]>[0]) {
  const rng = new Rng(seed, `kills of ${program.name}`);
  const draw = (): Disturbance | number =>
    rng.below(4) === 0 ? rng.below(MOST_MS) : { at: drawCall(rng), kind: "SIGKILL", stays: false };
  return survive(program, {
    until,
    draw,
    // Nothing else may end it, and not without being done.
    check: ({ isKilled, code, stderr }) => isKilled || code === 0 ? null : stderr,
    isCase: ({ isKilled }) => isKilled,
  });
}
