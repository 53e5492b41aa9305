/**
 * Everything that is measured of a trained model.
 *
 * @module
 */
import { parseMetric } from "../metrics/names.ts";
import type { RunConfig } from "../config/config.ts";
import { isTask } from "../config/checks.ts";
import { requireRoom, roomOf } from "../costs/room.ts";
import { type Batch, type Dataset, openDataset } from "../data/dataset.ts";
import type { Engine, Metrics } from "../engine.ts";
import { requireSameData } from "../data/identity.ts";
import { MemoryError, UserError } from "../errors.ts";
import { isCausal } from "../infer/sample.ts";
import { NotFinite, requireFinite } from "../model/finite.ts";
import { modelParameters } from "../model/parameters.ts";
import { languageModel } from "../model/transformer.ts";
import { type Device, openDevice } from "../open_device.ts";
import { stageAt, usesIndexer } from "../config/stages.ts";
import type { Stage } from "../config/stage_fields.ts";
import {
  evaluateWhole,
  requireWhole,
  type WholeOptions,
  type WholeReport,
} from "./evaluate_whole.ts";
import { compareSelectors, type SelectorRow } from "./compare_selectors.ts";
import { checkpointView } from "../runs/checkpoint.ts";
import { type DensityReport, latentDensity } from "../measure/density/density.ts";
import { bitsPerByte, rightAnswers } from "../measure/evaluate.ts";
import { measureGold, measureIndexer, swapTest } from "../measure/indexer.ts";
import { inAnyLayer, shareOf } from "../measure/gold_recall.ts";
import type { SavedModel } from "../runs/load_model.ts";
import { Buckets } from "../measure/positions.ts";

/** The tokens of the byte tokenizer. */
const BYTES = 256;

/** Measurements of one layer: shares and nats by name; see {@linkcode measureIndexer}. */
export interface LayerReport {
  /** By name, as in `INDEXER_METRICS`; `dense_kl` is KL over all keys. */
  readonly [metric: string]: number | readonly number[];
  /** Shares of the selected keys by distance: 0, 1, 2–3, 4–7 …. */
  readonly distance: readonly number[];
}

/** What `deno task eval --json` prints. */
export interface EvaluationReport {
  /** What was asked for. */
  readonly folder: string;
  /** Null in Hugging Face's layout. */
  readonly step: number | null;
  /** The device, for people. */
  readonly device: string;
  /** Name of the text or task. */
  readonly data: string;
  /** Batches that the means are over. */
  readonly batches: number;
  /** Nats a scored token. */
  readonly loss: number;
  /** Null for generated tasks. */
  readonly bitsPerByte: number | null;
  /** Losses by position in the sequence; buckets without scored tokens are left out. */
  readonly positions: readonly { from: number; to: number; count: number; loss: number }[];
  /** Share of exact answers; null for texts. */
  readonly accuracy: number | null;
  /** The same by how far back the token stands that has to be found; empty for texts. */
  readonly accuracyByDistance: readonly {
    from: number;
    to: number;
    count: number;
    accuracy: number;
  }[];
  /** Null for models without indexer. */
  readonly index: { readonly mean: Metrics; readonly layers: readonly LayerReport[] } | null;
  /**
   * Share of answers whose gold position is selected, by how far back it is: in any layer, and in
   * each; empty for texts and models that select nothing.
   */
  readonly goldRecallByDistance: readonly {
    from: number;
    to: number;
    count: number;
    any: number;
    layers: readonly number[];
  }[];
  /** Nats by selector, same weights; null for models that select nothing. */
  readonly swap: Metrics | null;
  /** Losses over the whole validation split; only where that was asked for. */
  readonly whole?: WholeReport;
  /** Selectors within the same budgets; only where that was asked for. */
  readonly selectors?: readonly SelectorRow[];
  /** How much the latents hold; only where that was asked for. */
  readonly density?: DensityReport;
}

/**
 * Evaluates a model under the attention of the stage that it was saved in, on the first
 * `evalBatches` validation batches.
 *
 * @param options device and dataset, where they are open already; the model's own are opened else;
 * `selectors`: whether selectors are compared within the same budgets, see `compareSelectors`;
 * `density`: whether it is measured how much the latents hold, see `latentDensity`;
 * `whole`: also losses over the whole validation split, see `evaluateWhole`
 * @throws {UserError} if the data does not fit the model, or the model the device, or if
 * what is measured is not finite
 */
