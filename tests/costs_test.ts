import assert from "node:assert/strict";
import { resolveConfig, type RunConfig } from "../src/config/config.ts";
import { computedCosts } from "../src/ablate/run_costs.ts";
import { describeCosts } from "../src/costs/description.ts";
import {
  cachePerToken,
  countParameters,
  forwardFlopsPerToken,
  teacherFlopsPerToken,
  trainingFlopsPerToken,
} from "../src/costs/costs.ts";

const seed = Math.floor(Math.random() * 2 ** 32);
/** A fresh even number from 2 to 20. */
function fresh(salt: number): number {
  return 2 + 2 * (Math.floor(seed / 5 ** salt) % 10);
}

/** Keys that the queries of a sequence see together, by counting. */
function pairs(seqLen: number, most = Infinity): number {
  let sum = 0;
  for (let t = 0; t < seqLen; t++) sum += Math.min(t + 1, most);
  return sum;
}

function nearly(got: number, want: number, message: string): void {
  assert(Math.abs(got - want) <= 1e-9 * Math.abs(want), `${message}: ${got}, not ${want}`);
}

Deno.test("presets have as many parameters as the PyTorch baseline", () => {
  const expected = {
    dense: { tiny: 952_064, small: 13_179_648, base: 92_530_944, long: 28_717_056 },
    dsa: { tiny: 1_019_904, small: 13_936_128, base: 97_988_352, long: 30_061_568 },
  };
  for (const [recipe, totals] of Object.entries(expected)) {
    for (const [preset, total] of Object.entries(totals)) {
      const config = resolveConfig({}, [`preset=${preset}`, `recipe=${recipe}`]);
      assert.equal(countParameters(config).total, total, `${preset} ${recipe}`);
    }
  }
});

Deno.test("the parts add up", () => {
  for (const tieWordEmbeddings of [true, false]) {
    for (const recipe of ["dense", "dsa_twin"] as const) {
      const config = resolveConfig({ tieWordEmbeddings, vocabSize: 77, recipe });
      const { total, ...parts } = countParameters(config);
      assert.equal(Object.values(parts).reduce((a, b) => a + b), total);
      assert.equal(parts.head, tieWordEmbeddings ? 0 : 77 * config.hiddenSize);
      assert.equal(parts.indexer > 0, recipe !== "dense");
      for (const stage of config.stages) {
        const { total: all, ...flops } = forwardFlopsPerToken(config, stage);
        assert.equal(Object.values(flops).reduce((a, b) => a + b), all);
        assert.equal(flops.head, 2 * 77 * config.hiddenSize);
      }
      const last = config.stages[config.stages.length - 1];
      assert.deepEqual(forwardFlopsPerToken(config), forwardFlopsPerToken(config, last));
      const [first] = config.stages;
      const forward = forwardFlopsPerToken(config, first).total;
      assert.equal(trainingFlopsPerToken(config, first), 3 * forward);
    }
  }
});

Deno.test("core attention is 2 ctx H (n + r + v) a layer", () => {
  const sizes = { seqLen: 9, numHiddenLayers: 3, numAttentionHeads: 5, recipe: "dense" } as const;
  const mla = resolveConfig(sizes, ["qkNopeHeadDim=6", "qkRopeHeadDim=4", "vHeadDim=7"]);
  assert.equal(forwardFlopsPerToken(mla).core * 9, 3 * pairs(9) * 2 * 5 * (6 + 4 + 7));
  const gqa = resolveConfig({ seqLen: 9, attention: "gqa", headDim: 10, numHiddenLayers: 2 });
  assert.equal(forwardFlopsPerToken(gqa).core, 2 * 2 * 5 * 4 * 20);
  const window = resolveConfig({ ...gqa, window: 4 });
  nearly(forwardFlopsPerToken(window).core * 9, 2 * 2 * pairs(9, 4) * 4 * 20, "window");
  assert.equal(
    forwardFlopsPerToken(resolveConfig({ ...gqa, window: 50 })).core,
    2 * 2 * 5 * 4 * 20,
  );
  // Each of 4 heads has its own 5 tokens of a sequence.
  const mosa = resolveConfig(
    { seqLen: 9, attention: "mosa", headDim: 10, indexTopk: 5 },
    ["mosaCausal=false", "mosaDenseHeads=0"],
  );
  nearly(forwardFlopsPerToken(mosa).core * 9, 3 * 2 * pairs(5) * 4 * 20, "mosa");
  const causal = resolveConfig({ ...mosa, mosaCausal: true, mosaDenseHeads: 1 });
  const both = pairs(9) + 3 * pairs(9, 5);
  nearly(forwardFlopsPerToken(causal).core * 9, 3 * 2 * both * 20, "causal mosa");
});

