/**
 * The whole model: a pre-norm decoder with RMSNorm, SwiGLU and one of the attention layers.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import type { LossFunction, LossResult, StepInputs } from "../engine.ts";
import { checkpoint } from "../ops/token/checkpoint.ts";
import { crossEntropy } from "../ops/token/cross_entropy.ts";
import { embedding } from "../ops/token/embedding.ts";
import { maskOverlap } from "../ops/indexer/metrics.ts";
import { linear } from "../ops/token/linear.ts";
import type { Tensor } from "../ops/op.ts";
import { rmsNorm } from "../ops/token/rms_norm.ts";
import { rope } from "../ops/token/rope.ts";
import { swiglu } from "../ops/token/swiglu.ts";
import type { Stage } from "../config/stage_fields.ts";
import { groupedQueryAttention, latentAttention } from "./attention.ts";
import type { LayerContext } from "./layer.ts";
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
 * @param attend attention of layer `index` on the normed input `x`, added to `residual`
 * @returns `[N, vocabSize]`
 */
export function residualStream(
  config: RunConfig,
  parameters: Parameters,
  tokens: Tensor,
  attend: (x: Tensor, residual: Tensor, layer: Pick<LayerContext, "index" | "weight">) => Tensor,
): Tensor {
  const eps = config.rmsNormEps;
  const embeddings = parameters("model.embed_tokens.weight");
  let x = embedding(tokens, embeddings);
  for (let index = 0; index < config.numHiddenLayers; index++) {
    if (config.recompute) x = checkpoint(x);
    const weight = (name: string, kind = "weight") =>
      parameters(`model.layers.${index}.${name}.${kind}`);
    x = attend(rmsNorm(x, weight("input_layernorm"), eps), x, {
      index,
      weight: (name, kind) => weight(`self_attn.${name}`, kind),
    });
    const hidden = rmsNorm(x, weight("post_attention_layernorm"), eps);
    const gateUp = linear(hidden, [weight("mlp.gate_proj"), weight("mlp.up_proj")]);
    x = linear(swiglu(gateUp), weight("mlp.down_proj"), x);
  }
  if (config.recompute) x = checkpoint(x);
  const head = config.tieWordEmbeddings ? embeddings : parameters("lm_head.weight");
  return linear(rmsNorm(x, parameters("model.norm.weight"), eps), head);
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
  const losses: TransformerOutput["losses"] = [];
  const metrics: TransformerOutput["metrics"] = {};
  const maps: TransformerOutput["maps"] = {};
  const selections: Tensor[] = [];
  const shared: LayerContext["shared"] = { selection: null };
  const attend = attentionLayers[config.attention];
  const logits = residualStream(
    config,
    parameters,
    tokens,
    (x, residual, own) =>
      attend(x, residual, {
        ...{ config, stage, batch, seqLen, losses, metrics, maps, selections, shared },
        ...own,
        rotate: (x, spec) => rope(x, { ...spec, seqLen }),
      }),
  );
  const topk = stage.indexTopk;
  for (let i = 1; i < selections.length; i++) {
    const overlap = maskOverlap(selections[i - 1], selections[i], { batch, seqLen, topk });
    metrics[`index/${i}/neighbour_overlap`] = overlap;
  }
  return { logits, losses, metrics, maps };
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