export async function evaluateModel(
  model: SavedModel,
  options: {
    note?: (line: string) => void;
    device?: Device;
    dataset?: Dataset;
    selectors?: boolean;
    density?: boolean;
    whole?: WholeOptions;
  } = {},
): Promise<EvaluationReport> {
  const { config } = model;
  if (!isCausal(config)) {
    options.note?.("mosaCausal=false looks ahead: its loss is not a language model's");
  }
  if (options.selectors && config.attention !== "mla") {
    throw new UserError(
      `Cannot compare selectors of ${model.folder}: attention=${config.attention} has no latents ` +
        "to select; leave out --selectors",
    );
  }
  if (options.density && config.attention !== "mla") {
    throw new UserError(
      `Cannot measure the density of ${model.folder}: attention=${config.attention} has no ` +
        "latents; leave out --density",
    );
  }
  requireRoom(config, "evaluate");
  const dataset = options.dataset ?? await openData(model);
  if (!config.otherData) {
    requireSameData(dataset.identity, model.data, {
      action: `evaluate ${model.folder}`,
      data: config.data,
      wayOut: "put it back, give that text with data=…, or evaluate on this one by otherData=true",
    });
  }
  if (options.whole) requireWhole({ model, dataset }, options.whole);
  using own = options.device ? null : await openDevice(config.device, options);
  const device = options.device ?? own!;
  requireRoom(config, "evaluate", roomOf(device));
  using engine = await device.open({
    parameters: modelParameters(config),
    initial: model.parameters,
    loss: languageModel(config, { stage: checkpointView({ config, step: model.step ?? 0 }) }),
    batchSize: config.batchSize,
    seqLen: config.seqLen,
    trained: [],
  });
  try {
    const report = await measure(engine, { model, dataset });
    const { note } = options;
    const stage = stageAt(config.stages, model.step ?? 0);
    const batches = validationBatches(config, dataset);
    const whole = options.whole &&
      await evaluateWhole(engine, { model, dataset, device, note }, options.whole);
    const selectors = options.selectors &&
      await compareSelectors(device, { model, stage, batches, note });
    const density = options.density && await latentDensity(engine, {
      ...{ config, stage, parameters: model.parameters, device, note },
      ...{ batches, full: fullBatches(batches) },
    });
    return {
      ...report,
      ...whole ? { whole } : {},
      ...selectors ? { selectors } : {},
      ...density ? { density } : {},
    };
  } catch (error) {
    if (error instanceof NotFinite) {
      throw new UserError(
        `Cannot evaluate ${model.folder}: ${error.message}, though its weights are finite; ` +
          "take an earlier checkpoint, or train it again with a lower lr",
      );
    }
    if (!(error instanceof MemoryError)) throw error;
    throw new UserError(
      `Cannot fit this evaluation on the adapter: ${error.message}; ` +
        `lower batchSize (${config.batchSize}) or seqLen (${config.seqLen})`,
    );
  }
}

async function measure(
  engine: Engine,
  { model, dataset }: { model: SavedModel; dataset: Dataset },
): Promise<EvaluationReport> {
  const { config, folder, step } = model;
  const batches = validationBatches(config, dataset);
  const stage = stageAt(config.stages, step ?? 0);
  const { losses, answers } = await scoreTokens(engine, config.seqLen, batches);
  const loss = losses.total().mean;
  requireFinite({ loss });
  const indexed = usesIndexer(config);
  return {
    folder,
    step,
    device: engine.description,
    data: dataset.name,
    batches: batches.length,
    loss,
    bitsPerByte: bitsPerByte(loss, batches),
    positions: losses.read(config.seqLen).map(({ mean, ...rest }) => ({ ...rest, loss: mean })),
    accuracy: answers && answers.total().mean,
    accuracyByDistance: (answers?.read(config.seqLen) ?? [])
      .map(({ mean, ...rest }) => ({ ...rest, accuracy: mean })),
    index: indexed ? await meanMeasurement(engine, { config, stage, batches }) : null,
    goldRecallByDistance: indexed && answers
      ? await goldByDistance(engine, { config, stage, batches })
      : [],
    swap: indexed ? withoutPrefix(await swapTest(engine, { config, stage, batches })) : null,
  };
}

function validationBatches({ evalBatches }: RunConfig, dataset: Dataset): Batch[] {
  const count = Math.min(evalBatches, dataset.validationBatches);
  return Array.from({ length: count }, (_, i) => dataset.batch("validation", i));
}

