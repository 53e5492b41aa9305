/** Functional rank, on losses and on models whose rank is known. */
import assert from "node:assert/strict";
import type { Engine } from "../src/engine.ts";
import {
  functionalRank,
  leastRank,
  meanLoss,
  withProjection,
} from "../src/measure/density/functional_rank.ts";
import { latentDirections, projectedParameters } from "../src/measure/density/projection.ts";
import { latentSums } from "../src/measure/latents.ts";
import { initialParameters } from "../src/model/parameters.ts";
import { denseView, viewOf } from "../src/model/stage_view.ts";
import { languageModel } from "../src/model/transformer.ts";
import { openDevice } from "../src/open_device.ts";
import { Rng } from "../src/rng.ts";
import { WebGpuEngine } from "../src/webgpu/engine/engine.ts";
import { assertClose, testGpu } from "./check_op.ts";
import { config, options, randomBatch, sparse } from "./oracle_case.ts";

Deno.test("the least rank is where a loss gets small enough, whatever it is", async () => {
  for (const dims of [1, 2, 7, 64]) {
    for (let least = 0; least <= dims; least++) {
      const tried: number[] = [];
      const found = await leastRank((rank) => {
        tried.push(rank);
        return Promise.resolve(rank < least ? 0.01 : 0.0099);
      }, dims);
      assert.equal(found, least);
      assert(tried.length <= Math.ceil(Math.log2(dims + 1)) && !tried.includes(dims), `${tried}`);
    }
  }
});

Deno.test("where the loss rises again, the rank is enough and one less is not", async () => {
  const enough = [2, 6, 7, 11, 12, 13, 14, 15, 16];
  const found = await leastRank(
    (rank) => Promise.resolve(enough.includes(rank) ? 0 : 1),
    16,
  );
  assert(enough.includes(found) && !enough.includes(found - 1), `${found}`);
});

/** A model of one layer whose latents use `rank` directions, oblique ones. */
function modelOfRank(rank: number) {
  const c = config({ numHiddenLayers: 1, seed: 7 });
  const parameters = new Map(initialParameters(c));
  const name = "model.layers.0.self_attn.kv_a_proj_with_mqa.weight";
  const down = Float32Array.from(parameters.get(name)!);
  const { kvLoraRank: n, hiddenSize } = c;
  for (let row = rank; row < n; row++) {
    for (let i = 0; i < hiddenSize; i++) {
      // Mixtures of the first rows.
      let sum = 0;
      for (let k = 0; k < rank; k++) sum += Math.sin(1 + row + 5 * k) * down[k * hiddenSize + i];
      down[row * hiddenSize + i] = sum;
    }
  }
  parameters.set(name, down);
  return { c, parameters };
}

for (const rank of [1, 3, 5]) {
  Deno.test(`latents of rank ${rank} have functional rank ${rank}`, async () => {
    const { c, parameters } = modelOfRank(rank);
    // On the CPU once.
    using device = await openDevice(rank === 3 ? "cpu" : "webgpu");
    using engine = await device.open({
      ...options(c, denseView),
      ...{ initial: parameters, trained: [] },
    });
    const batch = randomBatch(c);
    const rng = new Rng(7, "tokens");
    batch.tokens = batch.tokens.map(() => rng.below(c.vocabSize));
    // What the model itself holds for likely: all that changes its logits costs.
    const logits = await engine.logits(batch.tokens);
    batch.targets = batch.targets.map((_, i) => {
      const row = logits.subarray(i * c.vocabSize, (i + 1) * c.vocabSize);
      return row.indexOf(Math.max(...row));
    });
    const batches = [batch];
    const [sums] = await latentSums(engine, { config: c, stage: c.stages[0], batches });
    const directions = latentDirections(sums, c.kvLoraRank);
    const loss = await meanLoss(engine, batches);
    const known = { config: c, parameters, layer: 0, directions };
    const found = await functionalRank(engine, { ...known, loss, batches });
    assert.equal(found, rank);
    const projected = await withProjection(
      engine,
      { ...known, rank },
      () => meanLoss(engine, batches),
    );
    assertClose("with its rank", [projected], [loss], 1e-5);
    assert.equal(await meanLoss(engine, batches), loss, "the weights are as before, bit for bit");
  });
}

Deno.test("a layer whose output is not used has functional rank 0", async () => {
  const { c, parameters } = modelOfRank(4);
  const name = "model.layers.0.self_attn.o_proj.weight";
  parameters.set(name, new Float32Array(parameters.get(name)!.length));
  using engine = await WebGpuEngine.open(await testGpu(), {
    ...options(c, denseView),
    ...{ initial: parameters, trained: [] },
  });
  const batches = [randomBatch(c)];
  const directions = identity(c.kvLoraRank);
  const loss = await meanLoss(engine, batches);
  const known = { config: c, parameters, layer: 0, directions };
  assert.equal(await functionalRank(engine, { ...known, loss, batches }), 0);
});