Deno.test("an indexer's work, stage by stage", () => {
  const [seqLen, topk, heads, width, rope] = [40, fresh(0), fresh(1), fresh(2) + 20, fresh(3)];
  const config = resolveConfig({ seqLen, recipe: "dsa_twin", hiddenSize: 64, numHiddenLayers: 3 }, [
    `indexTopk=${topk}`,
    `indexNHeads=${heads}`,
    `indexHeadDim=${width}`,
    `qkRopeHeadDim=${rope}`,
    "qLoraRank=24",
    "numAttentionHeads=5",
    "qkNopeHeadDim=6",
    "vHeadDim=7",
  ]);
  const label = `seed ${seed}`;
  const products = 3 * (24 * heads * width + 64 * width + 64 * heads);
  assert.equal(countParameters(config).indexer, products + 3 * 2 * width, label);
  const stage = (name: string) => config.stages.find((one) => one.name === name)!;
  const [dense, warmup, sparse, twin] = ["dense", "warmup", "sparse", "twin"].map((name) =>
    forwardFlopsPerToken(config, stage(name))
  );
  assert.deepEqual(twin, dense);
  assert.deepEqual([dense.indexerProjections, dense.indexScores], [0, 0]);
  const scores = 3 * 2 * pairs(seqLen) * heads * (width + 1) / seqLen;
  for (const { indexerProjections, indexScores } of [warmup, sparse]) {
    assert.equal(indexerProjections, 2 * products, label);
    nearly(indexScores, scores, label);
  }
  assert.equal(warmup.core, dense.core);
  const core = (most: number) => 3 * 2 * pairs(seqLen, most) * 5 / seqLen;
  nearly(sparse.core, core(topk) * (6 + rope + 7), label);

  const training = (name: string) => trainingFlopsPerToken(config, stage(name));
  // Frozen backbone forward only; no gradient for the indexer's inputs; the teacher's scores.
  const whole = dense.total + 4 * products + 3 * scores + core(Infinity) * (6 + rope);
  nearly(training("warmup"), whole, label);
  const backbone = dense.total - dense.core + sparse.core;
  const selected = 2 * 3 * 2 * pairs(seqLen, topk) * heads * (width + 1) / seqLen;
  const sum = 3 * backbone + 4 * products + scores + selected + core(topk) * (6 + rope);
  nearly(training("sparse"), sum, label);
  assert.equal(training("twin"), training("dense"));

  // Index scores that go into attention make its queries and keys wider.
  const scored = { ...config, indexLoss: "both" } as const;
  nearly(
    forwardFlopsPerToken(scored, stage("sparse")).core,
    core(topk) * (6 + rope + 7 + width),
    label,
  );
  assert.equal(forwardFlopsPerToken(scored, stage("dense")).core, dense.core);

  // The dense teacher and the oracle need dense attention besides.
  const denseCore = core(Infinity) * (6 + rope + 7);
  const last = stage("sparse");
  const renormalized = { ...config, klTarget: "renormalized" } as const;
  nearly(trainingFlopsPerToken(renormalized, last), sum + denseCore, label);
  nearly(teacherFlopsPerToken(renormalized, last), core(topk) * (6 + rope) + denseCore, label);
  // So does a loss over all keys, whose target and gradient are over more of them.
  const allKeys = { ...last, kl: "dense" } as const;
  const teacher = core(Infinity) * (6 + rope) + denseCore;
  const more = teacher - core(topk) * (6 + rope) + 2 * scores - selected;
  for (const own of [config, renormalized]) {
    nearly(teacherFlopsPerToken(own, allKeys), teacher, label);
    nearly(trainingFlopsPerToken(own, allKeys), sum + more, label);
  }
  const costs = computedCosts({ ...config, stages: [allKeys] });
  nearly(costs["flopsPerToken/teacher"], teacher, label);
  nearly(costs["flopsPerToken/training"], sum + more, label);
  // A KL that reaches the backbone has the gradient of the indexer's inputs, too.
  const attached = { ...config, indexerDetach: false };
  nearly(trainingFlopsPerToken(attached, last), sum + 2 * products, label);
  nearly(trainingFlopsPerToken(attached, stage("warmup")), whole, label);
  // One indexer for all three layers, taught by its own or by all.
  const served = { ...config, indexShare: 3, indexShareLoss: "served" } as const;
  const one = sum - (4 * products + scores + selected + core(topk) * (6 + rope)) * 2 / 3;
  nearly(trainingFlopsPerToken({ ...served, indexShareLoss: "own" }, last), one, label);
  const taught = one + (selected + core(topk) * (6 + rope)) * 2 / 3;
  nearly(trainingFlopsPerToken(served, last), taught, label);
  const chosen = { ...config, selector: "oracle" } as const;
  const oracle = sum + denseCore - scores + selected / 2;
  nearly(trainingFlopsPerToken(chosen, last), oracle, label);
  nearly(teacherFlopsPerToken(chosen, last), core(topk) * (6 + rope), label);
  // One dense attention is enough for both.
  nearly(trainingFlopsPerToken(chosen, allKeys), sum + more, label);
});

