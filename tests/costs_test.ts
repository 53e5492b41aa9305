import assert from "node:assert/strict";
import { resolveConfig, type RunConfig } from "../src/config.ts";
import {
  cachePerToken,
  countParameters,
  describeCosts,
  forwardFlopsPerToken,
  trainingFlopsPerToken,
} from "../src/costs.ts";

Deno.test("presets have as many parameters as the PyTorch baseline", () => {
  const expected = { tiny: 952_064, small: 13_179_648, base: 92_530_944, long: 28_717_056 };
  for (const [preset, total] of Object.entries(expected)) {
    const config = resolveConfig({ preset: preset as RunConfig["preset"] });
    assert.equal(countParameters(config).total, total, preset);
  }
});

Deno.test("the parts add up", () => {
  for (const tieWordEmbeddings of [true, false]) {
    const config = resolveConfig({ tieWordEmbeddings, vocabSize: 77 });
    const { total, ...parts } = countParameters(config);
    assert.equal(Object.values(parts).reduce((a, b) => a + b), total);
    assert.equal(parts.head, tieWordEmbeddings ? 0 : 77 * config.hiddenSize);
    const { total: all, ...flops } = forwardFlopsPerToken(config);
    assert.equal(Object.values(flops).reduce((a, b) => a + b), all);
    assert.equal(flops.head, 2 * 77 * config.hiddenSize);
    assert.equal(trainingFlopsPerToken(config), 3 * all);
  }
});

Deno.test("core attention is 2 ctx H (n + r + v) a layer", () => {
  const mla = resolveConfig({ seqLen: 9, numHiddenLayers: 3, numAttentionHeads: 5 }, [
    "qkNopeHeadDim=6",
    "qkRopeHeadDim=4",
    "vHeadDim=7",
  ]);
  // Summed over the positions of a sequence, one query sees 1, 2 … 9 keys.
  let pairs = 0;
  for (let t = 0; t < 9; t++) pairs += t + 1;
  assert.equal(forwardFlopsPerToken(mla).core * 9, 3 * pairs * 2 * 5 * (6 + 4 + 7));
  const gqa = resolveConfig({ seqLen: 9, attention: "gqa", headDim: 10, numHiddenLayers: 2 });
  assert.equal(forwardFlopsPerToken(gqa).core, 2 * 2 * 5 * 4 * 20);
});

Deno.test("cache: mha 2 H d, gqa 2 G d, mla d_c + r", () => {
  const cache = (...typed: string[]) => cachePerToken(resolveConfig({}, typed));
  assert.equal(cache("attention=mha", "headDim=6").elementsPerLayer, 2 * 4 * 6);
  assert.equal(cache("attention=gqa", "headDim=6", "numKeyValueHeads=2").elementsPerLayer, 24);
  const mla = cache("kvLoraRank=20", "qkRopeHeadDim=6", "numHiddenLayers=5");
  assert.deepEqual(mla, { elementsPerLayer: 26, elements: 130, bytes: 520 });
  // DeepSeek-V2, table 1: 34.6 thousand elements a token.
  assert.equal(cache("kvLoraRank=512", "qkRopeHeadDim=64", "numHiddenLayers=60").elements, 34_560);
});

Deno.test("costs are described in a few lines", () => {
  const text = describeCosts(resolveConfig({ preset: "tiny" }));
  assert.equal(text.split("\n").length, 4);
  assert.match(text, /952 k/);
  assert.match(text, /80 elements a layer.*320, 4\.0 times/);
  assert.doesNotMatch(describeCosts(resolveConfig({ attention: "mha" })), /times as many/);
  assert.throws(() => describeCosts(resolveConfig({ tokenizer: "char" })), RangeError);
});
