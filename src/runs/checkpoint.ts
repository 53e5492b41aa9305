/**
 * Checkpoints: `checkpoints/step_000500/` in the run folder, which transformers can load, with
 * the optimizer's moments beside the model.
 *
 * A checkpoint is written to `step_000500.partial/` and renamed when all of it is on the disk, so
 * a folder `step_…` is always whole, whenever the process or the machine stops.
 *
 * @module
 */
import { join } from "node:path";
import type { RunConfig } from "../config/config.ts";
import type { EngineState } from "../engine.ts";
import { UserError, WriteError } from "../errors.ts";
import { isThere, readJson } from "../files/files.ts";
import { type StageView, viewOf } from "../model/stage_view.ts";
import { savedConfig } from "../config/saved_config.ts";
import { isIndexed, stageAt, stageSpans } from "../config/stages.ts";
import type { Stage } from "../config/stage_fields.ts";
import {
  readTensors,
  readVerified,
  type Snapshot,
  syncFolder,
  writeFiles,
} from "./checkpoint_files.ts";
import { requireSound } from "./diverged.ts";
import { type LogMark, markLogs } from "./log_mark.ts";

/** A checkpoint as read. */
export interface Checkpoint extends Snapshot {
  /** Its folder, `…/checkpoints/step_…`. */
  readonly path: string;
  /** Where the logs ended when it was saved. */
  readonly logs: LogMark;
}

/**
 * Saves a checkpoint and removes the oldest beyond `keepCheckpoints`, but for ends of stages that
 * later ones start from and of the last stage with an indexer. A checkpoint of this step that is
 * there already is left as it is: the same step of the same run holds the same.
 *
 * @param run the run folder
 * @returns the checkpoint's folder
 * @throws {WriteError} if it cannot be written, e.g. on a full disk; the earlier ones stay as they are
 * @throws {Diverged} if the state is not finite
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveConfig } from "../config/config.ts";
 * import { initialParameters } from "../model/parameters.ts";
 * import { latestCheckpoint, loadCheckpoint, saveCheckpoint } from "./checkpoint.ts";
 * import { RunFolder } from "./run_folder.ts";
 *
 * const config = resolveConfig({ numHiddenLayers: 1 });
 * const run = RunFolder.create(config, { experiment: "e", root: await Deno.makeTempDir() });
 * const parameters = initialParameters(config);
 * const state = { parameters, m: parameters, v: parameters };
 * const path = await saveCheckpoint(run.path, { step: 0, config, state, tokenizer: null });
 * assert.equal(await latestCheckpoint(run.path), path);
 * assert.deepEqual((await loadCheckpoint(path)).state.parameters, parameters);
 * ```
 */
export async function saveCheckpoint(run: string, snapshot: Snapshot): Promise<string> {
  const { step, config, state } = snapshot;
  requireSound(state, { step, stage: stageAt(config.stages, step) });
  const folder = join(run, "checkpoints");
  const path = checkpointAt(run, step);
  const partial = `${path}.partial`;
  try {
    await Deno.mkdir(folder, { recursive: true });
    await removeLeftovers(folder);
    if (!isThere(path)) {
      await Deno.mkdir(partial);
      await writeFiles(partial, snapshot, markLogs(run));
      await Deno.rename(partial, path);
      await syncFolder(folder);
    }
    await prune(folder, config);
  } catch (error) {
    await Deno.remove(partial, { recursive: true }).catch(() => {});
    const reason = error instanceof Error ? error.message : String(error);
    throw new WriteError(
      `Cannot save ${path}: ${reason}; earlier checkpoints are intact: go on with resume=${run}`,
      { cause: error },
    );
  }
  return path;
}

/** The folder of the checkpoint after `step` steps. */
export function checkpointAt(run: string, step: number): string {
  return join(run, "checkpoints", `step_${String(step).padStart(6, "0")}`);
}

/** The newest whole checkpoint of a run, or null where there is none. */
export async function newestCheckpoint(run: string): Promise<string | null> {
  const folder = join(run, "checkpoints");
  const newest = (await checkpointNames(folder)).at(-1);
  return newest === undefined ? null : join(folder, newest);
}

/**
 * The newest whole checkpoint of a run that is to go on.
 *
 * @throws {UserError} if there is no such run, or it has no checkpoint yet
 */
