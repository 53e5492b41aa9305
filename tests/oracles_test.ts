/** The oracles of DeepSeek Sparse Attention: what must hold whatever the weights. */
import assert from "node:assert/strict";
import { type ConfigInput, resolveConfig, type RunConfig } from "../src/config.ts";
import type { Batch } from "../src/data/dataset.ts";
import type { EngineOptions } from "../src/engine.ts";
import { initialParameters, modelParameters } from "../src/model/parameters.ts";
import { denseView, type StageView } from "../src/model/stage_view.ts";
import { languageModel } from "../src/model/transformer.ts";
import { firstMeasured } from "../src/ops/indexer_metrics.ts";
import { selectors } from "../src/ops/selectors/selectors.ts";
import type { Stage } from "../src/stages.ts";
import { measureIndexer, swapTest } from "../src/train/measure.ts";
import { TfjsBackend } from "../src/tfjs/backend.ts";
import { TfjsEngine } from "../src/tfjs/engine.ts";
import { WebGpuEngine } from "../src/webgpu/engine.ts";
import { assertClose, randomNormal, testGpu } from "./check_op.ts";
import { useFloat64 } from "./float64_backend.ts";

const SMALL: ConfigInput = {
  tokenizer: "byte",
  vocabSize: 23,
  batchSize: 2,
  seqLen: 21,
  hiddenSize: 20,
  intermediateSize: 24,
  numHiddenLayers: 2,
  numAttentionHeads: 3,
  qLoraRank: 14,
  kvLoraRank: 12,
  qkNopeHeadDim: 6,
  qkRopeHeadDim: 4,
  vHeadDim: 5,
  indexNHeads: 3,
  indexHeadDim: 8,
  indexTopk: 5,
  // Large weights: attention far from uniform, so that a wrong key shows.
  initializerRange: 0.4,
};

const sparse: StageView = {
  selector: "learned",
  indexTopk: 5,
  kl: "none",
  trainsIndexer: true,
  measures: false,
};

function config(changes: ConfigInput = {}): RunConfig {
  return resolveConfig({ ...SMALL, seed: Math.floor(Math.random() * 1e9), ...changes });
}

function randomBatch({ batchSize, seqLen, vocabSize }: RunConfig): Batch {
  const count = batchSize * seqLen;
  const ids = () => Int32Array.from({ length: count }, () => Math.floor(Math.random() * vocabSize));
  return { tokens: ids(), targets: ids(), count };
}

function options(c: RunConfig, stage: StageView, trains: Stage["trains"] = "both"): EngineOptions {
  return {
    parameters: modelParameters(c),
    initial: initialParameters(c),
    loss: languageModel(c, { stage, trains }),
    batchSize: c.batchSize,
    seqLen: c.seqLen,
  };
}

async function results(c: RunConfig, stage: StageView, batch: Batch, trains?: Stage["trains"]) {
  using engine = await WebGpuEngine.open(await testGpu(), options(c, stage, trains));
  return {
    loss: (await engine.evaluate(batch)).loss,
    logits: await engine.logits(batch.tokens),
    gradients: await engine.gradients(batch),
  };
}

const isIndexer = (name: string) => name.includes(".indexer.");
const isZero = (x: Float32Array) => x.every((value) => value === 0);

for (const form of ["masked", "gathered"] as const) {
  Deno.test(`k >= S is dense attention, loss and every gradient (${form})`, async () => {
    const c = config({ sparseForm: form });
    const batch = randomBatch(c);
    const dense = await results(c, denseView, batch);
    const all = await results(c, { ...sparse, indexTopk: c.seqLen }, batch);
    assertClose("loss", [all.loss], [dense.loss], 1e-6);
    assertClose("logits", all.logits, dense.logits, 1e-5);
    for (const [name, gradient] of dense.gradients) {
      assertClose(name, all.gradients.get(name)!, gradient, 1e-4);
    }
  });
}

