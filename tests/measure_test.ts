import assert from "node:assert/strict";
import type { RunConfig } from "../src/config/config.ts";
import { denseView, type StageView } from "../src/model/stage_view.ts";
import { languageModel } from "../src/model/transformer.ts";
import { firstMeasured } from "../src/ops/indexer/metrics.ts";
import { selectors } from "../src/ops/select/selectors/selectors.ts";
import { measureIndexer, swapTest } from "../src/measure/indexer.ts";
import { WebGpuEngine } from "../src/webgpu/engine/engine.ts";
import { assertClose, testGpu } from "./check_op.ts";
import type { Batch } from "../src/data/dataset.ts";
import { config, options, randomBatch, sparse } from "./oracle_case.ts";

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

Deno.test("neighbouring layers agree in the keys that both select, in the mean over pairs", async () => {
  const c = config({ numHiddenLayers: 4 });
  const { seqLen } = c;
  using engine = await WebGpuEngine.open(await testGpu(), {
    ...options(c, denseView),
    trained: [],
  });
  const loss = languageModel(c, { stage: { ...sparse, maps: true } });
  const k = sparse.indexTopk;
  const rows = [...new Array(c.batchSize * seqLen).keys()]
    .filter((row) => row % seqLen >= firstMeasured(seqLen, k));
  const overlaps = async (batch: Batch) => {
    const maps = await engine.maps(batch, { name: "maps", loss });
    const keysOf = (layer: number, row: number) =>
      new Set(maps.get(`topk.${layer}`)!.subarray(row * k, row * k + k));
    return [1, 2, 3].map((layer) => {
      const shared = rows.map((row) =>
        keysOf(layer - 1, row).intersection(keysOf(layer, row)).size
      );
      return shared.reduce((a, b) => a + b) / k / rows.length;
    });
  };
  let batch: Batch, pairs: number[];
  // Tokens by which the pairs can be told apart.
  do pairs = await overlaps(batch = randomBatch(c)); while (new Set(pairs).size < 3);
  const got = await measureIndexer(engine, { config: c, stage: c.stages.at(-1)!, batch });
  assertClose(
    "pairs",
    [1, 2, 3].map((layer) => got[`index/${layer}/neighbour_overlap`]),
    pairs,
    1e-5,
  );
  assertClose(
    "mean",
    [got["index/neighbour_overlap"]],
    [pairs.reduce((a, b) => a + b) / 3],
    1e-5,
  );
  const masses = [0, 1, 2, 3].map((layer) => got[`index/${layer}/captured_mass`]);
  assertClose("mass", [got["index/captured_mass"]], [masses.reduce((a, b) => a + b) / 4], 1e-6);
});
