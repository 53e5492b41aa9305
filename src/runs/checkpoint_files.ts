/**
 * The files of a checkpoint: a model as transformers loads it, the optimizer's moments, and
 * `state.json`, which tells where the run was.
 *
 * @module
 */
import { join } from "node:path";
import type { RunConfig } from "../config/config.ts";
import { TOKENIZER_CONFIG } from "../data/tokenizer.ts";
import { UserError } from "../errors.ts";
import { isThere, readJson } from "../files/files.ts";
import { toHuggingFace } from "../config/hugging_face.ts";
import { modelParameters } from "../model/parameters.ts";
import { savedParameters } from "../model/saved_parameters.ts";
import { readSafetensors, type TensorData, writeSafetensors } from "../files/safetensors.ts";
import { stageAt } from "../config/stages.ts";
import type { EngineState } from "../engine.ts";
import type { LogMark } from "./log_mark.ts";
import { pretty } from "./run_folder.ts";

const format = "latentk";
const version = 2;

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

/** Content of `state.json`. */
export interface SavedState {
  format: string;
  version: number;
  step: number;
  config: Partial<RunConfig>;
  logs: LogMark;
}

/** Writes all files of a checkpoint; they are on the disk afterwards. */
export async function writeFiles(folder: string, snapshot: Snapshot, logs: LogMark): Promise<void> {
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
  await writeJson(join(folder, "config.json"), toHuggingFace(config, stageAt(config.stages, step)));
  if (tokenizer !== null) {
    await writeJson(join(folder, "tokenizer.json"), tokenizer);
    await writeJson(join(folder, "tokenizer_config.json"), TOKENIZER_CONFIG);
  }
  await writeJson(join(folder, "state.json"), saved);
  await syncFolder(folder);
}

function valuesOf(tensors: ReadonlyMap<string, Float32Array>, name: string): Float32Array {
  const data = tensors.get(name);
  if (!data) throw new RangeError(`the state has no ${name}`);
  return data;
}

/** Reads the parameters of a model, once for each prefix of their names. */
export async function readTensors(
  file: string,
  config: RunConfig,
  prefixes?: readonly string[],
): Promise<Map<string, Float32Array>> {
  const { tensors } = await readSafetensors(file);
  return savedParameters(tensors, config, { file, prefixes });
}

/**
 * Reads `state.json` of a checkpoint.
 *
 * @throws {UserError} if it is missing, damaged or of another program
 */
export function readState(path: string): SavedState {
  if (!isThere(path)) throw new UserError(`Cannot load ${path}: there is no such folder`);
  const state = readJson(join(path, "state.json")) as Partial<SavedState> | null;
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

async function writeJson(path: string, value: unknown): Promise<void> {
  using file = await Deno.open(path, { write: true, create: true, truncate: true });
  const bytes = new TextEncoder().encode(pretty(value));
  for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
  await file.sync();
}

/** Makes renames in a folder durable. Windows has no such call, and needs none. */
export async function syncFolder(path: string): Promise<void> {
  if (Deno.build.os === "windows") return;
  using folder = await Deno.open(path);
  await folder.sync();
}
