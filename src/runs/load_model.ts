/**
 * Models to evaluate or sample: the latest checkpoint of a run, one checkpoint, or a folder in
 * Hugging Face's layout.
 *
 * @module
 */
import { join } from "node:path";
import { type ConfigInput, resolveConfig, type RunConfig } from "../config/config.ts";
import { isTask } from "../config/checks.ts";
import type { DataIdentity } from "../data/identity.ts";
import { UserError } from "../errors.ts";
import { isThere, readJson } from "../files/files.ts";
import { fromHuggingFace } from "../config/hugging_face.ts";
import { savedParameters } from "../model/saved_parameters.ts";
import { type Checkpoint, loadCheckpoint, newestCheckpoint } from "./checkpoint.ts";
import { loadNewest } from "./newest_checkpoint.ts";
import { hasWeights, readWeights } from "./weight_files.ts";

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
  /** That file. */
  readonly tokenizerFile: string;
  /** Of the text of its run, if it is to be evaluated on that; undefined: on any. */
  readonly data?: DataIdentity | null;
}

/** What a model is loaded for; it stands in errors. */
export type LoadPurpose = "evaluate" | "sample";

/** Longest sequences of a model in Hugging Face's layout, unless `seqLen` is typed. */
const HUGGING_FACE_SEQ_LEN = 1024;

/**
 * Reads the model of a run folder, a checkpoint (`…/checkpoints/step_…`) or a folder with
 * `config.json` and `model.safetensors`, whole or in shards.
 *
 * @param typed keys that win over those of the run
 * @throws {UserError} if there is no model, or it is damaged or one that is not computed here
 */
export async function loadModel(
  folder: string,
  typed: ConfigInput = {},
  purpose: LoadPurpose = "evaluate",
): Promise<SavedModel> {
  const asked = { folder, typed, purpose };
  const has = (name: string) => isThere(join(folder, name));
  if (!isThere(folder)) {
    refuse(
      asked,
      "there is no such folder; give a run of runs/, or a folder with config.json and " +
        "model.safetensors",
    );
  }
  if (has("state.json")) {
    return fromCheckpoint(asked, await loadCheckpoint(folder, { optimizer: false }));
  }
  if (hasWeights(folder)) return await fromFolder(asked);
  if (await newestCheckpoint(folder)) {
    return fromCheckpoint(asked, await loadNewest(folder, { forResume: false }));
  }
  if (has("results.json")) {
    refuse(asked, `it is an ablation; give one of its runs, ${join(folder, "runs/…")}`);
  }
  if (has("metrics.jsonl")) {
    refuse(asked, "the run has saved no checkpoint (checkpoints/step_…) yet");
  }
  refuse(
    asked,
    "neither a run (checkpoints/step_…) nor a model (config.json, model.safetensors)",
  );
}

interface Asked {
  readonly folder: string;
  readonly typed: ConfigInput;
  readonly purpose: LoadPurpose;
}

function refuse({ purpose, folder }: Asked, reason: string): never {
  throw new UserError(`Cannot ${purpose} ${folder}: ${reason}`);
}

function fromCheckpoint(asked: Asked, checkpoint: Checkpoint): SavedModel {
  const { folder, typed } = asked;
  const { config, step, state, tokenizer, data } = checkpoint;
  const isOwn = typed.data === undefined || typed.data === config.data;
  if (typed.data !== undefined && isTask(typed.data) !== isTask(config.data)) {
    refuse(
      { ...asked, folder: `${folder} on data=${typed.data}` },
      isTask(config.data)
        ? `its tokens are the symbols of data=${config.data}; use a task, such as data=recall`
        : `its tokens are those of a text, data=${config.data}; use a text`,
    );
  }
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
    tokenizerFile: join(checkpoint.path, "tokenizer.json"),
    data: isOwn ? data : undefined,
  };
}

async function fromFolder(asked: Asked): Promise<SavedModel> {
  const { folder, typed, purpose } = asked;
  const json = readJson(join(folder, "config.json"));
  if (!json) refuse(asked, "config.json is missing");
  if (purpose === "evaluate" && typed.data === undefined) {
    refuse(asked, "it does not tell its data; add data=<text file>, or a task");
  }
  const { file, tensors } = await readWeights(folder);
  const hasIndexer = [...tensors.keys()].some((name) => name.includes(".indexer."));
  const longest = json.max_position_embeddings ?? HUGGING_FACE_SEQ_LEN;
  const model = fromHuggingFace(json);
  const config = resolveConfig({
    seqLen: Math.min(typeof longest === "number" ? longest : NaN, HUGGING_FACE_SEQ_LEN),
    ...model,
    // A model without a text has a symbol for each of its tokens.
    taskVocab: model.vocabSize,
    recipe: hasIndexer || model.indexKeyInput === "native" ? "sparse" : "dense",
    ...typed,
  });
  const parameters = savedParameters(tensors, config, { file });
  const tokenizerFile = join(folder, "tokenizer.json");
  const tokenizer = readJson(tokenizerFile);
  return { folder, step: null, config, parameters, tokenizer, tokenizerFile };
}
