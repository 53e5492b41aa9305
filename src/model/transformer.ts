/**
 * The whole model: a pre-norm decoder with RMSNorm, SwiGLU and one of the attention layers.
 *
 * N = batch · seqLen tokens: tokens i32 `[N, 1]`; the residual stream x and what layers add to it
 * `[N, hiddenSize]`; gate and up side by side `[N, 2 · intermediateSize]`; logits `[N, vocabSize]`.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import type { LossFunction, LossResult, StepInputs } from "../engine.ts";
import { checkpoint } from "../ops/token/checkpoint.ts";
import { crossEntropy } from "../ops/token/cross_entropy.ts";
import { embedding } from "../ops/token/embedding.ts";
import { meanOf } from "../ops/indexer/mean_of.ts";
import { maskOverlap } from "../ops/indexer/metrics.ts";
import { layerMetric } from "../metrics/names.ts";
import { linear } from "../ops/token/linear.ts";
import type { Tensor } from "../ops/op.ts";
import { rmsNorm } from "../ops/token/rms_norm.ts";
import { rope } from "../ops/token/rope.ts";
import { swiglu } from "../ops/token/swiglu.ts";
import type { Stage } from "../config/stage_fields.ts";
import { groupedQueryAttention } from "./grouped_query_attention.ts";
import { latentAttention } from "./latent_attention.ts";
import type { LayerContext, LayerResult } from "./layer.ts";
import { mixtureOfSparseAttention } from "./mosa.ts";
import { denseView, type StageView } from "./stage_view.ts";

/** A parameter by its full name. */
export type Parameters = (name: string) => Tensor;

/** What the layers make besides the logits. */
export interface TransformerOutput {
  /** `[N, vocabSize]`, N = batch · seqLen. */
  readonly logits: Tensor;
  /** The layers' own losses with their weights: the indexers' KL. */
  readonly losses: { tensor: Tensor; weight: number }[];
  /** What the layers report, by metric name. */
  readonly metrics: Record<string, Tensor>;
  /** What is to be looked at, by name. */
  readonly maps: Record<string, Tensor>;
}

/**
 * Logits from tokens: the residual stream through all blocks.
 *
 * @param tokens `[N, 1]` i32
 * @param attend attention of layer `index` on the normed input `x`, added to `residual`; it is given
 * what the layers before have made
 * @returns the logits, and what each layer has made
 */
export function residualStream<Result extends Pick<LayerResult, "output">>(
  config: RunConfig,
  parameters: Parameters,
  tokens: Tensor,
  attend: (
    x: Tensor,
    residual: Tensor,
    layer: Pick<LayerContext, "index" | "weight"> & { readonly before: readonly Result[] },
  ) => Result,
): { readonly logits: Tensor; readonly layers: readonly Result[] } {
  const eps = config.rmsNormEps;
  const embeddings = parameters("model.embed_tokens.weight");
  const layers: Result[] = [];
  let x = embedding(tokens, embeddings);
  for (let index = 0; index < config.numHiddenLayers; index++) {
    if (config.recompute) x = checkpoint(x);
    const weight = (name: string, kind = "weight") =>
      parameters(`model.layers.${index}.${name}.${kind}`);
    const made = attend(rmsNorm(x, weight("input_layernorm"), eps), x, {
      index,
      before: layers,
      weight: (name, kind) => weight(`self_attn.${name}`, kind),
    });
    layers.push(made);
    x = made.output;
    const hidden = rmsNorm(x, weight("post_attention_layernorm"), eps);
    const gateUp = linear(hidden, [weight("mlp.gate_proj"), weight("mlp.up_proj")]);
    x = linear(swiglu(gateUp), weight("mlp.down_proj"), x);
  }
  if (config.recompute) x = checkpoint(x);
  const head = config.tieWordEmbeddings ? embeddings : parameters("lm_head.weight");
  return { logits: linear(rmsNorm(x, parameters("model.norm.weight"), eps), head), layers };
}

/** The attention layer of each kind. */
const attentionLayers = {
  mha: groupedQueryAttention,
  gqa: groupedQueryAttention,
  mla: latentAttention,
  mosa: mixtureOfSparseAttention,
};

/** Logits of every position, under a stage's attention. */
export function transformer(
  config: RunConfig,
  parameters: Parameters,
  { tokens, batch, seqLen, stage }: Pick<StepInputs, "tokens" | "batch" | "seqLen"> & {
    stage: StageView;
  },
): TransformerOutput {
  const attend: (x: Tensor, residual: Tensor, layer: LayerContext) => LayerResult =
    attentionLayers[config.attention];
  const { logits, layers } = residualStream<LayerResult>(
    config,
    parameters,
    tokens,
    (x, residual, { before, ...own }) =>
      attend(x, residual, {
        ...{ config, stage, batch, seqLen, ...own },
        shared: before.at(-1)?.selections ?? null,
        rotate: (x, spec) => rope(x, { ...spec, seqLen }),
      }),
  );
  const named = (
    of: (layer: LayerResult) => Readonly<Record<string, Tensor>> | undefined,
    name: (key: string, layer: number) => string,
  ): Record<string, Tensor> =>
    Object.fromEntries(
      layers.flatMap((layer, i) =>
        Object.entries(of(layer) ?? {}).map(([key, tensor]) => [name(key, i), tensor])
      ),
    );
  const sizes = { batch, seqLen, topk: stage.indexTopk };
  return {
    logits,
    losses: layers.flatMap(({ losses = [] }) => losses),
    metrics: {
      ...named(({ metrics }) => metrics, (key, layer) => layerMetric("index", layer, key)),
      ...stage.measures ? overlaps(layers, sizes) : {},
    },
    maps: named(({ maps }) => maps, (key, layer) => `${key}.${layer}`),
  };
}

/** How far the selections of neighbouring layers are the same, in the mean over groups of heads. */
function overlaps(
  layers: readonly LayerResult[],
  sizes: { batch: number; seqLen: number; topk: number },
): Record<string, Tensor> {
  const masks = layers.flatMap(({ selections }) =>
    selections ? [selections.map(({ measured }) => measured())] : []
  );
  return Object.fromEntries(
    masks.slice(1).map((own, i) => [
      layerMetric("index", i + 1, "neighbour_overlap"),
      meanOf(own.map((mask, group) => maskOverlap(masks[i][group], mask, sizes))),
    ]),
  );
}

/**
 * The objective of a stage: mean next-token cross-entropy in nats, unless only the indexer is
 * trained, and the indexers' KL.
 */
export function languageModel(
  config: RunConfig,
  options: { stage?: StageView; trains?: Stage["trains"] } = {},
): LossFunction {
  const { stage = denseView, trains = "backbone" } = options;
  return (parameters, inputs): LossResult => {
    const { logits, losses, metrics, maps } = transformer(config, parameters, { ...inputs, stage });
    const { loss, nll } = crossEntropy(logits, inputs.targets, inputs.inverseCount);
    return {
      losses: trains === "indexer" ? losses : [{ tensor: loss, weight: 1 }, ...losses],
      metrics: { loss, ...metrics },
      logits,
      nll,
      maps,
    };
  };
}
