/** Whether selections have what answers hang on, by what is known of them. */
import assert from "node:assert/strict";
import { type ConfigInput, resolveConfig, type RunConfig } from "../src/config/config.ts";
import { openDataset } from "../src/data/dataset.ts";
import type { Engine, EngineOptions } from "../src/engine.ts";
import { measureGold, measureIndexer } from "../src/measure/indexer.ts";
import { initialParameters, modelParameters } from "../src/model/parameters.ts";
import { viewOf } from "../src/model/stage_view.ts";
import { languageModel } from "../src/model/transformer.ts";
import { TfjsBackend } from "../src/tfjs/backend.ts";
import { TfjsEngine } from "../src/tfjs/engine.ts";
import { WebGpuEngine } from "../src/webgpu/engine/engine.ts";
import { testGpu } from "./check_op.ts";

const small: ConfigInput = {
  ...{ data: "recall", taskVocab: 17, numPairs: 4, powerA: 1, vocabSize: 17 },
  ...{ hiddenSize: 16, intermediateSize: 24, numHiddenLayers: 3, numAttentionHeads: 2 },
  ...{ qLoraRank: 12, kvLoraRank: 10, qkNopeHeadDim: 6, qkRopeHeadDim: 4, vHeadDim: 6 },
  ...{ indexNHeads: 2, indexHeadDim: 8, indexTopk: 7, batchSize: 3, seqLen: 45 },
  seed: Math.floor(Math.random() * 2 ** 31),
};

async function onBoth(
  given: ConfigInput,
  check: (engine: Engine, config: RunConfig) => Promise<void>,
) {
  const config = resolveConfig({ ...small, ...given });
  const stage = config.stages.at(-1)!;
  const options: EngineOptions = {
    parameters: modelParameters(config),
    initial: initialParameters(config),
    loss: languageModel(config, { stage: viewOf(stage, config) }),
    ...{ batchSize: config.batchSize, seqLen: config.seqLen, trained: [] },
  };
  using webgpu = await WebGpuEngine.open(await testGpu(), options);
  using cpu = new TfjsEngine(await TfjsBackend.open("wasm"), options);
  for (const engine of [webgpu, cpu]) await check(engine, config);
}

async function measured(engine: Engine, config: RunConfig) {
  const dataset = await openDataset({ ...config, taskOptions: config });
  const batch = dataset.batch("validation", 0);
  const given = { config, stage: config.stages.at(-1)!, batch };
  const [values, hits] = [await measureIndexer(engine, given), await measureGold(engine, given)];
  return { ...given, values, hits };
}

Deno.test("the last k keys have what stands less than k back, and no more", async () => {
  for (const indexShare of [1, 2]) {
    const given = { selector: "recency", recipe: "sparse", indexShare, indexTopk: 20 } as const;
    await onBoth(given, async (engine, config) => {
      const { batch, values, hits } = await measured(engine, config);
      const near = batch.answers!.map(({ distance }) => distance < 20);
      for (const layer of hits) assert.deepEqual(layer.flat(), near);
      const share = near.filter(Boolean).length / near.length;
      for (const name of ["gold_recall", "gold_recall_any", "0/gold_recall", "2/gold_recall"]) {
        assert(Math.abs(values[`index/${name}`] - share) < 1e-12, name);
      }
    });
  }
});

Deno.test("all keys have all of it; in dense attention it is what the indexer would select", async () => {
  await onBoth({ recipe: "sparse", indexTopk: 45 }, async (engine, config) => {
    const { values } = await measured(engine, config);
    assert.equal(values["index/gold_recall"], 1);
  });
  const stages = [{ name: "warmup" }];
  await onBoth({ stages, indexTopk: 45 }, async (engine, config) => {
    const { values } = await measured(engine, config);
    assert.equal(values["index/gold_recall"], 1);
  });
});

Deno.test("what an indexer selects is counted by hand from its lists, layer by layer", async () => {
  for (const indexShare of [1, 2]) {
    await onBoth({ recipe: "sparse", indexShare }, async (engine, config) => {
      const { batch, stage, values, hits } = await measured(engine, config);
      const loss = languageModel(config, { stage: { ...viewOf(stage, config), maps: true } });
      const maps = await engine.maps(batch, { name: "lists", loss });
      const { indexTopk: k, seqLen } = config;
      const byHand = [0, 1, 2].map((layer) => {
        const lists = maps.get(`topk.${layer}`)!;
        return batch.answers!.map(({ position, distance }) =>
          [...lists.subarray(position * k, (position + 1) * k)].includes(
            position % seqLen - distance,
          )
        );
      });
      assert.deepEqual(hits.map((layer) => layer.flat()), byHand);
      const any = byHand[0].filter((_, i) => byHand.some((layer) => layer[i])).length;
      assert.equal(values["index/gold_recall_any"], any / batch.answers!.length);
      assert(values["index/gold_recall_any"] >= values["index/gold_recall"]);
    });
  }
});

Deno.test("of groups of heads that select for themselves it is what any of them selects", async () => {
  await onBoth({ recipe: "sparse", indexGroups: 2 }, async (engine, config) => {
    const { batch, stage, hits } = await measured(engine, config);
    const loss = languageModel(config, { stage: { ...viewOf(stage, config), maps: true } });
    const maps = await engine.maps(batch, { name: "lists", loss });
    const { indexTopk: k, seqLen } = config;
    hits.forEach((own, layer) => {
      const lists = [0, 1].map((group) => maps.get(`group${group}.topk.${layer}`)!);
      const byHand = batch.answers!.map(({ position, distance }) =>
        lists.some((list) =>
          [...list.subarray(position * k, (position + 1) * k)]
            .includes(position % seqLen - distance)
        )
      );
      assert.deepEqual(own.flat(), byHand);
    });
  });
});

Deno.test("texts have no gold positions", async () => {
  const config = resolveConfig({ ...small, data: "moby_dick", recipe: "sparse" });
  using engine = await WebGpuEngine.open(await testGpu(), {
    parameters: modelParameters(config),
    initial: initialParameters(config),
    loss: languageModel(config, { stage: viewOf(config.stages[0], config) }),
    ...{ batchSize: config.batchSize, seqLen: config.seqLen, trained: [] },
  });
  const tokens = new Int32Array(3 * 45);
  const batch = { tokens, targets: tokens, count: tokens.length };
  const values = await measureIndexer(engine, { config, stage: config.stages[0], batch });
  assert.deepEqual(Object.keys(values).filter((name) => name.includes("gold")), []);
});
