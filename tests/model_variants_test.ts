/** Layers that share an indexer, and other places for RoPE: both engines compute the same. */
import assert from "node:assert/strict";
import { type ConfigInput, resolveConfig, type RunConfig } from "../src/config/config.ts";
import type { Batch } from "../src/data/dataset.ts";
import type { Engine, EngineOptions } from "../src/engine.ts";
import { measureIndexer, swapTest } from "../src/measure/indexer.ts";
import { parseMetric } from "../src/metrics/names.ts";
import { initialParameters, modelParameters } from "../src/model/parameters.ts";
import { type StageView, viewOf } from "../src/model/stage_view.ts";
import { languageModel } from "../src/model/transformer.ts";
import { Rng } from "../src/rng.ts";
import { TfjsBackend } from "../src/tfjs/backend.ts";
import { TfjsEngine } from "../src/tfjs/engine.ts";
import { WebGpuEngine } from "../src/webgpu/engine/engine.ts";
import { assertClose, relativeError, testGpu } from "./check_op.ts";

const seed = Math.floor(Math.random() * 2 ** 32);

const small: ConfigInput = {
  vocabSize: 17,
  hiddenSize: 16,
  intermediateSize: 24,
  numHiddenLayers: 3,
  numAttentionHeads: 2,
  qLoraRank: 12,
  kvLoraRank: 10,
  qkNopeHeadDim: 6,
  qkRopeHeadDim: 4,
  vHeadDim: 6,
  indexNHeads: 2,
  indexHeadDim: 8,
  indexTopk: 5,
  // Large enough that every path has a gradient to compare.
  initializerRange: 0.2,
  batchSize: 2,
  seqLen: 19,
  seed,
};

function batchOf(config: RunConfig): Batch {
  const rng = new Rng(config.seed, "tokens");
  const count = config.batchSize * config.seqLen;
  const draw = () => Int32Array.from({ length: count }, () => rng.below(config.vocabSize));
  return { tokens: draw(), targets: draw(), count };
}

function optionsOf(config: RunConfig, stage = config.stages.length - 1): EngineOptions {
  const { [stage]: last } = config.stages;
  return {
    parameters: modelParameters(config),
    initial: initialParameters(config),
    loss: languageModel(config, { stage: viewOf(last, config), trains: last.trains }),
    batchSize: config.batchSize,
    seqLen: config.seqLen,
  };
}

async function results(engine: Engine, config: RunConfig) {
  const batch = batchOf(config);
  return { metrics: await engine.evaluate(batch), gradients: await engine.gradients(batch) };
}

/** Both engines' metrics and gradients agree; returns those of WebGPU. */
async function compared(given: ConfigInput) {
  const config = resolveConfig({ ...small, ...given });
  using webgpu = await WebGpuEngine.open(await testGpu(), optionsOf(config));
  using cpu = new TfjsEngine(await TfjsBackend.open("wasm"), optionsOf(config));
  const [got, want] = [await results(webgpu, config), await results(cpu, config)];
  for (const [name, value] of Object.entries(want.metrics)) {
    assertClose(`${name} (seed ${seed})`, [got.metrics[name]], [value], 1e-4);
  }
  for (const [name, gradient] of want.gradients) {
    assertClose(`${name} (seed ${seed})`, got.gradients.get(name)!, gradient, 2e-3);
  }
  return got;
}

const indexersOf = (given: ConfigInput) =>
  modelParameters(resolveConfig({ ...small, ...given }))
    .filter(({ name }) => name.endsWith("indexer.wk.weight"))
    .map(({ name }) => name.split(".")[2]);

Deno.test("only the first of the layers that share an indexer has its weights", () => {
  assert.deepEqual(indexersOf({}), ["0", "1", "2"]);
  assert.deepEqual(indexersOf({ indexShare: 2 }), ["0", "2"]);
  assert.deepEqual(indexersOf({ indexShare: 9 }), ["0"]);
});

