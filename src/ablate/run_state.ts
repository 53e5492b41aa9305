/**
 * What a run folder of an ablation holds already.
 *
 * @module
 */
import { join } from "node:path";
import { type ConfigKey, configKeys, fields, type RunConfig } from "../config/config.ts";
import { UserError } from "../errors.ts";
import { show } from "../config/fields.ts";
import { isThere, readJson, writing } from "../files/files.ts";
import { FolderLock, LOCK_FILE } from "../files/lock.ts";
import { savedConfig } from "../config/saved_config.ts";
import { isCheckpoint, isLeftover, newestCheckpoint } from "../runs/checkpoint.ts";
import { readState } from "../runs/checkpoint_files.ts";
import { requireMetrics } from "../runs/log_mark.ts";
import { readSummary, type Summary } from "../runs/run_folder.ts";

/**
 * - `new`: nothing that could be gone on with
 * - `started`: it has a checkpoint
 * - `done`, `diverged`: to be left as it is
 */
export interface RunState {
  readonly status: "new" | "started" | "done" | "diverged";
  readonly summary: Summary | null;
}

/**
 * The state of a run folder.
 *
 * @throws {UserError} if the metrics of a run that is done are not those that it had
 */
export async function stateOf(folder: string): Promise<RunState> {
  const summary = readSummary(folder);
  if (summary?.status === "done") {
    const newest = await newestCheckpoint(folder);
    if (newest) requireMetrics(folder, readState(newest).logs);
    return { status: "done", summary };
  }
  // The same again would diverge again; what else made it fail may have been mended.
  if (summary?.status === "failed" && /^Training diverged/.test(summary.error ?? "")) {
    return { status: "diverged", summary };
  }
  return { status: await newestCheckpoint(folder) ? "started" : "new", summary };
}

/**
 * The configuration of a run folder, or null where there is none.
 *
 * @throws {UserError} if it is damaged, or another program's
 */
export function configOf(folder: string): RunConfig | null {
  const path = join(folder, "config.json");
  const saved = readJson(path);
  return saved && savedConfig(saved, path);
}

/** What a run makes in its folder. */
const OWN_FILES: readonly string[] = [
  ...["config.json", "env.json", "metrics.jsonl", "samples.txt", "summary.json", "report.html"],
  ...["evaluations.json", "checkpoints", LOCK_FILE],
];

/** What a run makes before its `config.json`. */
const FIRST_FILES: readonly string[] = [LOCK_FILE, "config.json.partial"];

/**
 * Removes the folder of a run that has no checkpoint, and so is to be begun again.
 *
 * @param options.isCopy whether its checkpoints are copies of a trunk's, and go with it
 * @throws {UserError} if it is not shown to be a run's, holds anything that no run makes, or
 * another process is at it
 */
export function removeBegun(folder: string, { isCopy = false } = {}): void {
  if (!isThere(folder)) return;
  const action = `begin ${folder} again`;
  using _lock = FolderLock.take(folder, { action });
  const refuse = (what: string): never => {
    throw new UserError(`Cannot ${action}: it holds ${what}; take that away`);
  };
  const names = [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
  const strange = names.find((name) => !OWN_FILES.includes(name.replace(/\.partial$/, ""))) ??
    strangeCheckpoint(folder, (name) => isLeftover(name) || isCopy && isCheckpoint(name));
  if (strange) refuse(`${strange}, which no run makes`);
  const later = names.find((name) => !FIRST_FILES.includes(name));
  if (later && !configOf(folder)) refuse(`${later} and no config.json, as no run does`);
  writing(folder, () => Deno.removeSync(folder, { recursive: true }));
}

/** What is in the folder of a run's checkpoints and may not go. */
function strangeCheckpoint(run: string, mayGo: (name: string) => boolean): string | undefined {
  const folder = join(run, "checkpoints");
  if (!isThere(folder)) return undefined;
  if (!Deno.statSync(folder).isDirectory) return "checkpoints as a file";
  const names = [...Deno.readDirSync(folder)].map(({ name }) => name);
  const strange = names.find((name) => !mayGo(name));
  return strange && `checkpoints/${strange}`;
}

/** Whether a run's results stay the same whatever the key says. */
function isFreeKey(key: ConfigKey, { stages }: RunConfig): boolean {
  const { effect } = fields[key];
  // Where a stage with a criterion ends depends on when it is looked at.
  if (key === "evalEvery" && stages.some(({ until }) => until !== null)) return false;
  // What a recipe comes to is in the stages.
  return effect === "run" || effect === "log" || key === "recipe";
}

/**
 * Refuses a folder whose run was made with another configuration.
 *
 * @throws {UserError} naming the first key that differs, with both values
 */
export function requireSame(folder: string, planned: RunConfig): void {
  const saved = configOf(folder);
  if (!saved) return;
  for (const key of configKeys) {
    const isFree = isFreeKey(key, planned) ||
      key === "vocabSize" && planned.vocabSize === 0;
    if (isFree || show(saved[key]) === show(planned[key])) continue;
    refuse(folder, key, saved[key], planned[key]);
  }
  const [old, own] = [saved.stages, planned.stages];
  own.forEach((stage, i) => {
    for (const [key, value] of Object.entries(stage)) {
      const before = old[i]?.[key as keyof typeof stage];
      if (before !== value) refuse(folder, `${stage.name}.${key}`, before, value);
    }
  });
  if (old.length > own.length) refuse(folder, "stages", old.length, own.length);
}

function refuse(folder: string, key: string, before: unknown, now: unknown): never {
  throw new UserError(
    `Cannot go on in ${folder}: it was made with ${key}=${show(before)}, now it is ${show(now)}; ` +
      "take another folder with name=…, or remove this one",
  );
}
