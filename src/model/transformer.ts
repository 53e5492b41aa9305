/**
 * The whole model: a pre-norm decoder with RMSNorm, SwiGLU and one of the attention layers.
 *
 * @module
 */
import type { RunConfig } from "../config.ts";
import type { LossFunction, LossResult, StepInputs } from "../engine.ts";
import { crossEntropy } from "../ops/cross_entropy.ts";
import { embedding } from "../ops/embedding.ts";
import { linear } from "../ops/linear.ts";
import type { Tensor } from "../ops/op.ts";
import { rmsNorm } from "../ops/rms_norm.ts";
import { swiglu } from "../ops/swiglu.ts";
import { groupedQueryAttention, latentAttention } from "./attention.ts";

/** A parameter by its full name. */
export type Parameters = (name: string) => Tensor;

/**
 * Logits of every position.
 *
 * @returns `[N, vocabSize]`, N = batch · seqLen
 */
export function transformer(
  config: RunConfig,
  parameters: Parameters,
  inputs: Pick<StepInputs, "tokens" | "batch" | "seqLen">,
): Tensor {
  const eps = config.rmsNormEps;
  const embeddings = parameters("model.embed_tokens.weight");
  let x = embedding(inputs.tokens, embeddings);
  for (let layer = 0; layer < config.numHiddenLayers; layer++) {
    const weight = (name: string) => parameters(`model.layers.${layer}.${name}.weight`);
    const context = {
      config,
      batch: inputs.batch,
      seqLen: inputs.seqLen,
      weight: (name: string) => weight(`self_attn.${name}`),
    };
    const attend = config.attention === "mla" ? latentAttention : groupedQueryAttention;
    x = attend(rmsNorm(x, weight("input_layernorm"), eps), x, context);
    const hidden = rmsNorm(x, weight("post_attention_layernorm"), eps);
    const gateUp = linear(hidden, [weight("mlp.gate_proj"), weight("mlp.up_proj")]);
    x = linear(swiglu(gateUp), weight("mlp.down_proj"), x);
  }
  const head = config.tieWordEmbeddings ? embeddings : parameters("lm_head.weight");
  return linear(rmsNorm(x, parameters("model.norm.weight"), eps), head);
}

/** The language-model loss: mean next-token cross-entropy in nats. */
export function languageModel(config: RunConfig): LossFunction {
  return (parameters, inputs): LossResult => {
    const logits = transformer(config, parameters, inputs);
    const { loss } = crossEntropy(logits, inputs.targets, inputs.inverseCount);
    return { losses: [{ tensor: loss, weight: 1 }], metrics: { loss }, logits };
  };
}