function identity(n: number): Float64Array {
  return Float64Array.from({ length: n * n }, (_, i) => Number(i % (n + 1) === 0));
}

Deno.test("weights times a projection are the model with projected latents, whatever reads them", async () => {
  const kinds = [
    { indexKeyInput: "hidden", indexInput: "kvLatent" },
    { indexKeyInput: "kvLatent", indexInput: "qLatent" },
    { indexKeyInput: "kvLatentRope", indexInput: "kvLatent", latentRope: "none" },
    { indexKeyInput: "native", qLoraRank: null },
  ] as const;
  for (const kind of kinds) {
    const c = config({ ...kind, numHiddenLayers: 1 });
    const { kvLoraRank: n } = c;
    const parameters = initialParameters(c);
    // Latents whose last numbers are 0 by their norm's weight: a projection onto the first ones.
    const norm = "model.layers.0.self_attn.kv_a_layernorm.weight";
    const cut = Float32Array.from(parameters.get(norm)!, (g, i) => i < 5 ? g : 0);
    const expected = new Map(parameters).set(norm, cut);
    const projection = { layer: 0, directions: identity(n), rank: 5 };
    const got = projectedParameters(c, parameters, projection);
    assert.equal(got.get(norm), parameters.get(norm));
    const batch = randomBatch(c);
    const logits = async (initial: Map<string, Float32Array>) => {
      using engine = await WebGpuEngine.open(await testGpu(), {
        ...options(c, sparse),
        ...{ initial, trained: [] },
      });
      return await engine.logits(batch.tokens);
    };
    const wanted = await logits(expected);
    assertClose(JSON.stringify(kind), await logits(got), wanted, 1e-5);
    const before = await logits(parameters);
    assert(before.some((x, i) => Math.abs(x - wanted[i]) > 1e-2), "the projection is felt");
  }
  const rotated = config({ latentRope: "onLatent" });
  assert.throws(
    () =>
      projectedParameters(rotated, initialParameters(rotated), {
        ...{ layer: 0, directions: identity(rotated.kvLoraRank), rank: 5 },
      }),
    { name: "RangeError", message: /onLatent/ },
  );
});

Deno.test("what a layer keeps is the same on both devices, in columns of wider matrices, too", async () => {
  const keeps = ["latent", "q", "kv", "kPe", "o"] as const;
  for (const kind of [{}, { latentRope: "none", qLoraRank: null }] as const) {
    const c = config({ ...kind, latentBits: "8" });
    const batch = randomBatch(c);
    const bits = { layer: 1, bits: "4" } as const;
    const stage = { ...viewOf(c.stages[0], c), kl: "none" as const, keeps };
    const variants = [
      { name: "kept", loss: languageModel(c, { stage }) },
      { name: "in four bits", loss: languageModel(c, { stage: { ...stage, latentBits: bits } }) },
    ];
    const maps = async (engine: Engine) => {
      const made: Awaited<ReturnType<Engine["maps"]>>[] = [];
      for (const variant of variants) made.push(await engine.maps(batch, variant));
      return made;
    };
    using gpu = await openDevice("webgpu");
    using cpu = await openDevice("cpu");
    const opened = { ...options(c, denseView), trained: [] };
    using first = await gpu.open(opened);
    using second = await cpu.open(opened);
    const [got, want] = [await maps(first), await maps(second)];
    for (const [i, { name }] of variants.entries()) {
      assert.deepEqual([...got[i].keys()].sort(), [...want[i].keys()].sort());
      assert.equal(got[i].size, keeps.length * 2);
      for (const [key, values] of got[i]) {
        // A number between two steps may be rounded to either.
        const tolerance = /latent|kv|o/.test(key) ? 0.2 : 1e-4;
        assertClose(`${key} ${name}`, values, want[i].get(key)!, tolerance);
      }
    }
    const levels = (map: ArrayLike<number>) =>
      new Set(Array.from(map).slice(0, c.kvLoraRank).map(Math.abs)).size;
    const ofLayer = (i: number, layer: number) => levels(got[i].get(`latent.${layer}`)!);
    assert.deepEqual(got[0].get("latent.0"), got[1].get("latent.0"));
    assert(ofLayer(1, 1) <= 8 && ofLayer(0, 1) > 8, `${ofLayer(0, 1)}, ${ofLayer(1, 1)}`);
  }
});
