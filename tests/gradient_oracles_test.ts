/** The oracles of training with an indexer: which loss has a gradient for what, and that it is right. */
import assert from "node:assert/strict";
import { TfjsBackend } from "../src/tfjs/backend.ts";
import { TfjsEngine } from "../src/tfjs/engine.ts";
import { WebGpuEngine } from "../src/webgpu/engine/engine.ts";
import { assertClose, randomNormal, testGpu } from "./check_op.ts";
import { useFloat64 } from "./float64_backend.ts";
import { config, isIndexer, isZero, options, randomBatch, results, sparse } from "./oracle_case.ts";

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
    // So small that hardly ever a product of the index changes its sign, where ReLU has a kink.
    const step = 1e-8;
    const [up, down] = [
      await objective(step, direction, kl),
      await objective(-step, direction, kl),
    ];
    assertClose(kl ? "KL" : "LM loss", [(up - down) / (2 * step)], [slope], 1e-5);
  }
});
