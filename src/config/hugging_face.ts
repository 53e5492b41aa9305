/**
 * Translates between {@linkcode RunConfig} and the `config.json` of Hugging Face transformers.
 *
 * @module
 */
import { type ConfigInput, type ConfigKey, configKeys, fields, type RunConfig } from "./config.ts";
import type { Field } from "./fields.ts";
import { UserError } from "../errors.ts";
import { hasIndexer, usesIndexer } from "./stages.ts";
import type { Stage } from "./stage_fields.ts";

/** The keys that a kind of model has in its `config.json`, in the order of the fields. */
function wordsOf(kind: Field<unknown>["huggingFace"]): ConfigKey[] {
  return configKeys.filter((key) => fields[key].huggingFace === kind);
}

const sameWords = wordsOf("all");
const mlaWords = wordsOf("mla");
const indexerWords = wordsOf("indexer");
const ownIndexerWords = wordsOf("latentk");
/** What is done with latents that no class of transformers does. */
const latentWords: readonly ConfigKey[] = ["latentRope", "latentBits", "hadamard"];
/** How an indexer was taught: it computes the same without them. */
const teachingWords = wordsOf("taught");

/** What a `config.json` of model type `latentk` says of its attention. */
function ownWords(attention: unknown): readonly (keyof RunConfig)[] {
  const widths: ConfigKey[] = attention === "mla" ? [...mlaWords, ...latentWords] : ["headDim"];
  return [
    "attention",
    "window",
    ...widths,
    ...(attention === "mosa" ? ["indexTopk", "mosaCausal", "mosaDenseHeads"] as const : []),
  ];
}

/** MoSA as its paper has it: its heads look ahead. What runs did before they could be causal. */
export const publishedMosa = { mosaCausal: false, mosaDenseHeads: 0 } as const;

/**
 * The `config.json` with which transformers loads the weights of this model: `LlamaForCausalLM`
 * for mha and gqa, `DeepseekV32ForCausalLM` for mla with an indexer, `DeepseekV3ForCausalLM` for
 * mla without. A model that no class of transformers computes gets the model type `latentk`, so
 * that loading it there fails: mosa, a window, other rotations of mla, an indexer that layers share,
 * that selects for groups of heads or has other conventions than DeepSeek-V3.2's. transformers says
 * of no keys with equal scores which it selects: they may be others than those of
 * `indexTies=oldest`, the default.
 *
 * @param stage whose attention the model has; default: the last. `index_topk` is its selection
 * where attention is sparse, else no less than `seqLen`, so that every query takes all keys
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveConfig } from "./config.ts";
 * import { toHuggingFace } from "./hugging_face.ts";
 *
 * const json = toHuggingFace(resolveConfig({ attention: "gqa" }));
 * assert.deepEqual(json.architectures, ["LlamaForCausalLM"]);
 * const config = resolveConfig({ seqLen: 128, indexTopk: 32 });
 * const indexTopk = config.stages.map((stage) => toHuggingFace(config, stage).index_topk);
 * assert.deepEqual(indexTopk, [128, 128, 32]);
 * ```
 */
export function toHuggingFace(
  config: RunConfig,
  stage: Pick<Stage, "attention" | "indexTopk"> = config.stages[config.stages.length - 1],
): Record<string, unknown> {
  const type = modelType(config, stage);
  const isSelective = type !== "deepseek_v3" && usesIndexer(config);
  const common = {
    ...(architectures[type] ? { architectures: [architectures[type]] } : {}),
    model_type: type,
    ...snake(config, sameWords),
    hidden_act: "silu",
    max_position_embeddings: config.seqLen,
    rope_parameters: { rope_type: "default", rope_theta: config.ropeTheta },
    rope_interleave: config.ropeInterleave,
    attention_bias: false,
    attention_dropout: 0,
    mlp_bias: false,
    bos_token_id: null,
    eos_token_id: null,
    pad_token_id: null,
    use_cache: true,
    dtype: "float32",
  };
  if (type === "llama") return { ...common, head_dim: config.headDim };
  const index_topk = stage.attention === "sparse"
    ? stage.indexTopk
    : Math.max(config.indexTopk, config.seqLen);
  const indexer = isSelective ? { ...snake(config, indexerWords), index_topk } : {};
  if (type === "latentk") {
    return {
      ...common,
      ...snake(config, ownWords(config.attention)),
      ...indexer,
      ...(isSelective ? snake(config, [...ownIndexerWords, ...teachingWords]) : {}),
    };
  }
  return {
    ...common,
    ...snake(config, mlaWords),
    qk_head_dim: config.qkNopeHeadDim + config.qkRopeHeadDim,
    head_dim: config.qkRopeHeadDim,
    first_k_dense_replace: config.numHiddenLayers,
    mlp_layer_types: Array(config.numHiddenLayers).fill("dense"),
    ...indexer,
  };
}