Deno.test("cache: mha 2 H d, gqa 2 G d, mla d_c + r, with an index key d_I more", () => {
  const cache = (...typed: string[]) => cachePerToken(resolveConfig({}, typed));
  assert.equal(cache("attention=mha", "headDim=6").elementsPerLayer, 2 * 4 * 6);
  assert.equal(cache("attention=gqa", "headDim=6", "numKeyValueHeads=2").elementsPerLayer, 24);
  const sizes = ["kvLoraRank=20", "qkRopeHeadDim=6", "numHiddenLayers=5", "seqLen=50"];
  const reads = (readPerLayer: number) => ({ readPerLayer, readBytes: 4 * 5 * readPerLayer });
  const mla = { elementsPerLayer: 26, elements: 130, bytes: 520, ...reads(50 * 26) };
  assert.deepEqual(cache(...sizes, "recipe=dense"), mla);
  const dsa = [...sizes, "recipe=dsa", "indexHeadDim=10", "indexTopk=7"];
  const elements = { elementsPerLayer: 36, elements: 180, bytes: 720 };
  assert.deepEqual(cache(...dsa), { ...elements, ...reads(50 * 10 + 7 * 26) });
  assert.equal(cache(...dsa, "indexTopk=70").readPerLayer, 50 * 36);
  // Index keys of what is cached anyway take no place; all of it is read to make them.
  const { elementsPerLayer } = mla;
  const latent = { elementsPerLayer, elements: 130, bytes: 520, ...reads(50 * 20 + 7 * 26) };
  assert.deepEqual(cache(...dsa, "indexKeyInput=kvLatent"), latent);
  const both = { ...latent, ...reads(50 * 26 + 7 * 26) };
  assert.deepEqual(cache(...dsa, "indexKeyInput=kvLatentRope"), both);
  assert.deepEqual(cache(...dsa, "selector=recency"), { ...mla, ...reads(7 * 26) });
  assert.deepEqual(cache(...dsa, "selector=oracle"), mla);
  assert.deepEqual(cache(...dsa, "indexKeyInput=native"), mla);
  // Fewer bits: as many elements, whose rows have a scale of 4 bytes each.
  const few = cache(...dsa, "latentBits=4", "indexBits=fp8");
  assert.deepEqual([few.elements, few.readPerLayer], [elements.elements, 50 * 10 + 7 * 26]);
  const [latent4, key8] = [20 / 2 + 4 + 4 * 6, 10 + 4];
  assert.equal(few.bytes, 5 * (latent4 + key8));
  assert.equal(few.readBytes, 5 * (50 * key8 + 7 * latent4));
  assert.equal(cache(...sizes, "recipe=dense", "latentBits=2").bytes, 5 * (5 + 4 + 4 * 6));
  // Layers 0, 2 and 4 of 5 choose by themselves.
  const native = cache(...dsa, "indexKeyInput=native", "indexShare=2");
  assert.equal(native.readPerLayer, (3 * 50 + 2 * 7) * 26 / 5);
  assert.equal(cache("attention=mha", "headDim=6", "window=9").readPerLayer, 9 * 48);
  assert.equal(
    cache("attention=mosa", "mosaDenseHeads=0", "headDim=6", "indexTopk=9").readPerLayer,
    9 * 48,
  );
  // Layers 0, 2 and 4 of 5 have an indexer.
  const shared = cache(...dsa, "indexShare=2");
  assert.equal(shared.elements, 5 * 26 + 3 * 10);
  assert.equal(shared.readPerLayer, 50 * 10 * 3 / 5 + 7 * 26);
  // Three groups of heads may look at three times as many keys; those of positions never do.
  const groups = ["numAttentionHeads=3", "indexNHeads=3", "indexGroups=3"];
  const apart = cache(...dsa, ...groups);
  assert.deepEqual([apart.elements, apart.readPerLayer], [5 * 36, 50 * 10 + 3 * 7 * 26]);
  assert.equal(cache(...dsa, ...groups, "indexTopk=20").readPerLayer, 50 * 10 + 50 * 26);
  const readsOf = (selector: string) =>
    cache(...dsa, ...groups, `selector=${selector}`).readPerLayer;
  // By positions groups choose the same; by chance, apart; an oracle readsOf what all tokens keep.
  assert.deepEqual(["recency", "sinkRecency"].map(readsOf), [7 * 26, 7 * 26]);
  assert.equal(readsOf("random"), 3 * 7 * 26);
  assert.equal(readsOf("block"), readsOf("learned"));
  assert.equal(readsOf("oracle"), 50 * 26);
  const [one, three] = ["indexGroups=1", "indexGroups=3"]
    .map((typed) => forwardFlopsPerToken(resolveConfig({}, [...dsa, ...groups, typed])));
  assert.deepEqual(three, one);
  // DeepSeek-V2, table 1: 34.6 thousand elements a token.
  const v2 = cache("kvLoraRank=512", "qkRopeHeadDim=64", "numHiddenLayers=60", "recipe=dense");
  assert.equal(v2.elements, 34_560);
});

