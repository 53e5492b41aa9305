/**
 * Checkpoints: `checkpoints/step_000500/` in the run folder, which transformers can load, with
 * the optimizer's moments beside the model.
 *
 * A checkpoint is written to `step_000500.partial/` and renamed when all of it is on the disk, so
 * a folder `step_…` is always whole, whenever the process or the machine stops.
 *
 * @module
 */
import { basename, join } from "node:path";
import {
  type ConfigInput,
  type ConfigKey,
  configKeys,
  parseOverrides,
  resolveConfig,
  type RunConfig,
} from "../config.ts";
import type { EngineState } from "../engine.ts";
import { UserError } from "../errors.ts";
import { toHuggingFace } from "../hugging_face.ts";
import { modelParameters } from "../model/parameters.ts";
import { type StageView, viewOf } from "../model/stage_view.ts";
import { readSafetensors, type TensorData, writeSafetensors } from "../safetensors.ts";
import { type Stage, stageSpans } from "../stages.ts";
import { type LogMark, markLogs, pretty } from "./run_folder.ts";

/** What a run needs to go on. */
export interface Snapshot {
  /** Finished steps. */
  readonly step: number;
  /** The configuration of the run. */
  readonly config: RunConfig;
  /** Parameters and moments, by Hugging Face name. */
  readonly state: EngineState;
  /** A Hugging Face `tokenizer.json`, or null where the tokenizer needs none. */
  readonly tokenizer: unknown;
}

/** A checkpoint as read. */
export interface Checkpoint extends Snapshot {
  /** Its folder, `…/checkpoints/step_…`. */
  readonly path: string;
  /** Where the logs ended when it was saved. */
  readonly logs: LogMark;
}

/** The keys that a resumed run may change: they do not touch what is trained. */
export const changeableOnResume: readonly ConfigKey[] = [
  "resume",
  "steps",
  "device",
  "recompute",
  "autotune",
  "profile",
  "logEvery",
  "evalEvery",
  "saveEvery",
  "keepCheckpoints",
  "sampleEvery",
  "sampleTokens",
  "samplePrompt",
  "temperature",
];

const format = "latentk";
const version = 1;

/**
 * Saves a checkpoint and removes the oldest beyond `keepCheckpoints`. A checkpoint of this step
 * that is there already is left as it is: the same step of the same run holds the same.
 *
 * @param run the run folder
 * @returns the checkpoint's folder
 * @throws {Error} if it cannot be written, e.g. on a full disk; the earlier ones stay as they are
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveConfig } from "../config.ts";
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
  const folder = join(run, "checkpoints");
  const path = checkpointAt(run, snapshot.step);
  const partial = `${path}.partial`;
  try {
    await Deno.mkdir(folder, { recursive: true });
    await removeLeftovers(folder);
    if (!await exists(path)) {
      await Deno.mkdir(partial);
      await write(partial, snapshot, markLogs(run));
      await Deno.rename(partial, path);
      await syncFolder(folder);
    }
    await prune(folder, snapshot.config);
  } catch (error) {
    await Deno.remove(partial, { recursive: true }).catch(() => {});
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(
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

/**
 * The configuration of a run that was stopped before its first checkpoint, or null where there is
 * a checkpoint or no run. Such a run starts again from its beginning.
 */
export async function unsavedConfig(run: string): Promise<RunConfig | null> {
  if ((await list(join(run, "checkpoints"))).length) return null;
  const config = await readJson(join(run, "config.json"));
  const isRun = config !== null && await exists(join(run, "summary.json"));
  return isRun ? resolveConfig(config as ConfigInput) : null;
}

/**
 * The newest whole checkpoint of a run.
 *
 * @throws {UserError} if there is no such run, or it has no checkpoint yet
 */
