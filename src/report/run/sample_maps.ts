/**
 * Attention and selections of one validation sequence, computed from a checkpoint.
 *
 * @module
 */
import { basename } from "node:path";
import type { RunConfig } from "../../config/config.ts";
import { requireSameData } from "../../data/identity.ts";
import { UserError } from "../../errors.ts";
import { isThere } from "../../files/files.ts";
import { openDataset } from "../../data/dataset.ts";
import { taskText } from "../../data/tasks/tasks.ts";
import { byGroup, mapOfGroup } from "../../model/head_groups.ts";
import { modelParameters } from "../../model/parameters.ts";
import { type StageView, viewOf } from "../../model/stage_view.ts";
import { languageModel } from "../../model/transformer.ts";
import { openDevice } from "../../open_device.ts";
import { isIndexed, stageAt, stageSpans } from "../../config/stages.ts";
import type { Stage } from "../../config/stage_fields.ts";
import { checkpointAt } from "../../runs/checkpoint.ts";
import { loadModel } from "../../runs/load_model.ts";

/** Longest sequence that maps are made of. */
const MOST_TOKENS = 256;

/** What one layer does with a sequence of S tokens; matrices row by row, queries are rows. */
export interface LayerMaps {
  /** Its number, from 0. */
  readonly layer: number;
  /** Number of the group of heads that the rest is of, from 0; null where all select together. */
  readonly group: number | null;
  /** `[S * S]`: dense attention, mean over the heads; 0 above the diagonal. */
  readonly attention: Float32Array;
  /** `[S * S]`: index scores; only those up to the diagonal mean anything. */
  readonly scores: Float32Array;
  /** `[S * S]`: 1 where the key is selected. */
  readonly selected: Uint8Array;
}

/** The maps of a sequence. */
export interface SampleMaps {
  /** Steps of the checkpoint. */
  readonly step: number;
  /** The stage it was saved in. */
  readonly stage: Stage;
  /** S, tokens of the sequence. */
  readonly seqLen: number;
  /** Keys that a query selects. */
  readonly topk: number;
  /** The sequence; of a task its symbols by name. */
  readonly text: string;
  /** From the first to the last, in each of its groups of heads. */
  readonly layers: readonly LayerMaps[];
}

/**
 * Computes maps of the first validation sequence, its first 256 tokens. The checkpoint is that of
 * the last stage with an indexer, where it is kept, else the latest.
 *
 * @returns null for a model without an indexer
 */
export async function sampleMaps(
  folder: string,
  config: RunConfig,
  options: { device?: RunConfig["device"]; note?: (line: string) => void } = {},
): Promise<SampleMaps | null> {
  const indexed = stageSpans(config.stages).findLast(({ stage }) => isIndexed(stage));
  if (!indexed || config.attention !== "mla") return null;
  const end = checkpointAt(folder, indexed.end);
  const seqLen = Math.min(config.seqLen, MOST_TOKENS);
  const { device: name = config.device, note } = options;
  const typed = { batchSize: 1, seqLen, device: name };
  const model = await loadModel(isThere(end) ? end : folder, typed).catch((error) => {
    if (!(error instanceof UserError) || !isThere(end)) throw error;
    note?.(`passing over ${basename(end)}: ${error.message}`);
    return loadModel(folder, typed);
  });
  const step = model.step!;
  const stage = stageAt(config.stages, step);
  const dataset = await openDataset({
    ...model.config,
    taskOptions: model.config,
    ...(model.tokenizer
      ? { tokenizerJson: model.tokenizer, tokenizerFile: model.tokenizerFile }
      : {}),
  });
  requireSameData(dataset.identity, model.data, {
    action: `make maps of ${folder}`,
    data: model.config.data,
    wayOut: "put it back",
  });
  const batch = dataset.batch("validation", 0);
  const view = { ...viewOf(stage, model.config), kl: "none" as const, maps: true };
  const variant = (name: string, selector: StageView["selector"]) => ({
    name,
    loss: languageModel(model.config, { stage: { ...view, selector } }),
  });
  using device = await openDevice(name, { note });
  using engine = await device.open({
    parameters: modelParameters(model.config),
    initial: model.parameters,
    loss: languageModel(model.config, { stage: view }),
    ...{ batchSize: 1, seqLen, trained: [] },
  });
  const dense = await engine.maps(batch, variant("maps of dense attention", "dense"));
  const selector = stage.attention === "sparse" ? model.config.selector : "learned";
  const sparse = await engine.maps(batch, variant("maps of the selection", selector));
  const layers = Array.from(
    { length: model.config.numHiddenLayers },
    (_, layer) =>
      byGroup(model.config, (group): LayerMaps => {
        const name = (map: string) => `${mapOfGroup(map, group, model.config)}.${layer}`;
        return {
          layer,
          group: model.config.indexGroups > 1 ? group : null,
          attention: causal(dense.get(name("target")) as Float32Array, seqLen),
          scores: dense.get(name("index_scores")) as Float32Array,
          selected: asMask(sparse.get(name("topk")) as Int32Array, seqLen),
        };
      }),
  ).flat();
  const text = dataset.tokenizer
    ? dataset.tokenizer.decode(batch.tokens)
    : taskText(model.config.data, batch.tokens, model.config);
  return { step, stage, seqLen, topk: view.indexTopk, text, layers };
}

function causal(map: Float32Array, seqLen: number): Float32Array {
  return map.map((value, i) => i % seqLen <= Math.floor(i / seqLen) ? value : 0);
}

function asMask(indices: Int32Array, seqLen: number): Uint8Array {
  const mask = new Uint8Array(seqLen * seqLen);
  const topk = indices.length / seqLen;
  indices.forEach((key, i) => {
    if (key >= 0) mask[Math.floor(i / topk) * seqLen + key] = 1;
  });
  return mask;
}
