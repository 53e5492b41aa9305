/**
 * The files of a checkpoint: a model as transformers loads it, the optimizer's moments, and
 * `state.json`, which tells where the run was.
 *
 * @module
 */
import { basename, join, resolve } from "node:path";
import type { RunConfig } from "../config/config.ts";
import type { DataIdentity } from "../data/identity.ts";
import { TOKENIZER_CONFIG } from "../data/tokenizer/tokenizer.ts";
import { UserError } from "../errors.ts";
import { isThere, readJson } from "../files/files.ts";
import { type FileSum, Summing } from "../files/checksum.ts";
import { toHuggingFace } from "../config/hugging_face.ts";
import { modelParameters } from "../model/parameters.ts";
import { savedParameters } from "../model/saved_parameters.ts";
import { readSafetensors, type TensorData, writeSafetensors } from "../files/safetensors.ts";
import { stageAt } from "../config/stages.ts";
import type { EngineState } from "../engine.ts";
import { MANIFEST, type Manifest, verifyFiles } from "./manifest.ts";
import type { LogMark } from "./log_mark.ts";
import { pretty } from "./run_folder.ts";

const format = "latentk";
/** Version 2 had no manifest. */
const version = 3;
const readable: readonly unknown[] = [2, version];
const MODEL = "model.safetensors";
const OPTIMIZER = "optimizer.safetensors";

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
  /** Of the text that it is trained on; null for generated tasks, undefined where not known. */
  readonly data?: DataIdentity | null;
}

/** Content of `state.json`. */
export interface SavedState {
  format: string;
  version: number;
  step: number;
  config: Partial<RunConfig>;
  logs: LogMark;
  data?: DataIdentity | null;
}

/** Writes all files of a checkpoint; they are on the disk afterwards. */
export async function writeFiles(folder: string, snapshot: Snapshot, logs: LogMark): Promise<void> {
  const { step, config, state, tokenizer, data } = snapshot;
  const model = new Map<string, TensorData>();
  const optimizer = new Map<string, TensorData>();
  for (const { name, shape } of modelParameters(config)) {
    model.set(name, { shape, data: valuesOf(state.parameters, name) });
    optimizer.set(`m.${name}`, { shape, data: valuesOf(state.m, name) });
    optimizer.set(`v.${name}`, { shape, data: valuesOf(state.v, name) });
  }
  const metadata = { format: "pt", step: String(step) };
  const files: Record<string, FileSum> = {};
  for (const [name, tensors] of [[MODEL, model], [OPTIMIZER, optimizer]] as const) {
    files[name] = await writeSafetensors(join(folder, name), tensors, { metadata });
  }
  const saved = { format, version, step, config: { ...config, resume: null }, logs, data };
  const texts: Record<string, unknown> = {
    "config.json": toHuggingFace(config, stageAt(config.stages, step)),
    ...(tokenizer === null
      ? {}
      : { "tokenizer.json": tokenizer, "tokenizer_config.json": TOKENIZER_CONFIG }),
    "state.json": saved,
  };
  for (const [name, content] of Object.entries(texts)) {
    files[name] = await writeJson(join(folder, name), content);
  }
  const manifest: Manifest = { step, files };
  await writeJson(join(folder, MANIFEST), manifest);
  await syncFolder(folder);
}

function valuesOf(tensors: ReadonlyMap<string, Float32Array>, name: string): Float32Array {
  const data = tensors.get(name);
  if (!data) throw new RangeError(`the state has no ${name}`);
  return data;
}

/**
 * Reads the parameters of a checkpoint's model or, by `m.` and `v.` and their names, its moments.
 *
 * @throws {UserError} if the file is missing, damaged, or of another model or step
 */
export async function readTensors(
  folder: string,
  { step, config, kind }: { step: number; config: RunConfig; kind: "model" | "optimizer" },
): Promise<Map<string, Float32Array>> {
  const [name, prefixes] = kind === "model" ? [MODEL, [""]] : [OPTIMIZER, ["m.", "v."]];
  const file = join(folder, name);
  const { tensors, metadata } = await readSafetensors(file);
  if (metadata.step !== String(step)) {
    throw new UserError(
      `Cannot load ${file}: it is of step ${metadata.step}, state.json of step ${step}`,
    );
  }
  return savedParameters(tensors, config, { file, prefixes });
}

/**
 * Reads `state.json` of a checkpoint, and checks its files by their checksums.
 *
 * @param options `optimizer: false` leaves out the moments
 * @throws {UserError} if one is missing, damaged, edited, or of another step or program
 */
export function readVerified(path: string, options: { optimizer: boolean }): SavedState {
  const state = readState(path);
  const { step } = state;
  const name = basename(resolve(path));
  // A checkpoint that was copied may be called anything else.
  if (/^step_\d+$/.test(name) && Number(name.slice("step_".length)) !== step) {
    throw new UserError(`Cannot load ${path}: its state.json is of step ${step}`);
  }
  const without = options.optimizer ? [] : [OPTIMIZER];
  if (state.version === version) verifyFiles(path, { step, without });
  return state;
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
  if (!readable.includes(state.version)) {
    throw new UserError(
      `Cannot load ${path}: its version is ${JSON.stringify(state.version)}, this program reads ${
        readable.join(" and ")
      }`,
    );
  }
  const { step, config, logs } = state;
  const isWhole = Number.isSafeInteger(step) && Number.isSafeInteger(logs?.metrics) &&
    Number.isSafeInteger(logs?.samples) && typeof config === "object" && config !== null;
  if (!isWhole) throw new UserError(`Cannot load ${path}: state.json is damaged`);
  return state as SavedState;
}

async function writeJson(path: string, value: unknown): Promise<FileSum> {
  using file = await Deno.open(path, { write: true, create: true, truncate: true });
  const bytes = new TextEncoder().encode(pretty(value));
  for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
  await file.sync();
  return new Summing().add(bytes).sum();
}

/** Makes renames in a folder durable. Windows has no such call, and needs none. */
export async function syncFolder(path: string): Promise<void> {
  if (Deno.build.os === "windows") return;
  using folder = await Deno.open(path);
  await folder.sync();
}