export async function latestCheckpoint(run: string): Promise<string> {
  const newest = await newestCheckpoint(run);
  if (newest) return newest;
  if (!isThere(run)) {
    throw new UserError(`Cannot resume ${run}: there is no such folder; give one of runs/`);
  }
  if (isThere(join(run, "state.json"))) {
    throw new UserError(
      `Cannot resume ${run}: it is a checkpoint; give its run, ${join(run, "../..")}`,
    );
  }
  throw new UserError(
    `Cannot resume ${run}: it holds no checkpoint (checkpoints/step_…); start a new run`,
  );
}

/**
 * Reads a checkpoint and checks that it is whole and fits its own configuration.
 *
 * @param path a folder `checkpoints/step_…`
 * @param options `optimizer: false` leaves out the moments: enough to sample or evaluate
 * @throws {UserError} naming the file, where one is missing, damaged or of another program
 */
export async function loadCheckpoint(
  path: string,
  options: { optimizer?: boolean } = {},
): Promise<Checkpoint> {
  const { optimizer = true } = options;
  const { config: saved, step, logs, data } = readVerified(path, { optimizer });
  const config = savedConfig(saved, join(path, "state.json"));
  const state: EngineState = {
    parameters: await readTensors(path, { step, config, kind: "model" }),
    m: new Map(),
    v: new Map(),
  };
  if (optimizer) {
    const moments = await readTensors(path, { step, config, kind: "optimizer" });
    for (const [name, data] of moments) state[name[0] as "m" | "v"].set(name.slice(2), data);
  }
  const tokenizer = readJson(join(path, "tokenizer.json"));
  return { path, step, config, state, logs, tokenizer, data };
}

/** The attention that the model of a checkpoint has: that of the stage it was saved in. */
export function checkpointView({ config, step }: Pick<Checkpoint, "config" | "step">): StageView {
  return { ...viewOf(stageAt(config.stages, step), config), kl: "none", trainsIndexer: false };
}

/** Names of the whole checkpoints in a folder `checkpoints`, oldest first. */
export async function checkpointNames(folder: string): Promise<string[]> {
  const names: string[] = [];
  try {
    for await (const { name, isDirectory } of Deno.readDir(folder)) {
      if (isDirectory && isCheckpoint(name)) names.push(name);
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return names.sort((a, b) => stepOf(a) - stepOf(b));
}

/** Whether a folder of `checkpoints` is whole, by its name. */
export function isCheckpoint(name: string): boolean {
  return /^step_\d{6,}$/.test(name);
}

/** Whether a folder of `checkpoints` was left half written or half removed, by its name. */
export function isLeftover(name: string): boolean {
  return /^step_\d{6,}\.(partial|removed)$/.test(name);
}

/** Steps of a checkpoint `step_…`. */
export function stepOf(name: string): number {
  return Number(name.slice("step_".length));
}

/**
 * Removes all checkpoints of a finished run but the newest and the end of the last stage with an
 * indexer.
 */
export async function keepLatestCheckpoint(run: string, { stages }: RunConfig): Promise<void> {
  await removeOld(join(run, "checkpoints"), { newest: 1, needed: [indexedEnd(stages)] });
}

/** Step at the end of the last stage with an indexer: the run is about it, though others follow. */
function indexedEnd(stages: readonly Stage[]): number | undefined {
  return stageSpans(stages).findLast(({ stage }) => isIndexed(stage))?.end;
}

async function prune(folder: string, { stages, keepCheckpoints }: RunConfig): Promise<void> {
  const starts = stageSpans(stages)
    .filter(({ stage }) => stages.some(({ from }) => from === stage.name))
    .map(({ end }) => end);
  await removeOld(folder, { newest: keepCheckpoints, needed: [...starts, indexedEnd(stages)] });
}

async function removeOld(
  folder: string,
  { newest, needed }: { newest: number; needed: readonly (number | undefined)[] },
): Promise<void> {
  for (const name of (await checkpointNames(folder)).slice(0, -newest)) {
    if (!needed.includes(stepOf(name))) await removeCheckpoint(folder, name);
  }
}

async function removeCheckpoint(folder: string, name: string): Promise<void> {
  // Renamed first: a folder that is half removed must not look whole.
  const removed = join(folder, `${name}.removed`);
  await Deno.rename(join(folder, name), removed);
  await Deno.remove(removed, { recursive: true });
}

async function removeLeftovers(folder: string): Promise<void> {
  for await (const { name } of Deno.readDir(folder)) {
    if (isLeftover(name)) {
      await Deno.remove(join(folder, name), { recursive: true });
    }
  }
}
