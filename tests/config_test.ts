import assert from "node:assert/strict";
import {
  type ConfigInput,
  type ConfigKey,
  configKeys,
  describeFields,
  fields,
  parseOverrides,
  resolveConfig,
} from "../src/config.ts";
import { type Field, groups } from "../src/fields.ts";
import { UserError } from "../src/errors.ts";
import { fromHuggingFace, toHuggingFace } from "../src/hugging_face.ts";
import { modelParameters } from "../src/model/parameters.ts";
import { presets } from "../src/presets.ts";
import { stageFields } from "../src/stages.ts";
import { suggest } from "../src/suggest.ts";

/** The message of the UserError that `body` throws; it must be one plain line. */
function userError(body: () => unknown): string {
  try {
    body();
  } catch (error) {
    assert(error instanceof UserError, `not a UserError: ${error}`);
    assert.match(error.message, /^[A-Z][^\n]*[^.\n]$/);
    return error.message;
  }
  throw new assert.AssertionError({ message: "nothing was thrown" });
}

Deno.test("preset, then experiment, then typed keys", () => {
  const base = { preset: "tiny", lr: 5e-4, steps: 700 } as const;
  const config = resolveConfig(base, ["steps=1_000", "clip=none", "tieWordEmbeddings=true"]);
  assert.equal(config.hiddenSize, presets.tiny.hiddenSize);
  assert.equal(config.lr, 5e-4);
  assert.equal(config.steps, 1000);
  assert.equal(config.clip, null);
  assert.equal(config.tieWordEmbeddings, true);
  assert.equal(resolveConfig(base, ["preset=small"]).hiddenSize, presets.small.hiddenSize);
  assert.equal(resolveConfig({ lr: undefined }).lr, fields.lr.default);
});

Deno.test("every preset resolves, and a resolved configuration resolves to itself", () => {
  for (const preset of Object.keys(presets)) {
    for (const attention of ["mha", "gqa", "mla", "mosa"]) {
      const config = resolveConfig({}, [`preset=${preset}`, `attention=${attention}`]);
      assert.deepEqual(resolveConfig(JSON.parse(JSON.stringify(config))), config);
      assert.deepEqual(Object.keys(config).sort(), [...configKeys, "stages"].sort());
    }
  }
});

Deno.test("values that nobody gave follow from others", () => {
  const mla = resolveConfig({}, ["steps=50"]);
  assert.equal(mla.warmupSteps, 5);
  assert.equal(mla.ropeInterleave, true);
  const gqa = resolveConfig({}, ["attention=gqa", "hiddenSize=96", "numAttentionHeads=6"]);
  assert.deepEqual([gqa.numKeyValueHeads, gqa.headDim, gqa.ropeInterleave], [3, 16, false]);
  assert.equal(resolveConfig({}, ["attention=gqa", "numAttentionHeads=1"]).numKeyValueHeads, 1);
});

Deno.test("a vocabulary belongs to its tokenizer and data", () => {
  const size = (base: Parameters<typeof resolveConfig>[0], ...typed: string[]) =>
    resolveConfig(base, typed).vocabSize;
  assert.equal(size({}), 256);
  assert.equal(size({ preset: "small" }), 4096);
  assert.equal(size({ preset: "small" }, "data=some.txt"), 4096);
  assert.equal(size({ preset: "small" }, "tokenizer=byte"), 256);
  assert.equal(size({ preset: "small" }, "tokenizer=byte", "vocabSize=300"), 300);
  assert.equal(size({ preset: "small" }, "data=recall", "taskVocab=80"), 80);
  const saved = resolveConfig({ tokenizer: "char", vocabSize: 87 });
  assert.equal(size(saved, "lr=1e-4"), 87);
  assert.equal(size(saved, "data=other.txt"), 0);
});

Deno.test("numbers, lists, texts and none are read as written", () => {
  assert.deepEqual(
    parseOverrides(["lr=3e-4", "steps=10_000", "adamEps=.5", "minLr=0", "qLoraRank=null"]),
    { lr: 3e-4, steps: 10_000, adamEps: 0.5, minLr: 0, qLoraRank: null },
  );
  assert.deepEqual(parseOverrides(["samplePrompt=a=b", "needleDepths=0,.5,1", "name=7"]), {
    samplePrompt: "a=b",
    needleDepths: [0, 0.5, 1],
    name: "7",
  });
  assert.deepEqual(parseOverrides(["lr=1", "warmup.steps=20", "sparse.from=none"]), {
    lr: 1,
    stages: [{ name: "warmup", steps: 20 }, { name: "sparse", from: null }],
  });
});

Deno.test("a mistyped key gets the nearest one", () => {
  const random = Math.floor(Math.random() * 1e9);
  for (const key of configKeys) {
    const at = random % key.length;
    const typo = key.slice(0, at) + key.slice(at + 1);
    if (typo.length < 3 || Object.hasOwn(fields, typo)) continue;
    const near = suggest(typo, configKeys);
    assert(near !== null && Math.abs(near.length - typo.length) <= 1, `${typo}: ${near}`);
  }
  assert.match(userError(() => resolveConfig({}, ["kvLoraRnak=8"])), /kvLoraRnak.*kvLoraRank\?/);
  assert.match(userError(() => resolveConfig({}, ["index_topk=8"])), /indexTopk\?/);
  assert.match(userError(() => resolveConfig({}, ["xyzzy=8"])), /"xyzzy".*--help/);
  assert.match(userError(() => resolveConfig({ stepz: 3 } as never)), /"stepz".*steps\?/);
});

