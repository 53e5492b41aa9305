/**
 * Models to evaluate: the latest checkpoint of a run, one checkpoint, or a folder in Hugging
 * Face's layout.
 *
 * @module
 */
import { join } from "node:path";
import { type ConfigInput, resolveConfig, type RunConfig } from "../config.ts";
import { UserError } from "../errors.ts";
import { fromHuggingFace } from "../hugging_face.ts";
import { modelParameters } from "../model/parameters.ts";
import { readSafetensors } from "../safetensors.ts";
import { latestCheckpoint, loadCheckpoint } from "../train/checkpoint.ts";

/** A model as found in a folder. */
export interface SavedModel {
  /** What was asked for. */
  readonly folder: string;
  /** Steps that it was trained for; null in Hugging Face's layout, which does not tell. */
  readonly step: number | null;
  /** Of the run; in Hugging Face's layout its one stage says how the model attends. */
  readonly config: RunConfig;
  /** Values by Hugging Face's name. */
  readonly parameters: ReadonlyMap<string, Float32Array>;
  /** Content of its `tokenizer.json`; null where there is none. */
  readonly tokenizer: object | null;
}

/** Longest sequences of a model in Hugging Face's layout, unless `seqLen` is typed. */
const HUGGING_FACE_SEQ_LEN = 1024;

/**
 * Reads the model of a run folder, a checkpoint (`…/checkpoints/step_…`) or a folder with
 * `config.json` and `model.safetensors`.
 *
 * @param typed keys that win over those of the run
 * @throws {UserError} if there is no model, or it is damaged or one that is not computed here
 */
export async function loadModel(folder: string, typed: ConfigInput): Promise<SavedModel> {
  if (!await isThere(folder)) {
    throw new UserError(
      `Cannot evaluate ${folder}: there is no such folder; give a run of runs/, or a folder with ` +
        "config.json and model.safetensors",
    );
  }
  if (await isThere(join(folder, "state.json"))) return fromCheckpoint(folder, folder, typed);
  if (await isThere(join(folder, "model.safetensors"))) return fromFolder(folder, typed);
  let latest: string;
  try {
    latest = await latestCheckpoint(folder);
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    throw new UserError(
      await isThere(join(folder, "metrics.jsonl"))
        ? `Cannot evaluate ${folder}: the run has saved no checkpoint (checkpoints/step_…) yet`
        : `Cannot evaluate ${folder}: neither a run (checkpoints/step_…) nor a model ` +
          "(config.json, model.safetensors)",
    );
  }
  return fromCheckpoint(folder, latest, typed);
}

async function fromCheckpoint(
  folder: string,
  path: string,
  typed: ConfigInput,
): Promise<SavedModel> {
  const { config, step, state, tokenizer } = await loadCheckpoint(path, { optimizer: false });
  const { indexTopk } = typed;
  const stages = indexTopk === undefined
    ? config.stages
    : config.stages.map((stage) => ({ ...stage, indexTopk }));
  return {
    folder,
    step,
    config: resolveConfig({ ...config, ...typed, stages }),
    parameters: state.parameters,
    tokenizer: tokenizer as object | null,
  };
}

async function fromFolder(folder: string, typed: ConfigInput): Promise<SavedModel> {
  const json = await readJson(join(folder, "config.json"));
  if (!json) throw new UserError(`Cannot evaluate ${folder}: config.json is missing`);
  if (typed.data === undefined) {
    throw new UserError(
      `Cannot evaluate ${folder}: it does not tell its data; add data=<text file>, or a task`,
    );
  }
  const file = join(folder, "model.safetensors");
  const { tensors } = await readSafetensors(file);
  const hasIndexer = [...tensors.keys()].some((name) => name.includes(".indexer."));
  const longest = Number(json.max_position_embeddings ?? HUGGING_FACE_SEQ_LEN);
  const config = resolveConfig({
    seqLen: Math.min(longest, HUGGING_FACE_SEQ_LEN),
    ...fromHuggingFace(json),
    recipe: hasIndexer ? "sparse" : "dense",
    ...typed,
  });
  const parameters = new Map<string, Float32Array>();
  for (const { name, shape } of modelParameters(config)) {
    const found = tensors.get(name);
    if (!found) throw new UserError(`Cannot load ${file}: ${name} is missing`);
    if (String(found.shape) !== String(shape) || !(found.data instanceof Float32Array)) {
      throw new UserError(
        `Cannot load ${file}: ${name} is ${found.dtype} [${found.shape}], ` +
          `but config.json asks for floats [${shape}]`,
      );
    }
    parameters.set(name, found.data);
    tensors.delete(name);
  }
  for (const name of tensors.keys()) {
    // Both can be computed from the rest; some writers store them all the same.
    const isSpare = name.endsWith(".rotary_emb.inv_freq") ||
      config.tieWordEmbeddings && name === "lm_head.weight";
    if (!isSpare) throw new UserError(`Cannot load ${file}: the model has no parameter ${name}`);
  }
  const tokenizer = await readJson(join(folder, "tokenizer.json"));
  return { folder, step: null, config, parameters, tokenizer };
}

async function isThere(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

async function readJson(path: string): Promise<Record<string, unknown> | null> {
  let value: unknown;
  try {
    value = JSON.parse(await Deno.readTextFile(path));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw new UserError(`Cannot read ${path}: ${error instanceof Error ? error.message : error}`);
  }
  if (typeof value === "object" && value !== null) return value as Record<string, unknown>;
  throw new UserError(`Cannot read ${path}: it holds no object`);
}