export async function latestCheckpoint(run: string): Promise<string> {
  const folder = join(run, "checkpoints");
  const newest = (await list(folder)).at(-1);
  if (newest) return join(folder, newest);
  if (!await exists(run)) {
    throw new UserError(`Cannot resume ${run}: there is no such folder; give one of runs/`);
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
  const { config: saved, step, logs } = await readState(path);
  const config = resolveConfig(saved);
  const model = join(path, "model.safetensors");
  const state: EngineState = {
    parameters: await readTensors(model, config, [""]),
    m: new Map(),
    v: new Map(),
  };
  if (options.optimizer ?? true) {
    const moments = await readTensors(join(path, "optimizer.safetensors"), config, ["m.", "v."]);
    for (const [name, data] of moments) state[name[0] as "m" | "v"].set(name.slice(2), data);
  }
  const tokenizer = await readJson(join(path, "tokenizer.json"));
  return { path, step, config, state, logs, tokenizer };
}

/** The attention that the model of a checkpoint has: that of the stage it was saved in. */
export function checkpointView({ config, step }: Pick<Checkpoint, "config" | "step">): StageView {
  return { ...viewOf(stageAt(config, step), config), kl: "none", trainsIndexer: false };
}

/** The stage in which step `step` of a run is the last one done; its last stage for later steps. */
function stageAt({ stages }: RunConfig, step: number): Stage {
  const span = stageSpans(stages).find(({ end }) => step <= end);
  return span?.stage ?? stages[stages.length - 1];
}

/**
 * The configuration of a run that goes on: that of its checkpoint with what was typed, which may
 * only change {@linkcode changeableOnResume}.
 *
 * @throws {UserError} naming the key, its old and its new value
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveConfig } from "../config.ts";
 * import { resumeConfig } from "./checkpoint.ts";
 *
 * const saved = resolveConfig({ recipe: "dense", steps: 300 });
 * assert.equal(resumeConfig(saved, ["resume=runs/quickstart_001", "steps=600"]).steps, 600);
 * assert.throws(() => resumeConfig(saved, ["hiddenSize=128"]), /hiddenSize=128/);
 * ```
 */
export function resumeConfig(saved: RunConfig, overrides: readonly string[]): RunConfig {
  const typed = parseOverrides(overrides);
  for (const key of configKeys) {
    const value = typed[key];
    if (value === undefined || changeableOnResume.includes(key)) continue;
    if (String(value) === String(saved[key])) continue;
    throw new UserError(
      `Cannot resume with ${key}=${value ?? "none"}: the run was started with ` +
        `${key}=${saved[key] ?? "none"}; leave it out, or start a new run`,
    );
  }
  const config = resolveConfig(saved, overrides);
  const fixed = (stages: readonly Stage[]) =>
    JSON.stringify(stages.map((s, i) => i === stages.length - 1 ? { ...s, steps: 0 } : s));
  if (fixed(config.stages) !== fixed(saved.stages)) {
    throw new UserError(
      "Cannot resume with other stages: only the steps of the last one may be changed " +
        `(${saved.stages[saved.stages.length - 1].name}.steps=…); start a new run`,
    );
  }
  return config;
}

interface SavedState {
  format: string;
  version: number;
  step: number;
  config: Partial<RunConfig>;
  logs: LogMark;
}

async function write(folder: string, snapshot: Snapshot, logs: LogMark): Promise<void> {
  const { step, config, state, tokenizer } = snapshot;
  const model = new Map<string, TensorData>();
  const optimizer = new Map<string, TensorData>();
  for (const { name, shape } of modelParameters(config)) {
    model.set(name, { shape, data: valuesOf(state.parameters, name) });
    optimizer.set(`m.${name}`, { shape, data: valuesOf(state.m, name) });
    optimizer.set(`v.${name}`, { shape, data: valuesOf(state.v, name) });
  }
  const metadata = { format: "pt", step: String(step) };
  await writeSafetensors(join(folder, "model.safetensors"), model, { metadata });
  await writeSafetensors(join(folder, "optimizer.safetensors"), optimizer, { metadata });
  const saved = { format, version, step, config: { ...config, resume: null }, logs };
  await writeJson(join(folder, "config.json"), toHuggingFace(config, stageAt(config, step)));
  if (tokenizer !== null) await writeJson(join(folder, "tokenizer.json"), tokenizer);
  await writeJson(join(folder, "state.json"), saved);
  await syncFolder(folder);
}

function valuesOf(tensors: ReadonlyMap<string, Float32Array>, name: string): Float32Array {
  const data = tensors.get(name);
  if (!data) throw new RangeError(`the state has no ${name}`);
  return data;
}

/** Reads the parameters of a model, once for each prefix of their names. */
async function readTensors(
  file: string,
  config: RunConfig,
  prefixes: readonly string[],
): Promise<Map<string, Float32Array>> {
  const { tensors } = await readSafetensors(file);
  const values = new Map<string, Float32Array>();
  for (const { name, shape } of modelParameters(config)) {
    for (const prefix of prefixes) {
      const found = tensors.get(prefix + name);
      if (!found) throw new UserError(`Cannot load ${file}: ${prefix}${name} is missing`);
      if (String(found.shape) !== String(shape) || !(found.data instanceof Float32Array)) {
        throw new UserError(
          `Cannot load ${file}: ${prefix}${name} is ${found.dtype} [${found.shape}], ` +
            `but the model needs F32 [${shape}]`,
        );
      }
      values.set(prefix + name, found.data);
      tensors.delete(prefix + name);
    }
  }
  for (const name of tensors.keys()) {
    throw new UserError(`Cannot load ${file}: the model has no parameter ${name}`);
  }
  return values;
}

async function readState(path: string): Promise<SavedState> {
  if (!await exists(path)) throw new UserError(`Cannot load ${path}: there is no such folder`);
  const state = await readJson(join(path, "state.json")) as Partial<SavedState> | null;
  if (state?.format !== format) {
    throw new UserError(
      `Cannot load ${path}: it is no checkpoint of latentk (` +
        (state ? 'state.json has no format "latentk")' : "state.json is missing)"),
    );
  }
  if (state.version !== version) {
    throw new UserError(
      `Cannot load ${path}: its version is ${state.version}, this program reads ${version}`,
    );
  }
  const { step, config, logs } = state;
  const isWhole = Number.isSafeInteger(step) && Number.isSafeInteger(logs?.metrics) &&
    Number.isSafeInteger(logs?.samples) && typeof config === "object" && config !== null;
  if (!isWhole) throw new UserError(`Cannot load ${path}: state.json is damaged`);
  return state as SavedState;
}

/** Names of the whole checkpoints, oldest first. */
async function list(folder: string): Promise<string[]> {
  const names: string[] = [];
  try {
    for await (const { name, isDirectory } of Deno.readDir(folder)) {
      if (isDirectory && /^step_\d{6,}$/.test(name)) names.push(name);
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return names.sort((a, b) => stepOf(a) - stepOf(b));
}

function stepOf(name: string): number {
  return Number(name.slice("step_".length));
}

/** Removes all checkpoints of a finished run but the newest. */
export async function keepLatestCheckpoint(run: string): Promise<void> {
  const folder = join(run, "checkpoints");
  for (const name of (await list(folder)).slice(0, -1)) await removeCheckpoint(folder, name);
}

async function prune(folder: string, config: RunConfig): Promise<void> {
  const spans = stageSpans(config.stages);
  // A later stage starts from here.
  const needed = spans
    .filter(({ stage }) => config.stages.some(({ from }) => from === stage.name))
    .map(({ end }) => end);
  for (const name of (await list(folder)).slice(0, -config.keepCheckpoints)) {
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
    if (/^step_\d{6,}\.(partial|removed)$/.test(name)) {
      await Deno.remove(join(folder, name), { recursive: true });
    }
  }
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

async function readJson(path: string): Promise<unknown> {
  let text: string;
  try {
    text = await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw new UserError(`Cannot read ${path}: ${error instanceof Error ? error.message : error}`);
  }
  try {
    return JSON.parse(text);
  } catch {
    throw new UserError(`Cannot read ${path}: ${basename(path)} is damaged`);
  }
}

async function writeJson(path: string, value: unknown): Promise<void> {
  using file = await Deno.open(path, { write: true, create: true, truncate: true });
  const bytes = new TextEncoder().encode(pretty(value));
  for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
  await file.sync();
}

/** Makes renames in a folder durable. Windows has no such call, and needs none. */
async function syncFolder(path: string): Promise<void> {
  if (Deno.build.os === "windows") return;
  using folder = await Deno.open(path);
  await folder.sync();
}