Deno.test("layers that share an indexer attend to what it selects, and may teach it", async () => {
  const shared = { indexShare: 2, recipe: "sparse" } as const;
  const own = await compared(shared);
  const served = await compared({ ...shared, indexShareLoss: "served" });
  assert.deepEqual(Object.keys(own.metrics), ["loss", "index/0/kl", "index/2/kl"]);
  assert.deepEqual(Object.keys(served.metrics).slice(1), [0, 1, 2].map((l) => `index/${l}/kl`));
  assert.equal(own.metrics["index/0/kl"], served.metrics["index/0/kl"]);
  const of = (gradients: Map<string, Float32Array>, layer: number) =>
    gradients.get(`model.layers.${layer}.self_attn.indexer.wk.weight`)!;
  const difference = relativeError(of(own.gradients, 0), of(served.gradients, 0));
  assert(difference > 1e-2, `gradients differ by ${difference} (seed ${seed})`);
  // The last layer has its indexer for itself.
  assertClose("alone", of(own.gradients, 2), of(served.gradients, 2), 1e-6);

  const config = resolveConfig({ ...small, ...shared, indexShareLoss: "served" });
  const recomputed = resolveConfig({ ...config, recompute: true });
  using engine = await WebGpuEngine.open(await testGpu(), optionsOf(recomputed));
  const again = await results(engine, recomputed);
  assert.deepEqual(again.metrics, served.metrics);
  for (const [name, gradient] of again.gradients) {
    assertClose(`recomputed ${name}`, gradient, served.gradients.get(name)!, 1e-5);
  }
});

Deno.test("a shared selection is the same in maps and measurements", async () => {
  const config = resolveConfig({ ...small, indexShare: 2, recipe: "dsa" });
  using engine = await WebGpuEngine.open(await testGpu(), optionsOf(config));
  const batch = batchOf(config);
  const run = (name: string, view: Partial<StageView>, stage: number) => ({
    name,
    loss: languageModel(config, { stage: { ...viewOf(config.stages[stage], config), ...view } }),
  });
  const maps = await engine.maps(batch, run("maps", { maps: true }, 2));
  assert.deepEqual(maps.get("topk.1"), maps.get("topk.0"));
  assert.notDeepEqual(maps.get("topk.2"), maps.get("topk.0"));
  for (const stage of [1, 2]) {
    const values = await engine.evaluate(
      batch,
      run(`measured in ${stage}`, { measures: true, kl: "none" }, stage),
    );
    assert.equal(values["index/1/neighbour_overlap"], 1, `stage ${stage}`);
    assert(values["index/2/neighbour_overlap"] < 1, `stage ${stage}`);
  }
});

Deno.test("RoPE on the latent, and none, are what both engines compute", async () => {
  const losses = [];
  for (const latentRope of ["decoupled", "onLatent", "none"] as const) {
    const { metrics } = await compared({ latentRope, recipe: "dense" });
    losses.push(metrics.loss);
  }
  assert.equal(new Set(losses).size, 3, `${losses} (seed ${seed})`);
  await compared({ latentRope: "onLatent", recipe: "sparse" });
});

Deno.test("without RoPE attention does not know the order of the keys", async () => {
  // The logits of a single layer's last token, before and after others changed places.
  const moved = async (latentRope: RunConfig["latentRope"]) => {
    const config = resolveConfig({ ...small, latentRope, recipe: "dense", numHiddenLayers: 1 });
    using engine = await WebGpuEngine.open(await testGpu(), optionsOf(config));
    const tokens = batchOf(config).tokens.slice(0, config.seqLen);
    const order = Int32Array.from(tokens, (token, i) => i < 9 ? tokens[8 - i] : token);
    const last = config.seqLen - 1;
    return relativeError(await engine.logits(tokens, last), await engine.logits(order, last));
  };
  assert(await moved("none") < 1e-5, `seed ${seed}`);
  assert(await moved("decoupled") > 1e-4, `seed ${seed}`);
  assert(await moved("onLatent") > 1e-4, `seed ${seed}`);
});

