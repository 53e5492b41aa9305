/**
 * MLA's attention to what a selector picks (DeepSeek Sparse Attention), and what an indexer learns
 * and is measured by.
 *
 * N = batch · seqLen tokens, k = indexTopk: indices i32 `[N, k]`, the keys of each query, ascending,
 * then -1; mask i32 `[N, ⌈seqLen / 32⌉]`, the same as bits; q, kv, kPe and o as in
 * `latent_attention.ts`.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import { hasIndexer } from "../config/stages.ts";
import type { TieRule } from "../kernels/select/top_k.ts";
import type { LayerContext, LayerResult, Selection, TokenContext } from "./layer.ts";
import { type IndexerInputs, lightningIndexer } from "./indexer.ts";
import { attentionMaps } from "../ops/indexer/maps.ts";
import { indexerLoss } from "../ops/indexer/loss.ts";
import { indexerMetrics } from "../ops/indexer/metrics.ts";
import { mlaTeacher, type TeacherTensors } from "../ops/indexer/teacher.ts";
import { mlaAttention } from "../ops/attention/mla_attention.ts";
import type { Tensor } from "../ops/op.ts";
import { selectionMask } from "../ops/select/mask.ts";
import type { AttentionTensors, IndexerTensors } from "../ops/select/selectors/selector.ts";
import { beside } from "../ops/token/beside.ts";
import { mixHeads } from "../ops/token/mix_heads.ts";
import { type SelectorName, selectors } from "../ops/select/selectors/selectors.ts";
import type { StageView } from "./stage_view.ts";
import { sparseMlaAttention } from "../ops/attention/sparse_mla_attention.ts";

/**
 * MLA's attention under the stage's selector, with the indexer's loss and measurements where the
 * stage asks for them. With `indexShare` above 1, layers in between attend to the selection of the
 * nearest layer before them that has an indexer; their KL trains that indexer if
 * `indexShareLoss=served` (the mean of KLs: its gradient is that of KL to the mean attention).
 *
 * @returns `o`: the attention's output; with it the loss, metrics and maps of the layer
 */
export function sparseAttention(
  attended: Omit<TeacherTensors, "lse">,
  inputs: IndexerInputs,
  layer: LayerContext,
): Omit<LayerResult, "output"> & { readonly o: Tensor } {
  const { config, stage, batch, seqLen } = layer;
  const { q, kv, kPe } = attended;
  const topk = stage.indexTopk;
  const dims = attentionDims(layer);
  const teacher = mlaTeacher(dims);
  const dense = once(() => mlaAttention(q, kv, kPe, dims));
  const own = () => select(inputs, layer, () => ({ ...attended, lse: dense().lse, teacher }));
  const selection = layer.index % config.indexShare === 0 ? own() : layer.shared!;
  const { indices, mask } = selection;

  const used = indices ? withScores(attended, selection.indexer, layer) : { ...attended, dims };
  const { o, lse, scores } = indices && mask
    ? sparseMlaAttention(used.q, kv, used.kPe, indices, mask, {
      ...{ ...used.dims, topk, form: config.sparseForm },
    })
    : { ...dense(), scores: undefined };
  const shown = { q: used.q, kv, kPe: used.kPe, lse, teacher: mlaTeacher(used.dims) };

  // Without an indexer attention itself stands for its scores.
  const scoring = () => hasIndexer(config) ? selection.indexer() : null;
  const attributes = () => ({ batch, seqLen, indexer: scoring()?.indexer ?? null, teacher });
  const losses: { tensor: Tensor; weight: number }[] = [];
  const metrics: Record<string, Tensor> = {};
  const maps: Record<string, Tensor> = {};
  // A mean over the rows of a micro-batch, of which a step sums up as many.
  const weight = config.indexerLossWeight * lossShare(layer) / config.accumulate;
  if (stage.kl !== "none" && weight > 0) {
    const { qI, kI, w, indexer } = selection.indexer();
    const isSelected = stage.kl === "selected";
    // Over the selected keys their own softmax may be the target; over all keys only dense attention.
    const isRestricted = isSelected && config.klTarget === "restricted";
    const known = isRestricted ? shown : { q, kv, kPe, lse: dense().lse, teacher };
    const keys = isSelected && indices && mask
      ? { indices, mask, scores: isRestricted ? scores : undefined }
      : null;
    metrics.kl = indexerLoss(qI, kI, w, known, keys, {
      ...{ batch, seqLen, indexer, teacher: known.teacher },
      form: config.sparseForm,
      klHeads: config.klHeads,
      direction: config.klDirection,
      weight,
      gradient: stage.trainsIndexer,
    });
    losses.push({ tensor: metrics.kl, weight });
  }
  if (stage.maps) {
    const of = { ...attributes(), teacher: shown.teacher };
    const { scores, attention } = attentionMaps(scoring(), shown, of);
    Object.assign(maps, { index_scores: scores, target: attention });
    if (indices) maps.topk = indices;
  }
  if (stage.selections) maps.selected = selection.measured();
  if (stage.measures) {
    const known = { q, kv, kPe, lse: dense().lse };
    const of = { ...attributes(), topk, ties: tieRule(layer) };
    const { means, histogram } = indexerMetrics(scoring(), known, selection.measured(), of);
    Object.assign(metrics, { means, distance: histogram });
  }
  return { o, losses, metrics, maps, selection };
}

