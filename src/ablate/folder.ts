/**
 * The folder of an ablation.
 *
 * @module
 */
import { join } from "node:path";
import { UserError } from "../errors.ts";
import { isThere, readJson } from "../files/files.ts";
import type { AblationResults } from "./results.ts";

/**
 * Reads `results.json`, or returns null where there is none.
 *
 * @throws {UserError} if it is damaged, or another program's
 */
export function readResults(folder: string): AblationResults | null {
  const path = join(folder, "results.json");
  const results = readJson(path);
  if (results === null || isResults(results)) return results;
  throw new UserError(`Cannot read ${path}: it is not the results of an ablation of latentk`);
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
    [...Deno.readDirSync(path)].every(({ name }) => name.endsWith(".partial"));
}

function isResults(value: object): value is AblationResults {
  const { experiment, size, question, axes, tabulate, runs, summary, fit } = value as Partial<
    AblationResults
  >;
  const areRuns = (list: readonly unknown[]) =>
    (list as Partial<AblationResults["runs"][number]>[]).every((run) =>
      typeof run?.folder === "string" && isObject(run.metrics) && isObject(run.costs)
    );
  return [experiment, size, question].every((text) => typeof text === "string") &&
    isObject(axes) && Array.isArray(tabulate) && Array.isArray(fit) &&
    Array.isArray(runs) && areRuns(runs) &&
    Array.isArray(summary) && summary.every((row) => isObject(row?.axes) && isObject(row.metrics));
}

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null;
}