Deno.test("index keys of what is cached: their weights, gradients, and what they leave alone", async () => {
  const shapes = (indexKeyInput: ConfigInput["indexKeyInput"]) =>
    modelParameters(resolveConfig({ ...small, indexKeyInput }))
      .filter(({ name }) => /layers\.0\..*indexer\.wk/.test(name))
      .map(({ name, shape }) => [name.split(".").at(-2), ...shape]);
  assert.deepEqual(shapes("hidden"), [["wk", 8, 16]]);
  assert.deepEqual(shapes("kvLatent"), [["wk", 8, 10]]);
  assert.deepEqual(shapes("kvLatentRope"), [["wk", 8, 10], ["wk_rope", 8, 4]]);
  const backbone = "model.layers.0.self_attn.kv_a_proj_with_mqa.weight";
  for (const indexKeyInput of ["kvLatent", "kvLatentRope"] as const) {
    for (const recipe of ["dsa", "sparse"] as const) {
      const own = await compared({ recipe, indexKeyInput });
      const through = await compared({ recipe, indexKeyInput, indexerDetach: false });
      for (const [name, gradient] of own.gradients) {
        if (!/indexer\.wk/.test(name)) continue;
        assert(gradient.some((value) => value !== 0), `${name} learns (seed ${seed})`);
      }
      // The loss of the indexer trains what lies before it only where that is asked for.
      const difference = relativeError(
        through.gradients.get(backbone)!,
        own.gradients.get(backbone)!,
      );
      assert(difference > 1e-4, `gradients differ by ${difference} (seed ${seed})`);
    }
  }
});

const SCORED = { recipe: "sparse", indexActivation: "none" } as const;

Deno.test("index scores in attention: the model's own loss teaches the indexer, and only it", async () => {
  const isIndexer = (name: string) => name.includes(".indexer.");
  const isZero = (gradient: Float32Array) => gradient.every((value) => value === 0);
  for (const indexLoss of ["lm", "both"] as const) {
    for (const sparseForm of ["masked", "gathered"] as const) {
      const { metrics, gradients } = await compared({ ...SCORED, indexLoss, sparseForm });
      const hasKl = indexLoss === "both";
      assert.equal("index/0/kl" in metrics, hasKl);
      for (const [name, gradient] of gradients) {
        // What adds the same to all keys of a query changes nothing: without KL it learns nothing.
        if (name.endsWith("k_norm.bias") && !hasKl) continue;
        assert(!isZero(gradient), `${name} learns (seed ${seed})`);
      }
    }
  }
  // KL alone leaves an indexer without KL as it is.
  const alone = await compared({
    ...SCORED,
    stages: [{ name: "sparse", kl: "none", trains: "backbone" }],
  });
  for (const [name, gradient] of alone.gradients) {
    assert.equal(isZero(gradient), isIndexer(name), name);
  }
  // Inputs of the indexer are detached unless it is said otherwise.
  const backbone = "model.layers.0.self_attn.kv_a_proj_with_mqa.weight";
  const [own, through] = await Promise.all(
    [true, false].map((indexerDetach) => compared({ ...SCORED, indexLoss: "lm", indexerDetach })),
  );
  const difference = relativeError(through.gradients.get(backbone)!, own.gradients.get(backbone)!);
  assert(difference > 1e-6, `gradients differ by ${difference} (seed ${seed})`);
});

Deno.test("index scores in attention: its logits are those without, and gate · I", async () => {
  const seen = async (gate: number | null) => {
    const config = resolveConfig({
      ...{ ...small, ...SCORED, numHiddenLayers: 1, numAttentionHeads: 1, batchSize: 1 },
      indexLoss: gate === null ? "kl" : "both",
    });
    const initial = initialParameters(config);
    initial.get("model.layers.0.self_attn.indexer.score_gate.weight")?.fill(gate!);
    const [stage] = config.stages.slice(-1);
    const loss = languageModel(config, { stage: { ...viewOf(stage, config), maps: true } });
    using engine = await WebGpuEngine.open(await testGpu(), {
      ...optionsOf(config),
      initial,
      loss,
    });
    const maps = await engine.maps(batchOf(config), { name: "maps", loss });
    const { loss: nats } = await engine.evaluate(batchOf(config));
    return {
      ...{ nats, seqLen: config.seqLen, scores: [...maps.get("index_scores.0")!] },
      logs: [...maps.get("target.0")!].map(Math.log),
    };
  };
  const [plain, none, some] = [await seen(null), await seen(0), await seen(3)];
  assertClose("a gate that is shut", [none.nats], [plain.nats], 1e-6);
  const { seqLen } = plain;
  let largest = 0;
  for (let t = 1; t < seqLen; t++) {
    const rest = Array.from({ length: t + 1 }, (_, s) => {
      const at = t * seqLen + s;
      largest = Math.max(largest, Math.abs(some.scores[at]));
      return some.logs[at] - plain.logs[at] - 3 * some.scores[at];
    });
    for (const value of rest) assert(Math.abs(value - rest[0]) < 1e-4, `row ${t} (seed ${seed})`);
  }
  assert(largest > 1e-3, `scores up to ${largest} (seed ${seed})`);
});

