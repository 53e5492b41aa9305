/**
 * What a run folder of an ablation holds already.
 *
 * @module
 */
import { join } from "node:path";
import { type ConfigInput, configKeys, fields, resolveConfig, type RunConfig } from "../config.ts";
import { UserError } from "../errors.ts";
import { show } from "../fields.ts";
import { latestCheckpoint } from "../train/checkpoint.ts";
import { readSummary, type Summary } from "../train/run_folder.ts";

/**
 * - `new`: nothing that could be gone on with
 * - `started`: it has a checkpoint
 * - `done`, `diverged`: to be left as it is
 */
export interface RunState {
  readonly status: "new" | "started" | "done" | "diverged";
  readonly summary: Summary | null;
}

/** The state of a run folder. */
export async function stateOf(folder: string): Promise<RunState> {
  const summary = readSummary(folder);
  if (summary?.status === "done") return { status: "done", summary };
  // The same again would diverge again; what else made it fail may have been mended.
  if (summary?.status === "failed" && /^Training diverged/.test(summary.error ?? "")) {
    return { status: "diverged", summary };
  }
  const isSaved = await latestCheckpoint(folder).then(() => true, () => false);
  return { status: isSaved ? "started" : "new", summary };
}

/** The configuration of a run folder, or null where there is none. */
export function configOf(folder: string): RunConfig | null {
  try {
    const text = Deno.readTextFileSync(join(folder, "config.json"));
    return resolveConfig(JSON.parse(text) as ConfigInput);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

/** Keys that may differ from those of a run that is there: its results stay the same. */
const FREE: readonly string[] = [
  "name",
  "resume",
  "preset",
  "autotune",
  "profile",
  "recompute",
  "recipe",
];

/**
 * Refuses a folder whose run was made with another configuration.
 *
 * @throws {UserError} naming the first key that differs, with both values
 */
export function requireSame(folder: string, planned: RunConfig): void {
  const saved = configOf(folder);
  if (!saved) return;
  for (const key of configKeys) {
    const isFree = FREE.includes(key) || fields[key].group === "log" ||
      key === "vocabSize" && planned.vocabSize === 0;
    if (isFree || String(saved[key]) === String(planned[key])) continue;
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
