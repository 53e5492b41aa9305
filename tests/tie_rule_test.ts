/** `indexTies`: which of keys with equal scores a model selects, whoever selects and in any form. */
import assert from "node:assert/strict";
import { type ConfigInput, resolveConfig, type RunConfig } from "../src/config/config.ts";
import type { Engine } from "../src/engine.ts";
import { measureIndexer } from "../src/measure/indexer.ts";
import { languageModel } from "../src/model/transformer.ts";
import { Rng } from "../src/rng.ts";
import { TfjsBackend } from "../src/tfjs/backend.ts";
import { TfjsEngine } from "../src/tfjs/engine.ts";
import { WebGpuEngine } from "../src/webgpu/engine/engine.ts";
import { assertClose, relativeError, testGpu } from "./check_op.ts";
import { options, SMALL, sparse } from "./oracle_case.ts";

const RULES = ["oldest", "newest"] as const;

/** One index head, so that half of the scores are 0. Rounding decides close calls: one seed. */
function tied(changes: ConfigInput): RunConfig {
  return resolveConfig({ ...SMALL, seed: 7, indexNHeads: 1, blockSize: 2, ...changes });
}

function batchOf({ batchSize, seqLen, vocabSize, seed }: RunConfig) {
  const rng = new Rng(seed, "tokens");
  const tokens = Int32Array.from({ length: batchSize * seqLen }, () => rng.below(vocabSize));
  return { tokens, targets: tokens, count: tokens.length };
}

/** Logits and maps of sparse attention by a selector. */
async function shown(engine: Engine, config: RunConfig, selector: RunConfig["selector"]) {
  const stage = { ...sparse, selector, maps: true };
  const loss = languageModel(config, { stage });
  const batch = batchOf(config);
  return {
    loss: (await engine.evaluate(batch, { name: "loss", loss })).loss,
    maps: await engine.maps(batch, { name: "maps", loss }),
  };
}

/** The first five keys of each row by the scores of their blocks, ties by the rule. */
function selected(scores: ArrayLike<number>, config: RunConfig, size: number): number[] {
  const { seqLen, batchSize, indexTies } = config;
  return Array.from({ length: batchSize * seqLen }, (_, row) => {
    const keys = [...new Array(row % seqLen + 1).keys()];
    const block = (s: number) =>
      keys.filter((key) => Math.floor(key / size) === Math.floor(s / size));
    const own = keys.map((s) => Math.max(...block(s).map((key) => scores[row * seqLen + key])));
    const sign = indexTies === "oldest" ? 1 : -1;
    const best = keys.toSorted((a, b) => own[b] - own[a] || sign * (a - b)).slice(0, 5);
    return [...best.sort((a, b) => a - b), ...Array(5 - best.length).fill(-1)];
  }).flat();
}

for (const [selector, size] of [["learned", 1], ["block", 2]] as const) {
  for (const sparseForm of ["masked", "gathered"] as const) {
    Deno.test(`selector=${selector}, ${sparseForm}: both engines break ties by the rule`, async () => {
      const losses: number[] = [];
      const chosen: number[][] = [];
      for (const indexTies of RULES) {
        const config = tied({ indexTies, sparseForm });
        using gpu = await WebGpuEngine.open(await testGpu(), options(config, sparse));
        using cpu = new TfjsEngine(await TfjsBackend.open("wasm"), options(config, sparse));
        const [got, want] = [
          await shown(gpu, config, selector),
          await shown(cpu, config, selector),
        ];
        assertClose("loss", [got.loss], [want.loss], 1e-5);
        losses.push(got.loss);
        for (const layer of [0, 1]) {
          const keys = Array.from(got.maps.get(`topk.${layer}`)!);
          const scores = got.maps.get(`index_scores.${layer}`)!;
          assert.deepEqual(keys, selected(scores, config, size), `${indexTies}, layer ${layer}`);
          assert.deepEqual(keys, Array.from(want.maps.get(`topk.${layer}`)!), "twins");
          if (layer === 0) chosen.push(keys);
        }
      }
      assert.notDeepEqual(chosen[0], chosen[1]);
      assert(relativeError([losses[0]], [losses[1]]) > 1e-4, `${losses}`);
    });
  }
}

Deno.test("rows that tie are counted under either rule, and a warm-up is the same under both", async () => {
  const measured = [];
  for (const indexTies of RULES) {
    const config = tied({ indexTies });
    const batch = batchOf(config);
    using engine = await WebGpuEngine.open(await testGpu(), options(config, sparse));
    const { maps } = await shown(engine, config, "learned");
    const scores = maps.get("index_scores.0")!;
    // With five of 21 keys the rows from 10 on are measured.
    const rows = Array.from({ length: 2 * 11 }, (_, i) => 21 * Math.floor(i / 11) + 10 + i % 11);
    const ties = rows.filter((row) => {
      const own = [...scores.subarray(row * 21, row * 21 + row % 21 + 1)].sort((a, b) => b - a);
      return own[4] === own[5];
    });
    assert(ties.length > 0 && ties.length < rows.length);
    const measure = (stage: number) =>
      measureIndexer(engine, { config, batch, stage: config.stages[stage] });
    const [warmUp, last] = [await measure(1), await measure(2)];
    assertClose("layer", [last["index/0/tied_rows"]], [ties.length / rows.length], 1e-6);
    const [first, second] = [last["index/0/tied_rows"], last["index/1/tied_rows"]];
    assertClose("mean", [last["index/tied_rows"]], [(first + second) / 2], 1e-6);
    assert.equal(warmUp["index/0/tied_rows"], first);
    measured.push({ warmUp, last });
  }
  const [oldest, newest] = measured;
  assert.deepEqual(oldest.warmUp, newest.warmUp);
  const mass = "index/0/captured_mass";
  assert.notEqual(oldest.last[mass], newest.last[mass]);
});

Deno.test("without an indexer the oracle that attention is measured by breaks ties alike", async () => {
  for (const indexTies of RULES) {
    // Without positions equal tokens weigh alike.
    const config = tied({
      ...{ indexKeyInput: "native", latentRope: "none", numHiddenLayers: 1, vocabSize: 7 },
      ...{ indexTies },
    });
    const batch = batchOf(config);
    using engine = await WebGpuEngine.open(await testGpu(), options(config, sparse));
    const measured = await measureIndexer(engine, { config, batch, stage: config.stages.at(-1)! });
    assert(measured["index/tied_rows"] > 0.2);
    assert.equal(measured["index/set_overlap"], 1);
  }
});
