/** Head tax, of heads that are known, and of models beside the indexer's measurements. */
import assert from "node:assert/strict";
import { headShares, measureHeadTax } from "../src/measure/density/head_tax.ts";
import { measureIndexer } from "../src/measure/indexer.ts";
import { initialParameters } from "../src/model/parameters.ts";
import { denseView } from "../src/model/stage_view.ts";
import { WebGpuEngine } from "../src/webgpu/engine/engine.ts";
import { assertClose, testGpu } from "./check_op.ts";
import { config, options, randomBatch } from "./oracle_case.ts";

const tax = (weights: readonly number[][], k: number) => {
  const { own, shared } = headShares(weights, k);
  return own - shared;
};

Deno.test("heads that look at keys of their own pay, equal heads do not", () => {
  for (const heads of [2, 4, 7]) {
    const apart = Array.from(
      { length: heads },
      (_, h) => Array.from({ length: heads + 1 }, (_, s) => Number(s === h)),
    );
    // One selection of k keys serves k of the heads.
    for (let k = 1; k <= heads; k++) {
      assertClose(`${heads}, ${k}`, [tax(apart, k)], [1 - k / heads], 1e-12);
      assertClose(`${heads}`, [headShares(apart, k).own], [1], 1e-12);
    }
    const equal = Array.from({ length: heads }, () => [0.1, 0.4, 0.2, 0.3]);
    for (let k = 1; k <= 5; k++) assert.equal(tax(equal, k), 0);
  }
  // Head 0: 0.6 + 0.3, head 1: 0.5 + 0.4; together keys 1 (0.45) and 0 (0.35) lead.
  const { own, shared } = headShares([[0.6, 0.3, 0.1], [0.1, 0.6, 0.3]], 2);
  assertClose("mixed", [own, shared], [0.9, 0.8], 1e-12);
});

Deno.test("of a model, one selection for all heads holds the indexer's oracle mass", async () => {
  for (const kind of [{}, { latentRope: "none", qLoraRank: null }] as const) {
    const c = config(kind);
    const batch = randomBatch(c);
    using engine = await WebGpuEngine.open(await testGpu(), {
      ...options(c, denseView),
      trained: [],
    });
    const stage = c.stages.at(-1)!;
    const found = await measureHeadTax(engine, { config: c, stage, batch });
    assert.deepEqual([found.topk, found.tokens], [5, c.seqLen]);
    const metrics = await measureIndexer(engine, { config: c, stage, batch });
    for (const [layer, { own, shared }] of found.layers.entries()) {
      const oracle = metrics[`index/${layer}/oracle_mass`];
      assertClose(`layer ${layer}`, [shared], [oracle], 1e-5);
      assert(own > shared + 0.01 && own < 1, `${own} and ${shared}`);
    }
    const one = config({ ...kind, numAttentionHeads: 1 });
    using single = await WebGpuEngine.open(await testGpu(), {
      ...options(one, denseView),
      trained: [],
    });
    for (
      const { own, shared } of (await measureHeadTax(single, { config: one, stage, batch }))
        .layers
    ) assert.equal(own, shared, "one head");
  }
});

Deno.test("in a window of k tokens k keys hold all", async () => {
  for (const window of [5, 6]) {
    const c = config({ window, recipe: "dense" });
    using engine = await WebGpuEngine.open(await testGpu(), {
      ...options(c, denseView),
      trained: [],
    });
    const stage = { ...c.stages[0], indexTopk: 5 };
    const found = await measureHeadTax(engine, { config: c, stage, batch: randomBatch(c) });
    for (const { own, shared } of found.layers) {
      if (window === 5) assertClose("all", [own, shared], [1, 1], 1e-12);
      else assert(own < 0.9999 && shared < own);
    }
  }
});

Deno.test("heads with the same queries and keys pay nothing", async () => {
  const c = config({ numHiddenLayers: 1 });
  const parameters = new Map(initialParameters(c));
  for (const [name, width] of [["q_b_proj", 10 * 14], ["kv_b_proj", 11 * 12]] as const) {
    const path = `model.layers.0.self_attn.${name}.weight`;
    const all = parameters.get(path)!;
    assert.equal(all.length, width * c.numAttentionHeads);
    parameters.set(path, all.map((_, i) => all[i % width]));
  }
  using engine = await WebGpuEngine.open(await testGpu(), {
    ...options(c, denseView),
    ...{ initial: parameters, trained: [] },
  });
  const stage = c.stages.at(-1)!;
  const { layers: [{ own, shared }] } = await measureHeadTax(engine, {
    ...{ config: c, stage, batch: randomBatch(c) },
  });
  assertClose("shares", [own], [shared], 1e-6);
  assert(own < 1);
});

Deno.test("of long sequences the first tokens are looked at, and all batches of few", async () => {
  const c = config({ seqLen: 600, batchSize: 1, numHiddenLayers: 1 });
  using engine = await WebGpuEngine.open(await testGpu(), {
    ...options(c, denseView),
    trained: [],
  });
  const batch = randomBatch(c);
  const stage = { ...c.stages.at(-1)!, indexTopk: 100 };
  const long = await measureHeadTax(engine, { config: c, stage, batch });
  assert.deepEqual([long.topk, long.tokens], [100, 512]);
  const short = { ...c, seqLen: 512 };
  using other = await WebGpuEngine.open(await testGpu(), {
    ...options(short, denseView),
    ...{ initial: initialParameters(c), trained: [] },
  });
  const cut = { tokens: batch.tokens.slice(0, 512), targets: batch.targets.slice(0, 512) };
  const same = await measureHeadTax(other, {
    ...{ config: short, stage, batch: { ...cut, count: 512 } },
  });
  assertClose("own", [long.layers[0].own], [same.layers[0].own], 1e-5);
});
