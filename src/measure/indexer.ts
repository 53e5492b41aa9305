/**
 * Measurements of the indexer, and the swap test.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import type { Batch } from "../data/dataset.ts";
import type { Engine, Metrics, Variant } from "../engine.ts";
import { hasIndexer } from "../config/stages.ts";
import { isTask } from "../config/checks.ts";
import { type GoldHits, hitsOf, inAnyLayer, meanShare } from "./gold_recall.ts";
import { layerMetric, parseMetric } from "../metrics/names.ts";
import { requireFinite } from "../model/finite.ts";
import { type StageView, viewOf } from "../model/stage_view.ts";
import { languageModel } from "../model/transformer.ts";
import { INDEXER_METRICS, SCORE_METRICS } from "../ops/indexer/metrics.ts";
import type { SelectorName } from "../ops/select/selectors/selectors.ts";
import type { Stage } from "../config/stage_fields.ts";

/** Selectors that the swap test compares, beside the model's own. */
export const SWAPPED: readonly SelectorName[] = ["dense", "learned", "oracle", "random", "recency"];

/**
 * Compares selection and indexer with dense attention on a batch. Per layer
 * `index/3/captured_mass` and the others of `INDEXER_METRICS`, `index/3/distance/0` … (shares of the
 * selected keys by distance, in powers of two), `index/3/neighbour_overlap`; and the means over
 * layers, `index/captured_mass` ….
 *
 * What is said of a selection (`captured_mass`, `score_recall`, `set_overlap`, `sink_share`,
 * `local_share`, distances, neighbours) is said of the one that sparse attention uses, whatever the
 * selector; in a stage of dense attention, of the top k that the indexer would choose. What is said
 * of scores (`dense_kl`, which is KL over all keys, `index_entropy`, `dead_scores`, `score_mean`,
 * `score_std`) is the indexer's, even where a rule selects, and left out where there is none;
 * `tied_rows`, too, but there it is attention's, which then selects.
 *
 * Of groups of heads that select for themselves (`indexGroups`) all this is the mean, and
 * `index/3/union_size` tells how many keys they select together, in multiples of k: 1 where all select
 * the same, the number of groups where they share none.
 *
 * Of tasks also `index/3/gold_recall`, the share of answers whose gold position, where the token
 * stands that has to be found, is among the keys of their query (of several positions the share that
 * is); its mean over layers, and `index/gold_recall_any`, in any layer. Any group of heads will do.
 *
 * @throws {NotFinite} if one is NaN or infinite
 */
export async function measureIndexer(
  engine: Engine,
  { config, stage, batch }: { config: RunConfig; stage: Stage; batch: Batch },
): Promise<Metrics> {
  const row = await engine.evaluate(batch, measuringVariant(config, stage));
  const values: Metrics = {};
  const sums: Metrics = {};
  const isScored = hasIndexer(config);
  const ofScores: readonly string[] = SCORE_METRICS;
  for (const [name, value] of Object.entries(row)) {
    const { family, layer, key: own } = parseMetric(name);
    if (family !== "index" || layer === null) continue;
    const [part, column] = own.split("/");
    const metric = part === "means" ? INDEXER_METRICS[Number(column)] : own;
    if (!isScored && ofScores.includes(metric)) continue;
    const key = metric === "kl" ? "dense_kl" : metric;
    values[layerMetric("index", layer, key)] = value;
    if (!key.startsWith("distance/")) (sums[key] ??= 0), sums[key] += value;
  }
  const layers = config.numHiddenLayers;
  for (const [key, sum] of Object.entries(sums)) {
    values[`index/${key}`] = sum / (key === "neighbour_overlap" ? Math.max(layers - 1, 1) : layers);
  }
  requireFinite(values);
  if (batch.answers?.length) {
    const hits = await measureGold(engine, { config, stage, batch });
    const shares = hits.map(meanShare);
    shares.forEach((share, layer) => values[layerMetric("index", layer, "gold_recall")] = share);
    values["index/gold_recall"] = shares.reduce((a, b) => a + b) / shares.length;
    values["index/gold_recall_any"] = meanShare(inAnyLayer(hits));
  }
  return values;
}

/**
 * Of each layer and answer of a task's batch, whether the selection has what has to be found: of
 * the selection that {@linkcode measureIndexer} speaks of.
 */
export function measureGold(
  engine: Engine,
  { config, stage, batch }: { config: RunConfig; stage: Stage; batch: Batch },
): Promise<GoldHits> {
  return hitsOf(engine, { config, batch, variant: measuringVariant(config, stage) });
}

/** The model of {@linkcode measureIndexer}. */
export function measuringVariant(config: RunConfig, stage: Stage): Variant {
  const selections = isTask(config.data);
  const view: StageView = { ...viewOf(stage, config), kl: "none", measures: true, selections };
  return { name: `measure ${stage.name}`, loss: languageModel(config, { stage: view }) };
}

/** The models of {@linkcode swapTest}. */
export function swappedVariants(
  config: RunConfig,
  stage: Stage,
): (Variant & { selector: SelectorName })[] {
  return [...new Set([...SWAPPED, config.selector])].map((selector) => {
    const view: StageView = { ...viewOf(stage, config), selector, kl: "none", measures: false };
    return { selector, name: `swap ${selector}`, loss: languageModel(config, { stage: view }) };
  });
}

/**
 * The same weights under other selectors, those of {@linkcode SWAPPED} and the model's own: mean
 * loss in nats on the batches, as `swap/dense`, `swap/learned` ….
 *
 * @throws {NotFinite} if one is NaN or infinite
 */
export async function swapTest(
  engine: Engine,
  { config, stage, batches }: { config: RunConfig; stage: Stage; batches: readonly Batch[] },
): Promise<Metrics> {
  const values: Metrics = {};
  for (const { selector, ...variant } of swappedVariants(config, stage)) {
    let nats = 0, scored = 0;
    for (const batch of batches) {
      nats += (await engine.evaluate(batch, variant)).loss * batch.count;
      scored += batch.count;
    }
    values[`swap/${selector}`] = nats / scored;
  }
  return requireFinite(values);
}
