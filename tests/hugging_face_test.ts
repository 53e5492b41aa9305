import assert from "node:assert/strict";
import {
  type ConfigInput,
  type ConfigKey,
  configKeys,
  fields,
  resolveConfig,
} from "../src/config/config.ts";
import { UserError } from "../src/errors.ts";
import type { Field } from "../src/config/fields.ts";
import { fromHuggingFace, toHuggingFace } from "../src/config/hugging_face.ts";
import { modelParameters } from "../src/model/parameters.ts";
import { userError } from "./user_error.ts";

/** A `config.json` as transformers writes it. */
const deepseek = {
  model_type: "deepseek_v32",
  vocab_size: 40,
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 4,
  n_routed_experts: 4,
  kv_lora_rank: 16,
  q_lora_rank: 24,
  qk_rope_head_dim: 8,
  v_head_dim: 12,
  qk_nope_head_dim: 10,
  hidden_act: "silu",
  max_position_embeddings: 512,
  initializer_range: 0.03,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: true,
  rope_parameters: { rope_theta: 5000, rope_type: "default" },
  mlp_layer_types: ["dense", "dense"],
  attention_bias: false,
  attention_dropout: 0,
  index_topk: 6,
  index_head_dim: 16,
  index_n_heads: 8,
  mlp_bias: false,
  head_dim: 8,
  first_k_dense_replace: 2,
};

Deno.test("a config.json of transformers is read", () => {
  const config = resolveConfig(fromHuggingFace(deepseek));
  assert.equal(config.attention, "mla");
  assert.deepEqual(
    [config.qLoraRank, config.kvLoraRank, config.qkNopeHeadDim, config.qkRopeHeadDim],
    [24, 16, 10, 8],
  );
  assert.deepEqual([config.vHeadDim, config.indexNHeads, config.indexTopk], [12, 8, 6]);
  assert.deepEqual([config.ropeTheta, config.rmsNormEps, config.initializerRange], [
    5e3,
    1e-5,
    .03,
  ]);
  assert.deepEqual([config.tieWordEmbeddings, config.ropeInterleave], [true, true]);
});

Deno.test("plain rotations are read under each of their names", () => {
  const { rope_parameters: _, ...rest } = deepseek;
  const cases: [Record<string, unknown>, number][] = [
    [{ rope_parameters: { type: "default", rope_theta: 700 } }, 700],
    [{ rope_parameters: { rope_type: null, rope_theta: 700, factor: null } }, 700],
    [{ rope_scaling: { type: "default" }, rope_theta: 700 }, 700],
    [{ rope_scaling: { rope_type: "default", rope_theta: 700 } }, 700],
    [{ rope_scaling: null, rope_theta: 700 }, 700],
    [{}, 10_000],
  ];
  for (const [json, theta] of cases) {
    assert.equal(fromHuggingFace({ ...rest, ...json }).ropeTheta, theta, JSON.stringify(json));
  }
});

Deno.test("what would change the maths is refused by name", () => {
  const cases: [string, unknown][] = [
    ["mlp_layer_types", ["dense", "sparse"]],
    ["attention_bias", true],
    ["mlp_bias", true],
    ["attention_dropout", 0.1],
    ["hidden_act", "gelu"],
    ["rope_scaling", { type: "yarn", factor: 40 }],
    ["rope_parameters", { rope_type: "yarn", rope_theta: 1e4, factor: 40 }],
    ["rope_parameters", { rope_theta: 1e4, partial_rotary_factor: 0.5 }],
    ["rope_parameters", { type: "linear", rope_theta: 1e4, factor: 4 }],
    ["rope_parameters", { rope_type: "default", type: "yarn" }],
    ["rope_parameters", { rope_type: "default", mrope_section: [2, 1, 1] }],
    ["rope_parameters", { full_attention: { rope_type: "yarn" } }],
    ["rope_parameters", "yarn"],
    ["rope_scaling", { rope_type: "llama3", factor: 8 }],
    ["rope_scaling", { factor: 8 }],
    ["quantization_config", { quant_method: "fp8" }],
    ["num_key_value_heads", 2],
    ["model_type", "mamba"],
    ["kv_lora_rank", undefined],
    ["hidden_size", "wide"],
  ];
  for (const [key, value] of cases) {
    const message = userError(() => resolveConfig(fromHuggingFace({ ...deepseek, [key]: value })));
    const camelKey = key.replaceAll(/_(.)/g, (_, letter) => letter.toUpperCase());
    assert(message.includes(key) || message.includes(camelKey), `${key}: ${message}`);
  }
  const { latent_bits: _, ...before } = toHuggingFace(resolveConfig({ latentRope: "none" }));
  assert.equal(resolveConfig(fromHuggingFace({ vocab_size: 9, ...before })).latentBits, null);
  const old = { ...deepseek, mlp_layer_types: undefined, first_k_dense_replace: 1 };
  assert.match(userError(() => fromHuggingFace(old)), /first_k_dense_replace=1/);
});

Deno.test("whatever stands for a value, the error is one line for people", () => {
  for (const base of [deepseek, toHuggingFace(resolveConfig({ attention: "gqa" }))]) {
    for (const key of Object.keys(base)) {
      for (const value of [{ toString: null }, [{ valueOf: 1 }], "7", null, true]) {
        try {
          resolveConfig(fromHuggingFace({ ...base, [key]: value }));
        } catch (error) {
          assert(error instanceof UserError, `${key}: ${error}`);
          assert.doesNotMatch(error.message, /\n|object Object/, key);
        }
      }
    }
  }
});