const architectures: Record<string, string | undefined> = {
  llama: "LlamaForCausalLM",
  deepseek_v3: "DeepseekV3ForCausalLM",
  deepseek_v32: "DeepseekV32ForCausalLM",
};

/** The class of transformers that computes a model, or `latentk`. */
function modelType(config: RunConfig, stage: Pick<Stage, "attention">): string {
  if (config.window !== null && stage.attention === "dense") return "latentk";
  if (config.attention !== "mla") {
    return config.attention === "mosa" || config.ropeInterleave ? "latentk" : "llama";
  }
  if (config.latentRope !== "decoupled" || config.latentBits !== null) return "latentk";
  if (!hasIndexer(config) && stage.attention === "dense") return "deepseek_v3";
  const isV32 = config.qLoraRank !== null && config.ropeInterleave &&
    config.indexInput === "qLatent" && config.indexKeyInput === "hidden" &&
    config.indexActivation === "relu" &&
    config.indexKeyNorm === "layerNorm" && config.indexRope === "halfSplit" &&
    config.indexShare === 1 && config.indexGroups === 1 && config.indexBits === null &&
    config.indexLoss === "kl" &&
    (stage.attention === "dense" ||
      config.selector === "learned" && config.indexTies === "oldest");
  return isV32 ? "deepseek_v32" : "latentk";
}

/**
 * The model keys of a `config.json` of transformers.
 *
 * @throws {UserError} naming the field, where it is missing or asks for something that this model
 * does not compute (experts, scaled rotary frequencies, biases, another activation)
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveConfig } from "./config.ts";
 * import { fromHuggingFace, toHuggingFace } from "./hugging_face.ts";
 *
 * const config = resolveConfig({ preset: "small" });
 * assert.equal(fromHuggingFace(toHuggingFace(config)).kvLoraRank, config.kvLoraRank);
 * ```
 */
export function fromHuggingFace(json: Record<string, unknown>): ConfigInput {
  const type = json.model_type;
  const isMla = type === "deepseek_v32" || type === "deepseek_v3";
  if (!isMla && type !== "llama" && type !== "latentk") {
    throw new UserError(
      `Cannot read model_type=${JSON.stringify(type)}: known are deepseek_v32, deepseek_v3, llama`,
    );
  }
  refuseOtherMaths(json, isMla);
  const optional = { numKeyValueHeads: json.num_attention_heads, tieWordEmbeddings: false };
  const config: Record<string, unknown> = {
    ...camel({ ...snakeKeys(optional), ...json }, sameWords),
    ropeTheta: ropeTheta(json),
    ropeInterleave: type === "llama" ? false : json.rope_interleave ?? true,
  };
  // Whether there are weights of an indexer follows from the stages.
  if (type === "deepseek_v3" || type === "latentk" && json.index_input === undefined) {
    config.recipe = "dense";
  }
  if (type === "latentk") {
    const taught = teachingWords.filter((key) => snakeCase(key) in json);
    const indexer = json.index_input === undefined
      ? []
      : [...indexerWords, ...ownIndexerWords, ...taught];
    // Files that were written before a word was there have what was computed then.
    const whole = {
      ...snakeKeys(usual([...latentWords, ...ownIndexerWords])),
      ...snakeKeys(publishedMosa),
      ...json,
    };
    Object.assign(config, camel(whole, [...ownWords(json.attention), ...indexer]));
  } else if (isMla) {
    refuseExperts(json);
    Object.assign(config, { attention: "mla" }, camel({ q_lora_rank: null, ...json }, mlaWords));
    if (type === "deepseek_v32") Object.assign(config, camel(json, indexerWords));
  } else {
    const heads = numberIn(json, "num_attention_heads");
    config.attention = config.numKeyValueHeads === heads ? "mha" : "gqa";
    config.headDim = json.head_dim ?? numberIn(json, "hidden_size") / heads;
  }
  return config as ConfigInput;
}