Deno.test("costs are described in a few lines", () => {
  const describe = (base: Partial<RunConfig>) => describeCosts(resolveConfig(base));
  const dense = describe({ preset: "tiny", recipe: "dense" });
  assert.equal(dense.split("\n").length, 5);
  assert.match(dense, /952 k/);
  assert.match(dense, /80 elements a layer.*320, 4\.0 times/);
  assert.doesNotMatch(dense, /index/);
  assert.doesNotMatch(describe({ attention: "mha" }), /times as many/);
  assert.throws(() => describe({ tokenizer: "char" }), RangeError);

  for (const recipe of ["dsa", "dsa_twin"] as const) {
    const dsa = describe({ preset: "tiny", recipe });
    assert.equal(dsa.split("\n").length, 7);
    assert.match(dsa, /dense \S+ GFLOP, warmup \S+ GFLOP, (twin \S+ GFLOP, )?sparse \S+ GFLOP/);
    assert.match(dsa, /112 elements a layer \(latent and rope key 80, index key 32\)/);
    assert.match(dsa, /reads 13,312 elements.*dense attention 20,480/);
    assert.match(dsa, /not shrink the stored cache.*quadratic.*264 FLOP a pair of tokens, not 640/);
  }
  // Of the sparse stage, though another one comes last.
  const stages = [{ name: "sparse" }, { name: "dense" }];
  assert.match(describe({ preset: "tiny", stages } as Partial<RunConfig>), /index key 32/);
  assert.doesNotMatch(describe({ selector: "recency" }), /quadratic|oversized/);
  // Two of three layers have an index key.
  const shared = describe({ preset: "tiny", numHiddenLayers: 3, indexShare: 2 });
  assert.match(shared, /101\.3 elements a layer \(latent and rope key 80, index key 21\.3\)/);
});

Deno.test("an oversized indexer is warned of from a fifth of dense attention on", () => {
  const warns = (indexNHeads: number) =>
    /oversized indexer/.test(describeCosts(resolveConfig({ indexNHeads, indexHeadDim: 15 })));
  // H (n + r + v) = 4 (16 + 8 + 16) = 160: a fifth is 32, two heads of 15 + 1.
  assert.equal(warns(2), false);
  assert.equal(warns(3), true);
});