for (const klTarget of ["restricted", "renormalized"] as const) {
  Deno.test(`the masked form is the gathered form, of attention and KL (${klTarget})`, async () => {
    const c = config({ klTarget });
    const batch = randomBatch(c);
    const stage = { ...sparse, kl: "selected" } as const;
    const [masked, gathered] = [
      await results({ ...c, sparseForm: "masked" }, stage, batch),
      await results({ ...c, sparseForm: "gathered" }, stage, batch),
    ];
    assertClose("logits", gathered.logits, masked.logits, 1e-5);
    for (const [name, gradient] of masked.gradients) {
      assert(!isZero(gradient), name);
      assertClose(name, gathered.gradients.get(name)!, gradient, 1e-4);
    }
  });
}

for (const selector of Object.keys(selectors) as (keyof typeof selectors)[]) {
  Deno.test(`no selector lets a token see the future, rows below k included: ${selector}`, async () => {
    const c = config({ blockSize: 3 });
    const { tokens } = randomBatch(c);
    const stage = { ...sparse, selector };
    using engine = await WebGpuEngine.open(await testGpu(), {
      ...options(c, stage),
      trained: [],
    });
    const before = await engine.logits(tokens);
    for (const t of [2, 12]) {
      const changed = tokens.slice();
      for (let b = 0; b < c.batchSize; b++) {
        for (let s = t + 1; s < c.seqLen; s++) {
          changed[b * c.seqLen + s] = (tokens[b * c.seqLen + s] + 1 + s) % c.vocabSize;
        }
      }
      const after = await engine.logits(changed);
      for (let b = 0; b < c.batchSize; b++) {
        const row = (x: Float32Array, s: number) => {
          const start = (b * c.seqLen + s) * c.vocabSize;
          return x.subarray(start, start + c.vocabSize);
        };
        for (let s = 0; s <= t; s++) assert.deepEqual(row(after, s), row(before, s), `row ${s}`);
        assert.notDeepEqual(row(after, t + 1), row(before, t + 1));
      }
    }
  });
}

Deno.test("measurements describe the selection in use, or what the indexer would select", async (t) => {
  const c = config({ blockSize: 3, sinks: 2 });
  const batch = randomBatch(c);
  const { seqLen } = c;
  using engine = await WebGpuEngine.open(await testGpu(), {
    ...options(c, denseView),
    trained: [],
  });
  const show = (stage: StageView) => {
    const loss = languageModel(c, { stage: { ...stage, maps: true } });
    return engine.maps(batch, { name: stage.selector, loss });
  };
  // Below layer 0 all selectors see the same.
  const attention = (await show({ ...sparse, selector: "dense" })).get("target.0")!;
  const measure = (name: keyof typeof selectors) => {
    const own = name === "dense" ? c : { ...c, selector: name };
    const stage = c.stages.find(({ attention }) => (attention === "dense") === (name === "dense"))!;
    return measureIndexer(engine, { config: own, stage: { ...stage, name }, batch });
  };
  const learned = await measure("learned");
  for (const name of Object.keys(selectors) as (keyof typeof selectors)[]) {
    await t.step(name, async () => {
      const chosen = name === "dense" ? "learned" : name;
      const indices = (await show({ ...sparse, selector: chosen })).get("topk.0")!;
      const from = firstMeasured(seqLen, 5);
      let rows = 0, mass = 0, sinks = 0, keys = 0, local = 0;
      const bins = new Array(6).fill(0);
      for (let row = 0; row < c.batchSize * seqLen; row++) {
        const t = row % seqLen;
        if (t < from) continue;
        const all = Array.from(attention.subarray(row * seqLen, row * seqLen + t + 1));
        const total = all.reduce((a, b) => a + b, 0);
        rows++;
        for (const s of indices.subarray(row * 5, row * 5 + 5)) {
          mass += all[s] / total;
          keys++;
          sinks += Number(s === 0);
          local += Number(t - s < 16);
          bins[32 - Math.clz32(t - s)]++;
        }
      }
      const got = await measure(name);
      assertClose("mass", [got["index/0/captured_mass"]], [mass / rows], 1e-4);
      const shares = [sinks / rows, local / keys, ...bins.map((n) => n / keys)];
      const names = ["sink_share", "local_share", ...bins.map((_, i) => `distance/${i}`)];
      assertClose("shares", names.map((key) => got[`index/0/${key}`]), shares, 1e-5);
      if (name === "oracle") {
        const best = ["set_overlap", "score_recall"].map((key) => got[`index/0/${key}`]);
        assertClose("oracle", best, [1, 1], 1e-5);
      }
      // Of the indexer's scores, whoever selects.
      for (const key of ["dense_kl", "index_entropy", "dead_scores", "score_mean", "score_std"]) {
        assertClose(key, [got[`index/0/${key}`]], [learned[`index/0/${key}`]], 1e-5);
      }
    });
  }
  await t.step("the swap test has a row for the model's own selector", async () => {
    const known = ["dense", "learned", "oracle", "random", "recency"];
    const stage = c.stages.at(-1)!;
    const swap = (selector: RunConfig["selector"]) =>
      swapTest(engine, { config: { ...c, selector }, stage, batches: [batch] });
    assert.deepEqual(Object.keys(await swap("oracle")), known.map((name) => `swap/${name}`));
    const values = await swap("block");
    assert.deepEqual(Object.keys(values), [...known, "block"].map((name) => `swap/${name}`));
    const loss = languageModel(c, { stage: { ...sparse, selector: "block" } });
    const { loss: nats } = await engine.evaluate(batch, { name: "own", loss });
    assertClose("block", [values["swap/block"]], [nats], 1e-6);
  });
});

