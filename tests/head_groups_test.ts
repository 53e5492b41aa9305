/** Groups of heads that select keys of their own (`indexGroups`), on all engines. */
import assert from "node:assert/strict";
import { type ConfigInput, resolveConfig, type RunConfig } from "../src/config/config.ts";
import type { StageInput } from "../src/config/stage_fields.ts";
import type { Engine, EngineOptions } from "../src/engine.ts";
import { measureIndexer, measuringVariant, swapTest } from "../src/measure/indexer.ts";
import { initialParameters, modelParameters } from "../src/model/parameters.ts";
import { denseView, type StageView, viewOf } from "../src/model/stage_view.ts";
import { languageModel } from "../src/model/transformer.ts";
import { TfjsBackend } from "../src/tfjs/backend.ts";
import { TfjsEngine } from "../src/tfjs/engine.ts";
import { WebGpuEngine } from "../src/webgpu/engine/engine.ts";
import { asGpu, assertClose, testGpu } from "./check_op.ts";
import { isIndexer, isZero, randomBatch, SMALL } from "./oracle_case.ts";

const seed = Math.floor(Math.random() * 2 ** 31);

/** Six heads and four index heads, of odd widths: two groups. */
const TWO = {
  ...{ numAttentionHeads: 6, indexNHeads: 4, indexHeadDim: 7, indexGroups: 2, vHeadDim: 5 },
  ...{ qkNopeHeadDim: 3, kvLoraRank: 7, recipe: "sparse" },
} as const satisfies ConfigInput;

const configOf = (given: ConfigInput) => resolveConfig({ ...SMALL, seed, ...given });

function optionsOf(config: RunConfig, changes: Partial<StageView> = {}): EngineOptions {
  const stage = config.stages.at(-1)!;
  const view = { ...viewOf(stage, config), ...changes };
  return {
    parameters: modelParameters(config),
    initial: initialParameters(config),
    loss: languageModel(config, { stage: view, trains: stage.trains }),
    batchSize: config.batchSize,
    seqLen: config.seqLen,
  };
}

/** Calls `check` with an engine of the CPU, one of this adapter, and one with kernels of GPUs. */
async function onAll(options: EngineOptions, check: (engine: Engine) => Promise<void>) {
  const gpu = await testGpu();
  using cpu = new TfjsEngine(await TfjsBackend.open("wasm"), options);
  using own = await WebGpuEngine.open(gpu, options);
  using other = await WebGpuEngine.open(asGpu(gpu), { ...options, autotune: false });
  for (const engine of [cpu, own, other]) await check(engine);
}

async function gradientsOf(options: EngineOptions, batch: ReturnType<typeof randomBatch>) {
  using engine = await WebGpuEngine.open(await testGpu(), options);
  return { metrics: await engine.evaluate(batch), gradients: await engine.gradients(batch) };
}

const warmup: readonly StageInput[] = [{ name: "warmup" }];

const CASES: [string, ConfigInput][] = [
  ["masked", { sparseForm: "masked" }],
  ["gathered", { sparseForm: "gathered" }],
  ["a group a head, whole vec4s", {
    ...{ numAttentionHeads: 4, indexGroups: 4, qkNopeHeadDim: 8, vHeadDim: 8, indexHeadDim: 8 },
  }],
  ["a warm-up", { stages: warmup }],
  ["a head each, reverse, renormalised", {
    ...{ klHeads: "each", numAttentionHeads: 4, klDirection: "reverse" },
    klTarget: "renormalized",
  }],
  ["scores in attention", { indexLoss: "both", indexActivation: "none" }],
  ["the model's own loss alone", {
    ...{ indexLoss: "lm", indexActivation: "none", sparseForm: "gathered" },
  }],
  ["keys of latents, layers share them, taught by all", {
    ...{ indexKeyInput: "kvLatent", indexShare: 2, indexShareLoss: "served" },
  }],
  ["keys of latent and rope key, not detached", {
    ...{ indexKeyInput: "kvLatentRope", indexerDetach: false },
  }],
  ["native", { indexKeyInput: "native" }],
  ["blocks", { selector: "block", blockSize: 3 }],
  ["the oracle", { selector: "oracle" }],
  ["random", { selector: "random" }],
];

for (const [name, given] of CASES) {
  Deno.test(`groups of heads: losses and gradients on all engines: ${name}`, async () => {
    const config = configOf({ ...TWO, ...given });
    const batch = randomBatch(config);
    const results: Awaited<ReturnType<typeof gradientsOf>>[] = [];
    await onAll(optionsOf(config), async (engine) => {
      const [metrics, gradients] = [await engine.evaluate(batch), await engine.gradients(batch)];
      results.push({ metrics, gradients });
    });
    const [want, ...others] = results;
    for (const got of others) {
      assert.deepEqual(Object.keys(got.metrics), Object.keys(want.metrics));
      for (const [key, value] of Object.entries(want.metrics)) {
        assertClose(`${key} (seed ${seed})`, [got.metrics[key]], [value], 1e-4);
      }
      for (const [key, gradient] of want.gradients) {
        assertClose(`${key} (seed ${seed})`, got.gradients.get(key)!, gradient, 2e-3);
      }
    }
  });
}