/**
 * What attention to a selection is computed from. With `indexLoss` other than `kl` a share of the
 * index scores is added to the scores of attention, so that the model's own loss reaches the
 * indexer: scale · q · k + gate · I, a factor `gate` learned. Without an activation I is a product,
 * scale_I · (Σ_j w_j qI_j) · kI, so the two are one: of queries and keys that are wider. That all
 * scores of a query are that much larger changes nothing: I and I less its mean are the same here.
 */
function withScores(
  attended: Omit<TeacherTensors, "lse">,
  indexer: () => IndexerTensors,
  layer: LayerContext,
): Omit<TeacherTensors, "lse"> & { readonly dims: ReturnType<typeof attentionDims> } {
  const dims = attentionDims(layer);
  const { q, kv, kPe } = attended;
  if (layer.config.indexLoss === "kl") return { ...attended, dims };
  const { kI, ...scoring } = indexer();
  return {
    q: beside(q, gatedQuery(scoring, dims.scale, layer), dims.heads),
    kv,
    kPe: beside(kPe, kI),
    dims: { ...dims, qkRopeHeadDim: dims.qkRopeHeadDim + kI.cols },
  };
}

/** What is compared with index keys beside a query: gate · scale_I · Σ_j w_j qI_j over `scale`. */
export function gatedQuery(
  { qI, w, indexer }: Omit<IndexerTensors, "kI">,
  scale: number,
  { weight }: TokenContext,
): Tensor {
  return mixHeads(qI, w, weight("indexer.score_gate"), indexer.scale / scale);
}

/** Sizes of the layer's attention, and its factor. */
function attentionDims({ config, batch, seqLen }: LayerContext) {
  const { numAttentionHeads: heads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = config;
  const scale = (qkNopeHeadDim + qkRopeHeadDim) ** -0.5;
  const window = config.window ?? undefined;
  return { batch, seqLen, heads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim, scale, window };
}

/** The selection of a layer with an indexer of its own. */
function select(
  inputs: IndexerInputs,
  layer: LayerContext,
  attention: () => AttentionTensors,
): Selection {
  const { config, stage, batch, seqLen } = layer;
  const indexer = once(() => lightningIndexer(inputs, layer));
  const context = {
    batch,
    seqLen,
    topk: stage.indexTopk,
    ties: tieRule(layer),
    like: inputs.hidden,
    indexer,
    attention,
    seed: (config.seed + Math.imul(layer.index, 0x9e3779b9)) >>> 0,
    sinks: config.sinks,
    block: { size: config.blockSize, pool: config.blockPool },
  };
  const indices = selectors[selectorOf(config, stage)].select(context);
  const mask = indices && selectionMask(indices, { seqLen });
  const measured = once(() =>
    mask ?? selectionMask(selectors.learned.select(context)!, { seqLen })
  );
  return { indexer, indices, mask, measured };
}

/** Without an indexer attention itself selects: what it weighs most, as the oracle does. */
export function selectorOf(
  { indexKeyInput }: RunConfig,
  { selector }: Pick<StageView, "selector">,
): SelectorName {
  return selector === "learned" && indexKeyInput === "native" ? "oracle" : selector;
}

/**
 * Which of keys with equal scores is selected first. In a stage of dense attention nothing is: what its
 * indexer would select is measured by one rule, so that runs that differ in theirs share the stage.
 */
function tieRule({ config, stage }: LayerContext): TieRule {
  return stage.selector === "dense" ? "oldest" : config.indexTies;
}

/** The part of a layer's KL in its indexer's loss. */
function lossShare({ config, index }: LayerContext): number {
  const { indexShare, numHiddenLayers } = config;
  const first = index - index % indexShare;
  if (config.indexShareLoss === "own") return index === first ? 1 : 0;
  return 1 / Math.min(indexShare, numHiddenLayers - first);
}

/** Runs `make` once, when its value is first asked for. */
function once<T>(make: () => T): () => T {
  let made: { value: T } | null = null;
  return () => (made ??= { value: make() }).value;
}
