/**
 * The lightning indexer and what it is for: choosing the latents that attention looks at.
 *
 * @module
 */
import type { LayerContext, Selection, TokenContext } from "./layer.ts";
import { attentionMaps } from "../ops/indexer/maps.ts";
import { columns } from "../ops/token/columns.ts";
import { detach } from "../ops/token/detach.ts";
import { indexerLoss, type LossSelection } from "../ops/indexer/loss.ts";
import { indexerMetrics } from "../ops/indexer/metrics.ts";
import { type IndexerAttributes, mlaTeacher, type TeacherTensors } from "../ops/indexer/teacher.ts";
import { layerNorm } from "../ops/token/layer_norm.ts";
import { linear } from "../ops/token/linear.ts";
import { mlaAttention, type MlaAttentionDims } from "../ops/attention/mla_attention.ts";
import type { Tensor } from "../ops/op.ts";
import { selectionMask } from "../ops/select/mask.ts";
import type { AttentionTensors, IndexerTensors } from "../ops/select/selectors/selector.ts";
import { selectors } from "../ops/select/selectors/selectors.ts";
import { sparseMlaAttention } from "../ops/attention/sparse_mla_attention.ts";

/** Epsilon of the key norm, as in DeepSeek-V3.2. */
const KEY_NORM_EPS = 1e-6;

/** What the indexer may read, `[N, …]` each. */
export interface IndexerInputs {
  /** Normed query latent; null where queries are not compressed. */
  readonly qLatent: Tensor | null;
  /** Normed block input. */
  readonly hidden: Tensor;
  /** Normed key-value latent. */
  readonly kvLatent: Tensor;
}

/**
 * Queries, keys and head weights of the lightning indexer (DeepSeek-V3.2 report, eq. 1): one key for
 * all heads, normed with mean and bias; rotary embedding on the *first* dims of a head, half-split,
 * the opposite of MLA in both; head weights signed. Its inputs are detached, unless
 * `indexerDetach=false`: then its loss trains what lies before it, too.
 */
export function lightningIndexer(inputs: IndexerInputs, layer: TokenContext): IndexerTensors {
  const { config: c, weight } = layer;
  const { indexNHeads: heads, indexHeadDim: headDim, qkRopeHeadDim: dims, ropeTheta: theta } = c;
  const source = inputs[c.indexInput];
  if (!source) throw new TypeError("The model has no query latent for its indexer");
  const given = c.indexerDetach ? detach : (x: Tensor) => x;
  const own = (name: string) => weight(`indexer.${name}`);
  const rotate = (x: Tensor, heads: number) =>
    c.indexRope === "none"
      ? x
      : layer.rotate(x, { heads, headDim, start: 0, dims, layout: c.indexRope, theta });

  const qI = rotate(linear(given(source), own("wq_b")), heads);
  // One product makes the keys and the head weights.
  const keyAndWeights = linear(given(inputs.hidden), [own("wk"), own("weights_proj")]);
  const key = columns(keyAndWeights, 0, headDim);
  const kI = rotate(
    c.indexKeyNorm === "none"
      ? key
      : layerNorm(key, own("k_norm"), weight("indexer.k_norm", "bias"), KEY_NORM_EPS),
    1,
  );
  const w = columns(keyAndWeights, headDim, heads);
  const scale = (heads * headDim) ** -0.5;
  return { qI, kI, w, indexer: { heads, dim: headDim, activation: c.indexActivation, scale } };
}

/** Dims of MLA's attention, as its ops take them. */
export type SelectedAttentionDims = MlaAttentionDims & { readonly scale: number };

/** Runs `make` once, when its value is first asked for. */
function once<T>(make: () => T): () => T {
  let made: { value: T } | null = null;
  return () => (made ??= { value: make() }).value;
}

/**
 * MLA's attention under the stage's selector, with the indexer's loss and measurements where the
 * stage asks for them. With `indexShare` above 1, layers in between attend to the selection of the
 * nearest layer before them that has an indexer; their KL trains that indexer if
 * `indexShareLoss=served` (the mean of KLs: its gradient is that of KL to the mean attention).
 *
 * @returns attention output `[N, heads · vHeadDim]`
 */
