/**
 * The evaluation of a whole validation split: by document, every token's loss, long contexts.
 *
 * @module
 */
import { createHash } from "node:crypto";
import type { Dataset } from "../data/dataset.ts";
import type { Engine } from "../engine.ts";
import { UserError } from "../errors.ts";
import type { FileSum } from "../files/checksum.ts";
import { isThere } from "../files/files.ts";
import { modelParameters } from "../model/parameters.ts";
import { languageModel } from "../model/transformer.ts";
import type { Device } from "../open_device.ts";
import { checkpointView } from "../runs/checkpoint.ts";
import type { SavedModel } from "../runs/load_model.ts";
import {
  chooseLongTokens,
  listContent,
  type ListOrigin,
  type LongTokensReport,
  readLongTokens,
  reportLongTokens,
  SHORT_CONTEXT,
} from "./long_tokens.ts";
import {
  reportSplit,
  requireSplit,
  scoreSplit,
  type SplitReport,
  type SplitTokens,
  writeTensorsAside,
  writeTokenLosses,
} from "./whole_split.ts";

/** What is wanted of a whole split. */
export interface WholeOptions {
  /** File for every token's loss; see {@linkcode writeTokenLosses}. */
  readonly tokenLosses?: string;
  /** List of tokens whose far context matters; it is made where there is none. */
  readonly longTokens?: string;
}

/** What was found. */
export interface WholeReport extends SplitReport {
  /** The file with every token's loss, and its hash; only where it was asked for. */
  readonly tokenLosses?: FileSum & { readonly file: string };
  /** Over tokens whose far context matters; only where that was asked for. */
  readonly longTokens?: LongTokensReport;
}

/** A model that is evaluated. */
interface Evaluated {
  readonly model: SavedModel;
  readonly dataset: Dataset;
  readonly device: Device;
  readonly note?: (line: string) => void;
}

/**
 * Refuses what cannot be done with a model or its data, before anything is computed.
 *
 * @throws {UserError} for generated tasks, and for models that cannot choose tokens
 */
export function requireWhole(
  { model: { config, step, folder }, dataset }: Pick<Evaluated, "model" | "dataset">,
  { longTokens }: WholeOptions,
): void {
  requireSplit(dataset);
  if (longTokens === undefined || isThere(longTokens)) return;
  const isDense = checkpointView({ config, step: step ?? 0 }).selector === "dense" &&
    config.attention !== "mosa" && config.window === null;
  const fail = (reason: string): never => {
    throw new UserError(`Cannot make longTokens=${longTokens} with ${folder}: ${reason}`);
  };
  if (!isDense) {
    fail(
      "the reference must attend to all of its context; give a run or checkpoint of a dense stage " +
        "(…/checkpoints/step_…), or a list that is there",
    );
  }
  if (config.seqLen <= SHORT_CONTEXT) {
    fail(`seqLen=${config.seqLen} is no long context; use more than ${SHORT_CONTEXT}`);
  }
}

/**
 * Evaluates a model on every token of the validation split.
 *
 * @param engine the model at its own sequence length
 * @throws {UserError} if a list is damaged, or of another text
 * @throws {WriteError} if a file cannot be written
 * @throws {NotFinite} if a mean is NaN or infinite
 */
export async function evaluateWhole(
  engine: Engine,
  evaluated: Evaluated,
  { tokenLosses, longTokens }: WholeOptions,
): Promise<WholeReport> {
  const { model: { config, folder, step, parameters }, dataset } = evaluated;
  const data = dataset.identity!;
  const known = longTokens !== undefined && isThere(longTokens)
    ? await readLongTokens(longTokens, data)
    : null;
  const split = await scoreSplit(engine, { dataset, seqLen: config.seqLen });
  const report = reportSplit(split, dataset);
  const origin: ListOrigin = {
    data: dataset.name,
    dataSha256: data.sha256,
    tokensSha256: hashOf([split.tokens, split.documents]),
    reference: step === null ? folder : `${folder}, step ${step}`,
    referenceSha256: hashOf(modelParameters(config).map(({ name }) => parameters.get(name)!)),
    seqLen: config.seqLen,
  };
  if (longTokens !== undefined && !known) {
    await makeList(longTokens, split, { ...evaluated, origin });
  }
  const list = known ?? (longTokens === undefined ? null : await readLongTokens(longTokens, data));
  const { reference: modelName, referenceSha256: modelSha256, seqLen, ...text } = origin;
  const documents = dataset.validationDocuments.map(({ name }) => name);
  return {
    ...report,
    ...(tokenLosses === undefined ? {} : {
      tokenLosses: await writeTokenLosses(tokenLosses, split, {
        ...{ format: "latentk token losses 1", model: modelName, modelSha256 },
        ...{ seqLen: String(seqLen), ...text, documents: JSON.stringify(documents) },
      }),
    }),
    ...(list ? { longTokens: reportLongTokens(list, split, origin.tokensSha256) } : {}),
  };
}

/** Chooses the tokens with the evaluated model, and writes them down. */
async function makeList(
  file: string,
  split: SplitTokens,
  { model, dataset, device, note, origin }: Evaluated & { origin: ListOrigin },
): Promise<void> {
  const { config, step, parameters } = model;
  // A character that the tokenizer does not know counts as U+FFFD.
  const tokenizer = dataset.tokenizer!;
  const bytes = tokenizer.byteLengths(tokenizer.decode(split.tokens), split.tokens);
  const batchSize = Math.ceil(config.batchSize * config.seqLen / SHORT_CONTEXT);
  const short = { ...config, batchSize, seqLen: SHORT_CONTEXT };
  using engine = await device.open({
    parameters: modelParameters(short),
    initial: parameters,
    loss: languageModel(short, { stage: checkpointView({ config: short, step: step ?? 0 }) }),
    ...{ batchSize, seqLen: SHORT_CONTEXT, trained: [] },
  });
  const chosen = await chooseLongTokens(split, engine, { bytes, batchSize, note });
  const { tensors, metadata } = listContent(chosen, origin);
  await writeTensorsAside(file, tensors, metadata);
}

function hashOf(parts: readonly (Float32Array | Int32Array)[]): string {
  const hash = createHash("sha256");
  for (const part of parts) {
    hash.update(new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
  }
  return hash.digest("hex");
}