function refuseOtherMaths(json: Record<string, unknown>, isMla: boolean): void {
  refuseOtherRotations(json);
  for (const key of ["attention_bias", "mlp_bias", "attention_dropout", "quantization_config"]) {
    if (json[key]) refuse(key, json, key === "attention_dropout" ? "0" : "false");
  }
  if ((json.hidden_act ?? "silu") !== "silu") refuse("hidden_act", json, '"silu"');
  if (
    isMla && (json.num_key_value_heads ?? json.num_attention_heads) !== json.num_attention_heads
  ) {
    refuse("num_key_value_heads", json, "num_attention_heads");
  }
}

/** Where rotations are told: by the newest name, and the one before. */
const ropeKeys = ["rope_parameters", "rope_scaling"] as const;

function refuseOtherRotations(json: Record<string, unknown>): void {
  const computed: Record<string, unknown> = {
    rope_type: "default",
    type: "default",
    partial_rotary_factor: 1,
  };
  for (const key of ropeKeys) {
    const rope = json[key] ?? {};
    if (typeof rope !== "object" || Array.isArray(rope)) refuse(key, json, "an object");
    for (const [name, value] of Object.entries(rope)) {
      if (name === "rope_theta" || value === null || value === computed[name]) continue;
      refuse(
        key,
        json,
        name in computed ? `${name} ${JSON.stringify(computed[name])}` : `no ${name}`,
      );
    }
  }
  if ((json.partial_rotary_factor ?? 1) !== 1) refuse("partial_rotary_factor", json, "1");
}

function refuseExperts(json: Record<string, unknown>): void {
  const kinds = json.mlp_layer_types;
  const layers = numberIn(json, "num_hidden_layers");
  if (Array.isArray(kinds)) {
    const isDense = kinds.length >= layers && kinds.slice(0, layers).every((k) => k === "dense");
    if (!isDense) refuse("mlp_layer_types", json, "dense layers");
  } else if (!(numberIn(json, "first_k_dense_replace") >= layers)) {
    refuse("first_k_dense_replace", json, `${layers} (all layers dense)`);
  }
}

function refuse(key: string, json: Record<string, unknown>, expected: string): never {
  throw new UserError(
    `Cannot use ${key}=${JSON.stringify(json[key])}: this model computes ${expected} only`,
  );
}

function ropeTheta(json: Record<string, unknown>): unknown {
  const [rope, scaling] = ropeKeys.map((key) => json[key] as Record<string, unknown> | undefined);
  return rope?.rope_theta ?? scaling?.rope_theta ?? json.rope_theta ?? 10_000;
}

/** A number, NaN where there is none. */
function numberIn(json: Record<string, unknown>, key: string): number {
  const { [key]: value } = json;
  return typeof value === "number" ? value : NaN;
}

function usual(keys: readonly ConfigKey[]): Record<string, unknown> {
  return Object.fromEntries(keys.map((key) => [key, fields[key].default]));
}

function snakeCase(key: string): string {
  return key.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function snakeKeys(values: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(values).map(([key, v]) => [snakeCase(key), v]));
}

function snake(config: RunConfig, keys: readonly (keyof RunConfig)[]): Record<string, unknown> {
  return Object.fromEntries(keys.map((key) => [snakeCase(key), config[key]]));
}

function camel(json: Record<string, unknown>, keys: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(keys.map((key) => {
    const value = json[snakeCase(key)];
    if (value === undefined) {
      throw new UserError(`Cannot read the model's config.json: ${snakeCase(key)} is missing`);
    }
    return [key, value];
  }));
}