Deno.test("the LM loss gives the indexer no gradient, KL gives the backbone none", async (t) => {
  const c = config();
  const batch = randomBatch(c);
  await t.step("LM loss alone", async () => {
    const { gradients } = await results(c, sparse, batch);
    for (const [name, gradient] of gradients) assert.equal(isZero(gradient), isIndexer(name), name);
  });
  for (const kl of ["dense", "selected"] as const) {
    await t.step(`KL alone, over ${kl} keys`, async () => {
      const stage = { ...sparse, selector: kl === "dense" ? "dense" : "learned", kl } as const;
      const { gradients } = await results(c, stage, batch, "indexer");
      for (const [name, gradient] of gradients) {
        assert.equal(isZero(gradient), !isIndexer(name), name);
      }
    });
  }
  await t.step("frozen groups keep their weights and moments in a warm-up", async () => {
    const stage = { ...sparse, selector: "dense", kl: "dense" } as const;
    using engine = await WebGpuEngine.open(await testGpu(), {
      ...options(c, stage, "indexer"),
      trained: ["indexer"],
    });
    const before = await engine.exportState();
    const indexer = { lr: 1e-2, weightDecay: 0.1, clip: 1, update: 1 };
    engine.step([batch], { beta1: 0.9, beta2: 0.95, eps: 1e-8, groups: { indexer } });
    const after = await engine.exportState();
    for (const [name, value] of before.parameters) {
      const same = value.every((x, i) => x === after.parameters.get(name)![i]);
      assert.equal(same, !isIndexer(name), name);
      assert.equal(isZero(after.m.get(name)!), !isIndexer(name), name);
    }
  });
});

Deno.test("with indexerDetach=false the KL's gradient goes on into the backbone", async (t) => {
  const c = config({ indexerDetach: false });
  const batch = randomBatch(c);
  // In the last layer, what lies before the indexer; in those below, all of it.
  const isReached = (name: string) =>
    isIndexer(name) ||
    /embed_tokens|layers\.0\.|layers\.1\.(input_layernorm|self_attn\.q_a_)/.test(name);
  for (const kl of ["dense", "selected"] as const) {
    await t.step(`over ${kl} keys`, async () => {
      const stage = { ...sparse, selector: kl === "dense" ? "dense" : "learned", kl } as const;
      const { gradients } = await results(c, stage, batch, "indexer");
      using twin = new TfjsEngine(await TfjsBackend.open("wasm"), options(c, stage, "indexer"));
      const wanted = await twin.gradients(batch);
      for (const [name, gradient] of gradients) {
        assert.equal(isZero(gradient), !isReached(name), name);
        assertClose(name, gradient, wanted.get(name)!, 1e-4);
      }
      const recomputed = await results({ ...c, recompute: true }, stage, batch, "indexer");
      assert.deepEqual(recomputed.gradients, gradients);
    });
  }
  await t.step("and the LM loss still gives the indexer none", async () => {
    const { gradients } = await results(c, sparse, batch);
    for (const [name, gradient] of gradients) assert.equal(isZero(gradient), isIndexer(name), name);
  });
});