/** Without those that rows fill up, which would count like all others: the last one of a text. */
function fullBatches(batches: readonly Batch[]): readonly Batch[] {
  const full = batches.filter(({ answers, count, tokens }) => answers || count === tokens.length);
  return full.length ? full : batches.slice(0, 1);
}

async function openData(
  { config, folder, tokenizer, tokenizerFile }: SavedModel,
): Promise<Dataset> {
  const { data, vocabSize } = config;
  if (!isTask(data) && !tokenizer && vocabSize !== BYTES) {
    throw new UserError(
      `Cannot evaluate ${folder} on data=${data}: it has no tokenizer.json, and its ${vocabSize} ` +
        "tokens are not bytes; use a task such as data=recall, or add its tokenizer.json",
    );
  }
  const dataset = await openDataset({
    ...config,
    tokenizer: "byte",
    taskOptions: config,
    ...(tokenizer ? { tokenizerJson: tokenizer, tokenizerFile } : {}),
  });
  if (dataset.vocabSize > vocabSize) {
    throw new UserError(
      `Cannot evaluate ${folder} on data=${data}: the data has ${dataset.vocabSize} tokens, ` +
        `the model only ${vocabSize}; use other data`,
    );
  }
  return dataset;
}

/** Losses by position, and of tasks whether answers are right, by distance. */
async function scoreTokens(
  engine: Engine,
  seqLen: number,
  batches: readonly Batch[],
): Promise<{ losses: Buckets; answers: Buckets | null }> {
  const losses = new Buckets();
  let answers: Buckets | null = null;
  for (const batch of batches) {
    const nats = await engine.tokenLosses(batch);
    batch.targets.forEach((target, i) => {
      if (target >= 0) losses.add(i % seqLen, nats[i]);
    });
    if (!batch.answers) continue;
    answers ??= new Buckets();
    const right = rightAnswers(await engine.logits(batch.tokens), batch);
    batch.answers.forEach(({ distance }, i) => answers!.add(distance, Number(right[i])));
  }
  return { losses, answers };
}

async function goldByDistance(
  engine: Engine,
  { config, stage, batches }: { config: RunConfig; stage: Stage; batches: readonly Batch[] },
): Promise<EvaluationReport["goldRecallByDistance"]> {
  const any = new Buckets();
  const layers = Array.from({ length: config.numHiddenLayers }, () => new Buckets());
  for (const batch of batches) {
    const hits = await measureGold(engine, { config, stage, batch });
    const inAny = inAnyLayer(hits);
    batch.answers?.forEach(({ distance }, i) => {
      any.add(distance, shareOf(inAny[i]));
      layers.forEach((buckets, layer) => buckets.add(distance, shareOf(hits[layer][i])));
    });
  }
  const byLayer = layers.map((buckets) => buckets.read(config.seqLen));
  return any.read(config.seqLen).map(({ mean, ...bucket }, i) => ({
    ...bucket,
    any: mean,
    layers: byLayer.map((rows) => rows[i].mean),
  }));
}

async function meanMeasurement(
  engine: Engine,
  { config, stage, batches }: { config: RunConfig; stage: Stage; batches: readonly Batch[] },
): Promise<{ mean: Metrics; layers: LayerReport[] }> {
  const measured = fullBatches(batches);
  const answers = measured.reduce((sum, batch) => sum + (batch.answers?.length ?? 0), 0);
  const means: Metrics = {};
  for (const batch of measured) {
    const values = await measureIndexer(engine, { config, stage, batch });
    for (const [name, value] of Object.entries(values)) {
      // Batches have as many rows each, but not as many answers.
      const isOfAnswers = parseMetric(name).key.startsWith("gold_recall");
      const share = isOfAnswers ? batch.answers!.length / answers : 1 / measured.length;
      means[name] = (means[name] ?? 0) + value * share;
    }
  }
  const mean: Metrics = {};
  const layers = Array.from({ length: config.numHiddenLayers }, () => ({
    values: {} as Metrics,
    distance: [] as number[],
  }));
  for (const [name, value] of Object.entries(means)) {
    const { layer, key } = parseMetric(name);
    const [metric, bin] = key.split("/");
    if (layer === null) mean[key] = value;
    else if (metric === "distance") layers[layer].distance[Number(bin)] = value;
    else layers[layer].values[metric] = value;
  }
  return { mean, layers: layers.map(({ values, distance }) => ({ ...values, distance })) };
}

/** `swap/dense` becomes `dense`. */
function withoutPrefix(values: Metrics): Metrics {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [name.slice(name.indexOf("/") + 1), value]),
  );
}
