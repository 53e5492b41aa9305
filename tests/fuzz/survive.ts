/**
 * The loop of fuzzers that disturb a program: disturb it, go on with it, until it is done; compare;
 * and again.
 *
 * @module
 */
import assert from "node:assert/strict";
import type { Rng } from "../../src/rng.ts";
import type { Disturbance } from "./disturb.ts";
import { type Ending, inFolder, type Program, start, wholeResults } from "./disturbed.ts";
import type { Findings } from "./fuzzer.ts";

/** Calls that change files: those that begin a run or go on with one, and some hundreds in all. */
const [FIRST_CALLS, ALL_CALLS] = [16, 300];

/** One of the calls; the first ones more often. */
export function drawCall(rng: Rng): number {
  return rng.below(rng.below(2) === 0 ? FIRST_CALLS : ALL_CALLS);
}

/** What is done to the program, and what may come of it. */
export interface Trial {
  readonly until: () => boolean;
  /** What happens the next time that it is started. */
  readonly draw: () => Disturbance | number;
  /** What is wrong with an ending, or null. */
  readonly check: (ending: Ending) => string | null;
  /** Whether the disturbance came before the end. */
  readonly isCase: (ending: Ending) => boolean;
}

/** Disturbs a program until told to stop, at least once; a case is a disturbance survived. */
export async function survive(program: Program, trial: Trial): Promise<Findings> {
  const whole = await wholeResults(program);
  const failures: Findings["failures"] = [];
  let cases = 0;
  let isOver = false;
  while (!isOver) {
    const history: (Disturbance | number)[] = [];
    const error = await inFolder(async (cwd) => {
      for (;;) {
        isOver = trial.until() && cases > 0;
        // The last time it is left in peace, so that there is an end to compare.
        const disturbance = isOver ? null : trial.draw();
        const ending = await start(program, cwd, disturbance);
        if (disturbance !== null) history.push(disturbance);
        if (trial.isCase(ending)) cases++;
        const wrong = isOver && ending.code !== 0 ? ending.stderr : trial.check(ending);
        if (wrong !== null) return wrong;
        if (ending.code === 0) return await difference(program, cwd, whole);
      }
    });
    const input = `${program.name}: ${JSON.stringify(history)}`;
    if (error !== null) failures.push({ input, error });
  }
  return { cases, failures };
}

async function difference(program: Program, cwd: string, whole: unknown): Promise<string | null> {
  try {
    assert.deepEqual(await program.results(cwd), whole);
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