Deno.test("both target definitions are accepted, and differ", async () => {
  const c = config();
  const batch = randomBatch(c);
  const stage = { ...sparse, kl: "selected" } as const;
  const [restricted, renormalized] = [
    await results({ ...c, klTarget: "restricted" }, stage, batch, "indexer"),
    await results({ ...c, klTarget: "renormalized" }, stage, batch, "indexer"),
  ];
  const name = "model.layers.1.self_attn.indexer.wq_b.weight";
  assert.throws(() =>
    assertClose(name, renormalized.gradients.get(name)!, restricted.gradients.get(name)!, 1e-3)
  );
});

Deno.test("recompute=true gives bitwise the same gradients in less memory", async () => {
  const c = config({ numHiddenLayers: 4, seqLen: 64, batchSize: 4 });
  const batch = randomBatch(c);
  const stage = { ...sparse, kl: "selected" } as const;
  const gpu = await testGpu();
  using kept = await WebGpuEngine.open(gpu, options(c, stage));
  using again = await WebGpuEngine.open(gpu, options({ ...c, recompute: true }, stage));
  assert(again.bytes < 0.8 * kept.bytes, `${again.bytes} of ${kept.bytes} bytes`);
  assert.deepEqual(await again.gradients(batch), await kept.gradients(batch));
});

Deno.test("with the selection frozen, gradients are central differences (float64)", async () => {
  useFloat64();
  const c = config({ indexerLossWeight: 0.7 });
  const batch = randomBatch(c);
  const backend = await TfjsBackend.open("float64");
  // A choice by position alone stays when the weights move.
  const stage = { ...sparse, selector: "random", kl: "selected" } as const;
  using engine = new TfjsEngine(backend, options(c, stage));
  const gradients = await engine.gradients(batch);
  const { parameters, m, v } = await engine.exportState();
  const objective = async (step: number, direction: Map<string, Float32Array>, kl: boolean) => {
    const moved = new Map(
      [...parameters].map(([name, x]) => [
        name,
        Float64Array.from(x, (value, i) => value + step * direction.get(name)![i]),
      ]),
    );
    // This backend's parameters are float64 arrays.
    engine.importState({ parameters: moved as unknown as typeof parameters, m, v });
    const metrics = await engine.evaluate(batch);
    if (!kl) return metrics.loss;
    return Object.entries(metrics)
      .reduce((sum, [name, x]) => name.endsWith("/kl") ? sum + 0.7 * x : sum, 0);
  };
  // LM loss along the backbone, KL along the indexer: each alone, since KL's teacher moves with
  // the backbone and passes no gradient.
  for (const kl of [false, true]) {
    const direction = new Map(
      [...parameters].map(([name, x]) => [
        name,
        isIndexer(name) === kl ? randomNormal(x.length) : new Float32Array(x.length),
      ]),
    );
    let slope = 0;
    for (const [name, g] of gradients) {
      const along = direction.get(name)!;
      for (let i = 0; i < g.length; i++) slope += g[i] * along[i];
    }
    const step = 1e-6;
    const [up, down] = [
      await objective(step, direction, kl),
      await objective(-step, direction, kl),
    ];
    assertClose(kl ? "KL" : "LM loss", [(up - down) / (2 * step)], [slope], 1e-5);
  }
});