Deno.test("in few bits both engines compute the same, and 16 bits are as good as all", async () => {
  // Rounding decides what becomes of a number between two others: these are always the same.
  const fixed = { seed: 7, recipe: "sparse" } as const;
  const whole = await compared(fixed);
  const losses = [whole.metrics.loss];
  for (
    const given of [
      { latentBits: "4" },
      { latentBits: "4", hadamard: true },
      { latentBits: "fp8", indexBits: "2", indexKeyInput: "kvLatentRope" },
    ] as const
  ) {
    const { metrics, gradients } = await compared({ ...fixed, ...given });
    losses.push(metrics.loss);
    for (const [name, gradient] of gradients) {
      assert(gradient.some((value) => value !== 0), `${name} learns`);
    }
  }
  assert.equal(new Set(losses).size, 4, `${losses}`);
  const nearly = await compared({ ...fixed, latentBits: "16", indexBits: "16", hadamard: true });
  assertClose("loss", [nearly.metrics.loss], [whole.metrics.loss], 1e-4);
  assertClose("KL", [nearly.metrics["index/0/kl"]], [whole.metrics["index/0/kl"]], 1e-2);
});

Deno.test("without an indexer attention selects: the oracle's keys, on both engines", async () => {
  for (const numAttentionHeads of [1, 4]) {
    const native = { recipe: "sparse", indexKeyInput: "native", numAttentionHeads } as const;
    const config = resolveConfig({ ...small, ...native });
    assert(!modelParameters(config).some(({ group }) => group === "indexer"));
    const { metrics } = await compared(native);
    assert.deepEqual(Object.keys(metrics), ["loss"]);

    using engine = await WebGpuEngine.open(await testGpu(), optionsOf(config));
    const [batch, [stage]] = [batchOf(config), config.stages];
    const swap = await swapTest(engine, { config, stage, batches: [batch] });
    assert.equal(swap["swap/learned"], swap["swap/oracle"]);
    assert.equal(swap["swap/learned"], metrics.loss);
    assert.notEqual(swap["swap/learned"], swap["swap/recency"], `seed ${seed}`);
    const measured = await measureIndexer(engine, { config, stage, batch });
    assert.equal(measured["index/set_overlap"], 1);
    assert.equal(measured["index/captured_mass"], measured["index/oracle_mass"]);
    const named = Object.keys(measured).map((name) => parseMetric(name).key);
    const ofScores = named.filter((name) =>
      /^(dense_kl|score_mean|score_std|index_|dead_)/.test(name)
    );
    assert.deepEqual(ofScores, []);
  }
});

Deno.test("an indexer that reads latents cannot tell tokens whose latents are equal", async () => {
  const scores = async (indexKeyInput: ConfigInput["indexKeyInput"]) => {
    const config = resolveConfig({
      ...{ ...small, indexKeyInput, indexKeyNorm: "none", indexRope: "none" },
      numHiddenLayers: 1,
      batchSize: 1,
    });
    const initial = initialParameters(config);
    // Latents of zeros, and what is left of tokens in hidden states and rope keys.
    initial.get("model.layers.0.self_attn.kv_a_layernorm.weight")!.fill(0);
    const [stage] = config.stages.slice(-1);
    const loss = languageModel(config, { stage: { ...viewOf(stage, config), maps: true } });
    using engine = await WebGpuEngine.open(await testGpu(), {
      ...optionsOf(config),
      initial,
      loss,
    });
    const maps = await engine.maps(batchOf(config), { name: "maps", loss });
    return [...maps.get("index_scores.0")!];
  };
  const isBlind = (values: number[]) => {
    const { seqLen } = resolveConfig(small);
    return values.every((value, i) => i % seqLen > Math.floor(i / seqLen) || value === 0);
  };
  assert(isBlind(await scores("kvLatent")));
  assert(!isBlind(await scores("kvLatentRope")));
  assert(!isBlind(await scores("hidden")));
});