Deno.test("a wrong value says what was expected", () => {
  const cases: [string, RegExp][] = [
    ["steps=abc", /steps=abc: expected a whole number from 1/],
    ["steps=1.5", /whole number/],
    ["steps=0x10", /whole number/],
    ["steps=", /steps=: expected/],
    ["steps=1e99", /whole number/],
    ["lr=0", /lr=0: expected a number above 0/],
    ["lr=nan", /lr=nan/],
    ["minLr=1.1", /from 0 to 1/],
    ["clip=-1", /clip=-1.*or none/],
    ["profile=yes", /true or false/],
    ["device=gpu", /auto \| webgpu \| cpu/],
    ["preset=tinny", /did you mean tiny\?/],
    ["needleDepths=0,2", /needleDepths=0,2: expected numbers from 0 to 1/],
    ["seed=-1", /seed=-1/],
    ["lr", /key=value/],
    ["=3", /key=value/],
    ["--steps=3", /write steps=3, without dashes/],
    ["warmpu.steps=200", /no stage "warmpu", did you mean warmup\?/],
    ["warmup.lr=fast", /warmup\.lr=fast: expected a number from 0/],
    ["warmup.step=2", /warmup\.step: did you mean warmup\.steps\?/],
    [".steps=2", /did you mean steps\?/],
  ];
  for (const [word, expected] of cases) {
    assert.match(userError(() => resolveConfig({}, [word])), expected);
  }
});

Deno.test("values that do not fit each other are refused with a way out", () => {
  const cases: [string, RegExp][] = [
    ["qkRopeHeadDim=7", /qkRopeHeadDim=7.*use 8/],
    ["numKeyValueHeads=2", /numKeyValueHeads=2 with attention=mla/],
    ["attention=mha numKeyValueHeads=2", /attention=gqa/],
    ["attention=gqa numKeyValueHeads=3", /divide numAttentionHeads=4; use one of 1, 2, 4/],
    [
      "attention=mha numAttentionHeads=3 hiddenSize=95",
      /hiddenSize=95 with numAttentionHeads=3.*96/,
    ],
    ["attention=mha headDim=9", /headDim=9.*headDim=10/],
    ["attention=mosa headDim=9", /headDim=9.*headDim=10/],
    ["attention=mosa numKeyValueHeads=2", /numKeyValueHeads=2 with attention=mosa.*attention=gqa/],
    ["attention=gqa recipe=dsa", /recipe=dsa with attention=gqa.*recipe=dense/],
    ["qLoraRank=none indexInput=qLatent", /indexInput=qLatent with qLoraRank=none.*=hidden/],
    ["indexHeadDim=4", /indexHeadDim=4: .*qkRopeHeadDim=8.*indexHeadDim=8 or indexRope=none/],
    ["steps=10 warmupSteps=11", /warmupSteps=11.*steps=10/],
    ["schedule=wsd steps=10 warmupSteps=5 decaySteps=6", /decaySteps=6/],
    ["tokenizer=bpe vocabSize=100", /vocabSize=100/],
    ["name=../x", /name="..\/x"/],
    ["data=", /data/],
  ];
  for (const [words, expected] of cases) {
    assert.match(userError(() => resolveConfig({}, words.split(" "))), expected);
  }
  const allowed = [
    "schedule=cosine steps=10 warmupSteps=5 decaySteps=6",
    "qLoraRank=none",
    "indexHeadDim=4 indexRope=none",
    "indexHeadDim=4 recipe=dense",
    "indexTopk=9999",
  ];
  for (const words of allowed) resolveConfig({}, words.split(" "));
});

Deno.test("the help text has every key once, with a line of meaning", () => {
  const help = describeFields();
  const [keys, stageKeys] = help.split(/^stage .*\n/m);
  const tables: [string, Record<string, Field<unknown>>][] = [
    [keys, fields],
    [stageKeys, stageFields],
  ];
  for (const [text, table] of tables) {
    for (const [key, field] of Object.entries(table)) {
      assert(groups.includes(field.group));
      assert.equal(text.match(new RegExp(`^  ${key} .*${"\\["}`, "gm"))?.length, 1, key);
      assert(field.describe.length > 4 && !field.describe.includes("\n"), key);
    }
    assert.equal(text.match(/^ {2}\w/gm)?.length, Object.keys(table).length);
  }
});

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
  const old = { ...deepseek, mlp_layer_types: undefined, first_k_dense_replace: 1 };
  assert.match(userError(() => fromHuggingFace(old)), /first_k_dense_replace=1/);
});

Deno.test("a model's config.json gives the model back", () => {
  const model = configKeys.filter((key) => ["model", "indexer"].includes(fields[key].group));
  const cases = [
    ["deepseek_v32", ""],
    ["deepseek_v32", "recipe=sparse"],
    ["deepseek_v32", "recipe=dsa_twin indexTopk=200"],
    ["latentk", "selector=random"],
    ["latentk", "qLoraRank=none"],
    ["latentk", "ropeInterleave=false"],
    ["latentk", "indexActivation=none"],
    ["latentk", "indexKeyNorm=none"],
    ["latentk", "indexRope=interleaved"],
    ["latentk", "indexInput=kvLatent"],
    ["latentk", "indexShare=2"],
    ["latentk", "latentRope=none"],
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
    window: { recipe: "dense" },
    numKeyValueHeads: gqa,
    headDim: gqa,
    indexActivation: {},
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