Deno.test("groups that select the same are one", async () => {
  for (const selector of ["recency", "learned"] as const) {
    const given = { ...TWO, indexNHeads: 6, selector } as const;
    const [one, each] = [1, 6].map((indexGroups) => configOf({ ...given, indexGroups }));
    const batch = randomBatch(one);
    const initial = initialParameters(one);
    for (const [name, values] of initial) {
      // All index heads are the first.
      if (!/indexer\.(wq_b|weights_proj)/.test(name)) continue;
      const own = values.slice(0, values.length / 6);
      for (let head = 1; head < 6; head++) values.set(own, head * own.length);
    }
    const run = (config: RunConfig) =>
      gradientsOf({ ...optionsOf(config, { kl: "none" }), initial }, batch);
    const [got, want] = [await run(each), await run(one)];
    assertClose(`loss (seed ${seed})`, [got.metrics.loss], [want.metrics.loss], 1e-6);
    for (const [name, gradient] of want.gradients) {
      assertClose(`${name} (seed ${seed})`, got.gradients.get(name)!, gradient, 1e-5);
    }
  }
});

Deno.test("groups of heads that select all keys are dense attention, and others are not", async () => {
  const config = configOf(TWO);
  const batch = randomBatch(config);
  for (const sparseForm of ["masked", "gathered"] as const) {
    const whole = { ...config, sparseForm };
    const losses: number[] = [];
    for (const changes of [denseView, { indexTopk: 40 }, { indexTopk: 4 }]) {
      await onAll(optionsOf(whole, { ...changes, kl: "none" }), async (engine) => {
        losses.push((await engine.evaluate(batch)).loss);
      });
    }
    const [dense, all, few] = [0, 3, 6].map((i) => losses.slice(i, i + 3));
    assertClose(`${sparseForm} (seed ${seed})`, all, dense, 1e-5);
    few.forEach((loss, i) => {
      assert(Math.abs(loss - dense[i]) > 1e-4 * loss, `${losses} (seed ${seed})`);
    });
  }
});

Deno.test("groups of heads: the LM loss leaves the indexer alone, KL the backbone", async () => {
  const config = configOf(TWO);
  const batch = randomBatch(config);
  const lm = await gradientsOf(optionsOf(config, { kl: "none" }), batch);
  for (const [name, gradient] of lm.gradients) {
    assert.equal(isZero(gradient), isIndexer(name), name);
  }
  for (const kl of ["dense", "selected"] as const) {
    const { loss: _, ...options } = optionsOf(config);
    const stage = { ...viewOf(config.stages[0], config), kl };
    const loss = languageModel(config, { stage, trains: "indexer" });
    const { gradients } = await gradientsOf({ ...options, loss }, batch);
    for (const [name, gradient] of gradients) {
      assert.equal(isZero(gradient), !isIndexer(name), `${name}, ${kl}`);
    }
  }
});

Deno.test("scores and attention of groups add up to those of all heads", async () => {
  const of = async (indexGroups: number) => {
    const config = configOf({ ...TWO, indexActivation: "none", indexGroups, stages: warmup });
    const options = optionsOf(config, { maps: true, kl: "none" });
    const tokens = Int32Array.from({ length: 42 }, (_, i) => (7 * i * i + 3 * i) % 23);
    using engine = await WebGpuEngine.open(await testGpu(), options);
    const maps = await engine.maps({ tokens, targets: tokens, count: 42 }, {
      ...{ name: "maps", loss: options.loss },
    });
    const measured = await engine.evaluate(
      { tokens, targets: tokens, count: 42 },
      measuringVariant(config, config.stages[0]),
    );
    return { maps, measured };
  };
  const [one, two] = [await of(1), await of(2)];
  const isSeen = (_: unknown, i: number) => i % 21 <= Math.floor(i / 21) % 21;
  for (const layer of [0, 1]) {
    const seen = (maps: typeof one.maps, name: string) =>
      [...maps.get(`${name}.${layer}`)!].filter(isSeen);
    const sum = (name: string) => {
      const [a, b] = [0, 1].map((group) => seen(two.maps, `group${group}.${name}`));
      return a.map((value, i) => value + b[i]);
    };
    const scores = sum("index_scores").map((value) => value / Math.sqrt(2));
    assertClose(`scores (seed ${seed})`, scores, seen(one.maps, "index_scores"), 1e-5);
    const attention = sum("target").map((value) => value / 2);
    assertClose(`attention (seed ${seed})`, attention, seen(one.maps, "target"), 1e-5);

    // KL over all keys by hand, from position 2k on: the mean over groups.
    let kl = 0, rows = 0;
    for (const group of [0, 1]) {
      const [q, p] = ["index_scores", "target"].map((name) =>
        two.maps.get(`group${group}.${name}.${layer}`)!
      );
      for (let row = 0; row < 42; row++) {
        const t = row % 21;
        if (t < 10) continue;
        const [scores, target] = [q, p].map((map) => [...map.subarray(21 * row, 21 * row + t + 1)]);
        const total = target.reduce((a, b) => a + b);
        const logZ = Math.log(scores.reduce((sum, score) => sum + Math.exp(score), 0));
        target.forEach((value, s) => {
          const share = value / total;
          if (share > 0) kl += share * (Math.log(share) - scores[s] + logZ);
        });
        rows++;
      }
    }
    assertClose(`KL (seed ${seed})`, [two.measured[`index/${layer}/means/0`]], [kl / rows], 1e-4);
  }
});

