/**
 * The folder of an ablation.
 *
 * @module
 */
import { join } from "node:path";
import { UserError } from "../errors.ts";
import { LOCK_FILE } from "../files/lock.ts";
import { isThere, readJson } from "../files/files.ts";
import { type AblationResults, resultsShape } from "./results.ts";

/**
 * Reads `results.json`, or returns null where there is none.
 *
 * @throws {UserError} if it is damaged, or another program's
 */
export function readResults(folder: string): AblationResults | null {
  const path = join(folder, "results.json");
  const results = readJson(path);
  const wrong = results && resultsShape(results, "it");
  if (!wrong) return results as AblationResults | null;
  throw new UserError(
    `Cannot read ${path}: it is not the results of an ablation of latentk (${wrong})`,
  );
}

/**
 * Refuses a folder that holds anything but an earlier part of the same ablation.
 *
 * @throws {UserError} saying what it holds
 */
export function requireOwnFolder(
  folder: string,
  { experiment, size }: Pick<AblationResults, "experiment" | "size">,
): void {
  if (!isThere(folder)) return;
  const refuse = (what: string): never => {
    throw new UserError(`Cannot run in ${folder}: it holds ${what}; take another name=…`);
  };
  if (isThere(join(folder, "config.json"))) refuse("a training run");
  const results = readResults(folder);
  if (!results) {
    if (!isEmptyFolder(folder)) refuse("something else than an ablation");
  } else if (results.experiment !== experiment || results.size !== size) {
    refuse(`an ablation with ${results.experiment} size=${results.size}`);
  }
}

function isEmptyFolder(path: string): boolean {
  return Deno.statSync(path).isDirectory &&
    [...Deno.readDirSync(path)].every(({ name }) =>
      name.endsWith(".partial") || name === LOCK_FILE
    );
}