Deno.test("a model's config.json gives the model back", () => {
  const model = configKeys.filter((key) => ["model", "indexer"].includes(fields[key].group));
  const cases = [
    ["deepseek_v32", ""],
    ["deepseek_v32", "recipe=sparse"],
    ["deepseek_v32", "recipe=dsa_twin indexTopk=200"],
    ["latentk", "selector=random"],
    ["latentk", "indexTies=newest"],
    ["deepseek_v32", "indexTies=oldest"],
    ["latentk", "qLoraRank=none"],
    ["latentk", "ropeInterleave=false"],
    ["latentk", "indexActivation=none"],
    ["latentk", "indexKeyNorm=none"],
    ["latentk", "indexRope=interleaved"],
    ["latentk", "indexInput=kvLatent"],
    ["latentk", "indexKeyInput=kvLatent"],
    ["latentk", "indexKeyInput=native"],
    ["latentk", "indexLoss=both indexActivation=none"],
    ["latentk", "indexShare=2"],
    ["latentk", "indexGroups=2"],
    ["deepseek_v32", "indexGroups=1"],
    ["latentk", "latentRope=none"],
    ["latentk", "latentBits=fp8 indexBits=4 hadamard=true"],
    ["latentk", "latentRope=onLatent recipe=dense"],
    ["latentk", "window=20 recipe=dense"],
    ["deepseek_v3", "recipe=dense indexRope=none"],
    ["deepseek_v3", "recipe=dense qLoraRank=none"],
    ["deepseek_v3", "recipe=dense ropeInterleave=false"],
    ["llama", "attention=mha"],
    ["llama", "attention=gqa numKeyValueHeads=1 headDim=10 ropeTheta=500"],
    ["latentk", "attention=gqa ropeInterleave=true tieWordEmbeddings=true headDim=10"],
    ["latentk", "attention=mha window=9"],
    ["latentk", "attention=mosa indexTopk=7"],
  ];
  for (const [type, words] of cases) {
    const config = resolveConfig({ vocabSize: 99 }, words.split(" ").filter(Boolean));
    const json = JSON.parse(JSON.stringify(toHuggingFace(config)));
    assert.equal(json.model_type, type, words);
    assert.equal("architectures" in json, type !== "latentk", words);
    const given = fromHuggingFace(json);
    const back = resolveConfig(given);
    const used = model.filter((key) => key in given);
    assert(used.length >= 12);
    for (const key of used) assert.equal(back[key], config[key], `${words}: ${key}`);
    assert.deepEqual(modelParameters(back), modelParameters(config), words);
  }
});

/** Keys of the groups model and indexer that say how to train or compute, not what. */
const NO_CONVENTIONS: readonly string[] = [
  "indexerLr",
  "indexerLossWeight",
  "sparseForm",
  "measureEvery",
];

/** A value that is not the default. */
function otherValue({ kind, values, default: usual }: Field<unknown>): unknown {
  if (kind === "boolean") return !usual;
  if (values) return values.find((value) => value !== usual && value !== "none");
  return 2 * Number(usual) || 2;
}

Deno.test("every convention of model and indexer is kept in config.json", () => {
  // No class of transformers computes these; some keys are those of other models.
  const mla: ConfigInput = { indexActivation: "none", indexHeadDim: 16 };
  const gqa: ConfigInput = { attention: "gqa", ropeInterleave: true };
  const models: Partial<Record<ConfigKey, ConfigInput>> = {
    attention: gqa,
    mosaCausal: { attention: "mosa" },
    mosaDenseHeads: { attention: "mosa" },
    window: { recipe: "dense" },
    numKeyValueHeads: gqa,
    headDim: gqa,
    indexActivation: {},
    hadamard: { latentBits: "4" },
    klHeads: { ...mla, numAttentionHeads: 4, indexNHeads: 4 },
  };
  for (const key of configKeys) {
    const field: Field<unknown> = fields[key];
    if (!["model", "indexer"].includes(field.group) || NO_CONVENTIONS.includes(key)) continue;
    const value = key === "attention" ? "gqa" : otherValue(field) ?? "none";
    const config = resolveConfig({ ...models[key] ?? mla, [key]: value });
    const json = JSON.parse(JSON.stringify(toHuggingFace(config)));
    assert.equal(json.model_type, "latentk", key);
    const back = resolveConfig(fromHuggingFace(json));
    assert.notEqual(config[key], field.default, key);
    assert.equal(back[key], config[key], key);
  }
});

Deno.test("transformers selects as many keys as the stage of the checkpoint", () => {
  const config = resolveConfig({ seqLen: 300, indexTopk: 7 }, ["sparse.indexTopk=9"]);
  const topk = config.stages.map((stage) => toHuggingFace(config, stage).index_topk);
  // A dense model must not become a sparse one there.
  assert.deepEqual(topk, [300, 300, 9]);
  assert.equal(toHuggingFace(config).index_topk, 9);
  assert.equal("index_topk" in toHuggingFace(resolveConfig({ recipe: "dense" })), false);
  const other = resolveConfig({}, ["selector=recency"]);
  assert.deepEqual(
    other.stages.map((stage) => toHuggingFace(other, stage).model_type),
    ["deepseek_v32", "deepseek_v32", "latentk"],
  );
});