Deno.test("a group has the heads of its own number, of the indexer and of attention", async () => {
  const config = configOf({ ...TWO, indexTies: "oldest" });
  const { seqLen, indexTopk: k } = config;
  const batch = randomBatch(config);
  const initial = initialParameters(config);
  // In the first group index scores are 0, so that it selects the oldest keys, and so are queries.
  const prefix = "model.layers.0.self_attn";
  for (const name of ["indexer.weights_proj", "q_b_proj"]) {
    const values = initial.get(`${prefix}.${name}.weight`)!;
    values.fill(0, 0, values.length / 2);
  }
  const loss = optionsOf(config, { maps: true, kl: "none" }).loss;
  await onAll({ ...optionsOf(config), initial, loss }, async (engine) => {
    const maps = await engine.maps(batch, { name: "maps", loss });
    const [first, second] = [0, 1].map((group) => {
      const [lists, attention] = ["topk", "target"].map((name) =>
        maps.get(`group${group}.${name}.0`)!
      );
      return Array.from({ length: 2 * seqLen }, (_, row) => {
        const keys = [...lists.subarray(row * k, (row + 1) * k)].filter((key) => key >= 0);
        return { keys, weights: keys.map((key) => attention[row * seqLen + key]) };
      });
    });
    for (const rows of [first, second]) {
      const sums = rows.map(({ weights }) => weights.reduce((a, b) => a + b));
      assertClose(`sums (seed ${seed})`, sums, sums.map(() => 1), 1e-5);
    }
    first.forEach(({ keys, weights }, row) => {
      const count = Math.min(row % seqLen + 1, k);
      assert.deepEqual(keys, Array.from({ length: count }, (_, key) => key));
      assertClose(`row ${row}`, weights, keys.map(() => 1 / count), 1e-5);
    });
    const isLike = (row: number) => String(second[row].keys) === String(first[row].keys);
    assert(!second.every((_, row) => isLike(row)), `seed ${seed}`);
    assert(second.some(({ weights }) => Math.abs(weights[0] - 1 / weights.length) > 1e-2));
  });
});

Deno.test("groups of heads: recompute=true gives bitwise the same gradients", async () => {
  const config = configOf(TWO);
  const batch = randomBatch(config);
  const [got, want] = [
    await gradientsOf(optionsOf({ ...config, recompute: true }), batch),
    await gradientsOf(optionsOf(config), batch),
  ];
  assert.deepEqual(got, want);
});

Deno.test("what groups of heads select is measured in the mean, and together", async () => {
  const config = configOf(TWO);
  const { stages: [stage] } = config;
  const batch = randomBatch(config);
  const measured = async (given: Partial<RunConfig>) => {
    const own = { ...config, ...given };
    const results: Awaited<ReturnType<typeof measureIndexer>>[] = [];
    await onAll(optionsOf(own), async (engine) => {
      results.push(await measureIndexer(engine, { config: own, stage, batch }));
    });
    const [want, ...others] = results;
    for (const got of others) {
      assert.deepEqual(Object.keys(got), Object.keys(want));
      for (const [name, value] of Object.entries(want)) {
        assertClose(`${name} (seed ${seed})`, [got[name]], [value], 1e-3);
      }
    }
    return want;
  };
  const oracle = await measured({ selector: "oracle" });
  assert.equal(oracle["index/set_overlap"], 1);
  assertClose("captured", [oracle["index/score_recall"]], [1], 1e-6);
  const recency = await measured({ selector: "recency" });
  assert.equal(recency["index/union_size"], 1);
  assert.equal(recency["index/1/neighbour_overlap"], 1);
  for (const selector of ["random", "learned"] as const) {
    const values = await measured({ selector });
    const { "index/union_size": union, "index/0/union_size": first } = values;
    assert(union > 1 && union <= 2 && first > 1, `${selector}: ${union} (seed ${seed})`);
    assert(values["index/captured_mass"] < oracle["index/captured_mass"]);
  }
  // The most that one selection for all heads captures is less than the groups' own.
  const one = await measured({ selector: "oracle", indexGroups: 1 });
  assert(!("index/union_size" in one));
  const first = "index/0/captured_mass";
  assert(oracle[first] > one[first], `seed ${seed}`);
  await onAll(optionsOf(config), async (engine) => {
    const swap = await swapTest(engine, { config, stage, batches: [batch] });
    assert.equal(swap["swap/learned"], (await engine.evaluate(batch)).loss);
    assert.equal(new Set(Object.values(swap)).size, 5, `seed ${seed}`);
  });
});