export function selectedAttention(
  attended: Omit<TeacherTensors, "lse">,
  inputs: IndexerInputs,
  { layer, dims }: { layer: LayerContext; dims: SelectedAttentionDims },
): Tensor {
  const { config, stage, batch, seqLen } = layer;
  const { q, kv, kPe } = attended;
  const teacher = mlaTeacher(dims);
  const dense = once(() => mlaAttention(q, kv, kPe, dims));
  if (layer.index % config.indexShare === 0) {
    const attention = () => ({ q, kv, kPe, lse: dense().lse, teacher });
    layer.shared.selection = select(inputs, layer, attention);
  }
  const { indexer, indices, mask, measured } = layer.shared.selection!;
  const attributes = () => ({ batch, seqLen, indexer: indexer().indexer, teacher });
  const topk = stage.indexTopk;
  const form = config.sparseForm;
  const { o, lse, scores } = indices && mask
    ? sparseMlaAttention(q, kv, kPe, indices, mask, { ...dims, topk, form })
    : { ...dense(), scores: undefined };
  // A mean over the rows of a micro-batch, of which a step sums up as many.
  const weight = config.indexerLossWeight * lossShare(layer) / config.accumulate;
  if (stage.kl !== "none" && weight > 0) {
    // Over the selected keys their own softmax may be the target; over all keys only dense attention.
    const isRestricted = stage.kl === "selected" && config.klTarget === "restricted";
    const kl = indexerKl(indexer(), { q, kv, kPe, lse: isRestricted ? lse : dense().lse }, {
      selection: stage.kl === "selected" && indices && mask
        ? { indices, mask, scores: isRestricted ? scores : undefined }
        : null,
      weight,
      layer,
      attributes: attributes(),
    });
    layer.losses.push({ tensor: kl, weight });
    layer.metrics[`index/${layer.index}/kl`] = kl;
  }
  if (stage.maps) {
    const { scores, attention } = attentionMaps(indexer(), { q, kv, kPe, lse }, attributes());
    layer.maps[`index_scores.${layer.index}`] = scores;
    layer.maps[`target.${layer.index}`] = attention;
    if (indices) layer.maps[`topk.${layer.index}`] = indices;
  }
  if (stage.measures) {
    const { qI, kI, w } = indexer();
    const known = { q, kv, kPe, lse: dense().lse };
    const { means, histogram } = indexerMetrics(qI, kI, w, known, measured(), {
      ...attributes(),
      topk,
    });
    layer.metrics[`index/${layer.index}`] = means;
    layer.metrics[`index/${layer.index}/distance`] = histogram;
    layer.selections.push(measured());
  }
  return o;
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
    like: inputs.hidden,
    indexer,
    attention,
    seed: (config.seed + Math.imul(layer.index, 0x9e3779b9)) >>> 0,
    sinks: config.sinks,
    block: { size: config.blockSize, pool: config.blockPool },
  };
  const indices = selectors[stage.selector].select(context);
  const mask = indices && selectionMask(indices, { seqLen });
  const measured = once(() =>
    mask ?? selectionMask(selectors.learned.select(context)!, { seqLen })
  );
  return { indexer, indices, mask, measured };
}

/** The part of a layer's KL in its indexer's loss. */
function lossShare({ config, index }: LayerContext): number {
  const { indexShare, numHiddenLayers } = config;
  const first = index - index % indexShare;
  if (config.indexShareLoss === "own") return index === first ? 1 : 0;
  return 1 / Math.min(indexShare, numHiddenLayers - first);
}

function indexerKl(
  { qI, kI, w }: IndexerTensors,
  teacher: TeacherTensors,
  { selection, weight, layer, attributes }: {
    selection: LossSelection | null;
    weight: number;
    layer: LayerContext;
    attributes: IndexerAttributes;
  },
): Tensor {
  const { config, stage } = layer;
  return indexerLoss(qI, kI, w, teacher, selection, {
    ...attributes,
    form: config.sparseForm,
    klHeads: config.klHeads,
    direction: config.klDirection,
    weight,
    gradient: stage.trainsIndexer,
  });
}
