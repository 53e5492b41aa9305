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
import { byGroup, groupConfig, headsOfGroup, indexerOfGroup, mapOfGroup } from "./head_groups.ts";
import { type IndexerInputs, lightningIndexer } from "./indexer.ts";
import { attentionMaps } from "../ops/indexer/maps.ts";
import { indexerLoss } from "../ops/indexer/loss.ts";
import { meanOf } from "../ops/indexer/mean_of.ts";
import { indexerMetrics, maskOverlap } from "../ops/indexer/metrics.ts";
import { mlaTeacher, type TeacherTensors } from "../ops/indexer/teacher.ts";
import { mlaAttention } from "../ops/attention/mla_attention.ts";
import type { Tensor } from "../ops/op.ts";
import { maskUnion, selectionMask } from "../ops/select/mask.ts";
import type { AttentionTensors, IndexerTensors } from "../ops/select/selectors/selector.ts";
import { beside } from "../ops/token/beside.ts";
import { sideBySide } from "../ops/token/columns.ts";
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
 * With `indexGroups` above 1 groups of heads select for themselves, each by index heads of its own
 * that learn the attention of its heads. Losses and what is measured are then means over the groups;
 * maps are of a group each, but for `selected`, which has what any of them selects.
 *
 * @returns `o`: the attention's output; with it the loss, metrics and maps of the layer
 */
export function sparseAttention(
  attended: Omit<TeacherTensors, "lse">,
  inputs: IndexerInputs,
  layer: LayerContext,
): Omit<LayerResult, "output"> & { readonly o: Tensor } {
  const { config, stage, batch, seqLen, shared } = layer;
  const { q, kv, kPe } = attended;
  const indexer = once(() => lightningIndexer(inputs, layer));
  const dense = once(() => mlaAttention(q, kv, kPe, attentionDims(layer)));
  const groups = byGroup(config, (group) => {
    const own = (x: Tensor) => headsOfGroup(x, group, config);
    return groupAttention({
      attended: { q: own(q), kv: own(kv), kPe },
      lse: () => own(dense().lse),
      indexer: once(() => indexerOfGroup(indexer(), group, config)),
      hidden: inputs.hidden,
    }, { ...layer, config: groupConfig(config), group, shared: shared?.[group] ?? null });
  });
  const selections = groups.map(({ selection }) => selection);
  const union = once(() =>
    selections.map(({ measured }) => measured()).reduce((a, b) => maskUnion(a, b))
  );
  const maps = groups.flatMap(({ maps }, group) =>
    Object.entries(maps).map(([name, map]) => [mapOfGroup(name, group, config), map] as const)
  );
  if (stage.selections) maps.push(["selected", union()]);
  const metrics = Object.fromEntries(
    Object.keys(groups[0].metrics)
      .map((name) => [name, meanOf(groups.map(({ metrics }) => metrics[name]))]),
  );
  if (stage.measures && groups.length > 1) {
    // What a selection shares with itself are its keys, in multiples of k.
    const sizes = { batch, seqLen, topk: stage.indexTopk };
    metrics.union_size = maskOverlap(union(), union(), sizes);
  }
  const outputs = groups.flatMap(({ o }) => o ?? []);
  return {
    o: outputs.length ? sideBySide(outputs) : dense().o,
    losses: groups.flatMap(({ losses }) => losses),
    metrics,
    maps: Object.fromEntries(maps),
    selections,
  };
}

/** What attention goes over, as in `latent_attention.ts`. */
type AttendedTensors = Omit<TeacherTensors, "lse">;

/** A layer's attention as one of its groups of heads sees it: `config` counts the heads of that. */
interface GroupContext extends Omit<LayerContext, "shared"> {
  /** Number of the group, from 0. */
  readonly group: number;
  /** The selection of that group in the layer that it shares one with. */
  readonly shared: Selection | null;
}

