/**
 * The parameters of a model: Hugging Face's names and layouts, and how they start.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import type { ParameterSpec } from "../engine.ts";
import { Rng } from "../rng.ts";
import { hasIndexer } from "../config/stages.ts";

/**
 * Every parameter, in the order in which they lie in memory. Weights that multiply the same input
 * follow each other, so that one product serves them all.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveConfig } from "../config/config.ts";
 * import { modelParameters } from "./parameters.ts";
 *
 * const [first] = modelParameters(resolveConfig({ vocabSize: 256, hiddenSize: 64 }));
 * assert.equal(first.name, "model.embed_tokens.weight");
 * assert.deepEqual(first.shape, [256, 64]);
 * ```
 */
export function modelParameters(config: RunConfig): ParameterSpec[] {
  const specs: ParameterSpec[] = [];
  const weight = (name: string, rows: number, cols: number) =>
    specs.push({ name, shape: [rows, cols], rows, cols, group: "backbone", decay: true });
  const norm = (name: string, cols: number) =>
    specs.push({ name, shape: [cols], rows: 1, cols, group: "backbone", decay: false });
  const { hiddenSize: d, intermediateSize: ff, vocabSize, numHiddenLayers } = config;

  weight("model.embed_tokens.weight", vocabSize, d);
  for (let layer = 0; layer < numHiddenLayers; layer++) {
    const prefix = `model.layers.${layer}`;
    norm(`${prefix}.input_layernorm.weight`, d);
    attentionParameters(config, `${prefix}.self_attn`, weight, norm);
    if (hasIndexer(config) && layer % config.indexShare === 0) {
      specs.push(...indexerParameters(config, `${prefix}.self_attn.indexer`));
    }
    norm(`${prefix}.post_attention_layernorm.weight`, d);
    weight(`${prefix}.mlp.gate_proj.weight`, ff, d);
    weight(`${prefix}.mlp.up_proj.weight`, ff, d);
    weight(`${prefix}.mlp.down_proj.weight`, d, ff);
  }
  norm("model.norm.weight", d);
  if (!config.tieWordEmbeddings) weight("lm_head.weight", vocabSize, d);
  return specs;
}

function attentionParameters(
  c: RunConfig,
  prefix: string,
  weight: (name: string, rows: number, cols: number) => void,
  norm: (name: string, cols: number) => void,
): void {
  const heads = c.numAttentionHeads;
  if (c.attention !== "mla") {
    weight(`${prefix}.q_proj.weight`, heads * c.headDim, c.hiddenSize);
    weight(`${prefix}.k_proj.weight`, c.numKeyValueHeads * c.headDim, c.hiddenSize);
    weight(`${prefix}.v_proj.weight`, c.numKeyValueHeads * c.headDim, c.hiddenSize);
    if (c.attention === "mosa") {
      weight(`${prefix}.mosa_router.weight`, heads - c.mosaDenseHeads, c.hiddenSize);
    }
    weight(`${prefix}.o_proj.weight`, c.hiddenSize, heads * c.headDim);
    return;
  }
  const queryDim = heads * (c.qkNopeHeadDim + c.qkRopeHeadDim);
  const latents = () => {
    weight(`${prefix}.kv_a_proj_with_mqa.weight`, c.kvLoraRank + c.qkRopeHeadDim, c.hiddenSize);
    norm(`${prefix}.kv_a_layernorm.weight`, c.kvLoraRank);
  };
  if (c.qLoraRank === null) {
    weight(`${prefix}.q_proj.weight`, queryDim, c.hiddenSize);
    latents();
  } else {
    weight(`${prefix}.q_a_proj.weight`, c.qLoraRank, c.hiddenSize);
    latents();
    norm(`${prefix}.q_a_layernorm.weight`, c.qLoraRank);
    weight(`${prefix}.q_b_proj.weight`, queryDim, c.qLoraRank);
  }
  weight(`${prefix}.kv_b_proj.weight`, heads * (c.qkNopeHeadDim + c.vHeadDim), c.kvLoraRank);
  weight(`${prefix}.o_proj.weight`, c.hiddenSize, heads * c.vHeadDim);
}

/**
 * Names and shapes of `DeepseekV32Indexer`; `wk_rope` multiplies what `[c ; k_pe]` has besides, and
 * `score_gate` the scores that go into attention (`indexLoss`).
 */
function indexerParameters(c: RunConfig, prefix: string): ParameterSpec[] {
  const { indexNHeads, indexHeadDim, indexKeyInput } = c;
  const kvInput = c.indexInput === "kvLatent" ? c.kvLoraRank : c.hiddenSize;
  const input = c.indexInput === "qLatent" ? c.qLoraRank ?? c.hiddenSize : kvInput;
  const spec = (name: string, shape: number[]): ParameterSpec => ({
    name: `${prefix}.${name}`,
    shape,
    rows: shape.length === 1 ? 1 : shape[0],
    cols: shape[shape.length - 1],
    group: "indexer",
    decay: shape.length > 1,
  });
  const norm = c.indexKeyNorm === "none"
    ? []
    : [spec("k_norm.weight", [indexHeadDim]), spec("k_norm.bias", [indexHeadDim])];
  return [
    spec("wq_b.weight", [indexNHeads * indexHeadDim, input]),
    spec("wk.weight", [indexHeadDim, indexKeyInput === "hidden" ? c.hiddenSize : c.kvLoraRank]),
    ...indexKeyInput === "kvLatentRope"
      ? [spec("wk_rope.weight", [indexHeadDim, c.qkRopeHeadDim])]
      : [],
    spec("weights_proj.weight", [indexNHeads, c.hiddenSize]),
    ...c.indexLoss === "kl" ? [] : [spec("score_gate.weight", [1])],
    ...norm,
  ];
}

/** How much of index scores goes into attention's before anything is learned. */
const FIRST_GATE = 0.1;

/**
 * First values: normal with `initializerRange` for weights, ones for norms, 0.1 for gates. The
 * products that write to the residual stream start smaller by sqrt(2 · layers), as in GPT-2, so that
 * the stream's variance does not grow with depth. Each parameter has a random stream of its own name,
 * so that leaving one out does not change the others.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveConfig } from "../config/config.ts";
 * import { initialParameters } from "./parameters.ts";
 *
 * const values = initialParameters(resolveConfig({ hiddenSize: 64 }));
 * assert.deepEqual(values.get("model.norm.weight"), new Float32Array(64).fill(1));
 * ```
 */
export function initialParameters(config: RunConfig): Map<string, Float32Array> {
  const residualScale = 1 / Math.sqrt(2 * config.numHiddenLayers);
  const values = new Map<string, Float32Array>();
  for (const { name, rows, cols, decay } of modelParameters(config)) {
    const data = new Float32Array(rows * cols);
    if (decay) {
      const scale = /\.(o_proj|down_proj)\.weight$/.test(name) ? residualScale : 1;
      new Rng(config.seed, `init ${name}`).fillNormal(data, config.initializerRange * scale);
    } else if (!name.endsWith(".bias")) {
      data.fill(name.endsWith(".score_gate.weight") ? FIRST_GATE : 1);
    }
    values.set(name, data);
  }
  return values;
}
