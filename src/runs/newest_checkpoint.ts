/**
 * The newest good checkpoint of a run: damaged ones are passed over, and said to be.
 *
 * @module
 */
import { join } from "node:path";
import { UserError } from "../errors.ts";
import { isThere, writing } from "../files/files.ts";
import {
  type Checkpoint,
  checkpointNames,
  isCheckpoint,
  latestCheckpoint,
  loadCheckpoint,
  stepOf,
} from "./checkpoint.ts";
import { requireMetrics } from "./log_mark.ts";

/**
 * Reads the newest checkpoint of a run that is good, and says which newer ones it passes over.
 *
 * @param options `forResume`: with the moments, and only one that the logs of the run fit, as
 * going on needs; `note` is told of those passed over, by default on stderr
 * @throws {UserError} if there is no such run, or none of its checkpoints is good
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { loadNewest } from "./newest_checkpoint.ts";
 *
 * await assert.rejects(loadNewest("runs/none", { forResume: true }), /there is no such folder/);
 * ```
 */
export async function loadNewest(
  run: string,
  options: { forResume: boolean; note?: (line: string) => void },
): Promise<Checkpoint> {
  const { forResume, note = (line) => console.error(line) } = options;
  await latestCheckpoint(run);
  const folder = join(run, "checkpoints");
  const bad: { name: string; reason: string }[] = [];
  for (const name of (await checkpointNames(folder)).reverse()) {
    try {
      const checkpoint = await loadCheckpoint(join(folder, name), { optimizer: forResume });
      if (forResume) requireMetrics(run, checkpoint.logs);
      for (const { name, reason } of bad) note(`passing over ${name}: ${reason}`);
      return checkpoint;
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      bad.push({ name, reason: error.message });
    }
  }
  const others = bad.length > 1 ? `; of ${bad.length} checkpoints none is good` : "";
  throw new UserError(bad[0].reason + others);
}

/** Puts the checkpoints after a step aside, as `step_….damaged`: the run goes on before them. */
export function setAsideLater(run: string, step: number): void {
  const folder = join(run, "checkpoints");
  for (const { name } of [...Deno.readDirSync(folder)]) {
    if (!isCheckpoint(name) || stepOf(name) <= step) continue;
    const aside = join(folder, `${name}.damaged`);
    writing(aside, () => {
      if (isThere(aside)) Deno.removeSync(aside, { recursive: true });
      Deno.renameSync(join(folder, name), aside);
    });
  }
}