/** What a group's attention is made from. */
interface GroupInputs {
  /** Of its heads. */
  readonly attended: AttendedTensors;
  /** Of their dense attention. */
  readonly lse: () => Tensor;
  /** Of its index heads. */
  readonly indexer: () => IndexerTensors;
  /** Normed block input `[N, hiddenSize]`. */
  readonly hidden: Tensor;
}

/** What a group of heads makes. */
interface GroupResult {
  /** Attention's output `[N, heads · v]`; null: dense attention, which is one for all groups. */
  readonly o: Tensor | null;
  readonly losses: NonNullable<LayerResult["losses"]>;
  readonly metrics: Readonly<Record<string, Tensor>>;
  readonly maps: Readonly<Record<string, Tensor>>;
  readonly selection: Selection;
}

/** {@linkcode sparseAttention} of a group of heads. */
function groupAttention(inputs: GroupInputs, layer: GroupContext): GroupResult {
  const { config, stage, batch, seqLen } = layer;
  const { attended, lse: denseLse } = inputs;
  const { kv } = attended;
  const topk = stage.indexTopk;
  const dims = attentionDims(layer);
  const teacher = mlaTeacher(dims);
  const own = () => select(inputs, layer, () => ({ ...attended, lse: denseLse(), teacher }));
  const selection = layer.index % config.indexShare === 0 ? own() : layer.shared!;
  const { indices, mask } = selection;

  const used = indices ? withScores(attended, selection.indexer, layer) : { ...attended, dims };
  const { o, lse, scores } = indices && mask
    ? sparseMlaAttention(used.q, kv, used.kPe, indices, mask, {
      ...{ ...used.dims, topk, form: config.sparseForm },
    })
    : { o: null, lse: denseLse(), scores: undefined };
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
    const known = isRestricted ? shown : { ...attended, lse: denseLse(), teacher };
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
  if (stage.measures) {
    const known = { ...attended, lse: denseLse() };
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
  attended: AttendedTensors,
  indexer: () => IndexerTensors,
  layer: GroupContext,
): AttendedTensors & { readonly dims: ReturnType<typeof attentionDims> } {
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

/** Sizes of the attention of a layer, or group, and its factor. */
function attentionDims({ config, batch, seqLen }: Omit<LayerContext, "shared">) {
  const { numAttentionHeads: heads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim } = config;
  const scale = (qkNopeHeadDim + qkRopeHeadDim) ** -0.5;
  const window = config.window ?? undefined;
  return { batch, seqLen, heads, qkNopeHeadDim, qkRopeHeadDim, vHeadDim, scale, window };
}

/** The selection of a group in a layer with an indexer of its own. */
function select(
  { indexer, hidden }: GroupInputs,
  layer: GroupContext,
  attention: () => AttentionTensors,
): Selection {
  const { config, stage, batch, seqLen } = layer;
  const context = {
    batch,
    seqLen,
    topk: stage.indexTopk,
    ties: tieRule(layer),
    like: hidden,
    indexer,
    attention,
    seed: (config.seed + Math.imul(layer.index, 0x9e3779b9) +
      Math.imul(layer.group, 0x85ebca6b)) >>> 0,
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
function tieRule({ config, stage }: GroupContext): TieRule {
  return stage.selector === "dense" ? "oldest" : config.indexTies;
}

/** The part of a group's KL in its indexer's loss. */
function lossShare({ config, index }: GroupContext): number {
  const { indexShare, indexGroups, numHiddenLayers } = config;
  const first = index - index % indexShare;
  const ofLayer = config.indexShareLoss === "served"
    ? 1 / Math.min(indexShare, numHiddenLayers - first)
    : index === first
    ? 1
    : 0;
  return ofLayer / indexGroups;
}

/** Runs `make` once, when its value is first asked for. */
function once<T>(make: () => T): () => T {
  let made: { value: T } | null = null;
  return () => (made ??= { value: make() }).value;
}
