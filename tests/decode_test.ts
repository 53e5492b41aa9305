/** Decoding on caches in absorbed form computes what the whole forward pass does. */
import assert from "node:assert/strict";
import { type ConfigInput, resolveConfig, type RunConfig } from "../src/config/config.ts";
import type { DecodeFunction, Engine } from "../src/engine.ts";
import { sample } from "../src/infer/sample.ts";
import { mapOfGroup } from "../src/model/head_groups.ts";
import { decodingModel } from "../src/model/decode.ts";
import { initialParameters, modelParameters } from "../src/model/parameters.ts";
import { denseView, type StageView } from "../src/model/stage_view.ts";
import { languageModel } from "../src/model/transformer.ts";
import { Rng } from "../src/rng.ts";
import { TfjsBackend } from "../src/tfjs/backend.ts";
import { TfjsEngine } from "../src/tfjs/engine.ts";
import type { Gpu } from "../src/webgpu/device/device.ts";
import { WebGpuEngine } from "../src/webgpu/engine/engine.ts";
import { asGpu, assertClose, relativeError, testGpu } from "./check_op.ts";
import { SMALL as INDEXED } from "./oracle_case.ts";

const seed = Math.floor(Math.random() * 2 ** 31);

const SMALL: ConfigInput = { ...INDEXED, batchSize: 1, numHiddenLayers: 3, seed };

const sparse: StageView = { ...denseView, selector: "learned", indexTopk: 5 };

/** The kernels of both families: of this adapter, and as if it was a GPU. */
async function families(): Promise<Record<string, Gpu>> {
  const gpu = await testGpu();
  return { own: gpu, GPU: asGpu(gpu) };
}

function openEngine(gpu: Gpu, config: RunConfig, stage: StageView): Promise<WebGpuEngine> {
  return WebGpuEngine.open(gpu, {
    parameters: modelParameters(config),
    initial: initialParameters(config),
    loss: languageModel(config, { stage }),
    batchSize: 1,
    seqLen: config.seqLen,
    trained: [],
    autotune: false,
  });
}

const fresh = new Rng(seed, "tokens");

function randomTokens({ seqLen, vocabSize }: RunConfig, rng = fresh): Int32Array {
  return Int32Array.from({ length: seqLen }, () => rng.below(vocabSize));
}

/** Where sampled tokens are compared they are always the same: rounding decides close calls. */
const FIXED = 7;

type Maps = Awaited<ReturnType<WebGpuEngine["maps"]>>;

/** Tokens, with the maps of their index scores and selections, of which none is a close call. */
async function clearTokens(
  engine: WebGpuEngine,
  config: RunConfig,
  stage: StageView,
  rng: Rng,
): Promise<{ tokens: Int32Array; maps: Maps }> {
  const variant = {
    name: "maps",
    loss: languageModel(config, { stage: { ...stage, maps: true } }),
  };
  for (;;) {
    const tokens = randomTokens(config, rng);
    const maps = await engine.maps({ tokens, targets: tokens, count: tokens.length }, variant);
    if (isClear(maps, config, stage.indexTopk)) return { tokens, maps };
  }
}

/**
 * Whether rounding cannot decide which keys are selected. Equal scores are equal bit by bit where ReLU
 * makes them 0, and in the first layer, where equal tokens have equal keys; in later ones what equal
 * tokens attend to is rounded in its own way.
 */
function isClear(maps: Maps, { seqLen }: RunConfig, topk: number): boolean {
  const scores = [...maps].filter(([name]) => name.includes("index_scores."));
  return scores.every(([name, all]) =>
    Array.from({ length: seqLen }, (_, t) => {
      const row = [...all.subarray(t * seqLen, t * seqLen + t + 1)].sort((a, b) => b - a);
      const gap = row[topk - 1] - row[topk];
      const isTie = gap === 0 && (row[topk] === 0 || name.endsWith("index_scores.0"));
      return t < topk || isTie || gap > 1e-4 * Math.max(...row.map(Math.abs));
    }).every(Boolean)
  );
}

/** What a decoder gives for each position. */
async function decoded(engine: Engine, model: DecodeFunction, tokens: Int32Array) {
  using decoder = engine.decoder!(model);
  const rows: Float32Array[] = [];
  for (const token of tokens) {
    decoder.push(token);
    rows.push(await decoder.logits());
  }
  return rows;
}

const CASES: [string, StageView, ConfigInput][] = [
  ["dense", denseView, {}],
  ["dense, queries not compressed, one head", denseView, { qLoraRank: null, numAttentionHeads: 1 }],
  ["dense, one layer, halves rotated, tied head", denseView, {
    ...{ numHiddenLayers: 1, ropeInterleave: false, tieWordEmbeddings: true },
  }],
  ["dense, a window", denseView, { recipe: "dense", window: 6 }],
  ["dense, the latent rotated", denseView, { latentRope: "onLatent" }],
  ["dense, nothing rotated, odd dims", denseView, {
    ...{ latentRope: "none", kvLoraRank: 7, qkRopeHeadDim: 2, qkNopeHeadDim: 3 },
  }],
  ["dense, several parts of keys", denseView, { seqLen: 150, numHiddenLayers: 1 }],
  ["dense, whole vec4s", denseView, {
    ...{ hiddenSize: 24, qLoraRank: 16, qkNopeHeadDim: 8, vHeadDim: 8, vocabSize: 24 },
  }],
  ["sparse", sparse, {}],
  ["sparse, by the hidden state", sparse, { indexInput: "hidden", qLoraRank: null }],
  ["sparse, by the latent", sparse, { indexInput: "kvLatent", indexActivation: "none" }],
  ["sparse, index keys of the latent", sparse, { indexKeyInput: "kvLatent" }],
  ["sparse, index keys of latent and rope key", sparse, { indexKeyInput: "kvLatentRope" }],
  ["sparse, index keys of latent and rope key, not rotated", sparse, {
    ...{ indexKeyInput: "kvLatentRope", latentRope: "none", indexRope: "none" },
    indexKeyNorm: "none",
  }],
  // Rounding decides what becomes of a number between two others: these are always the same.
  ["dense, latents of 8 bits", denseView, { latentBits: "8", seed: FIXED }],
  ["sparse, all in 4 bits", sparse, {
    ...{ latentBits: "4", indexBits: "4", hadamard: true, seed: FIXED },
  }],
  ["sparse, index keys of latents, FP8", sparse, {
    ...{ latentBits: "fp8", indexBits: "fp8", indexKeyInput: "kvLatentRope", seed: FIXED },
  }],
  ["sparse, index scores in attention", sparse, { indexLoss: "both", indexActivation: "none" }],
  ["sparse, scores of latents in attention", sparse, {
    ...{ indexLoss: "lm", indexActivation: "none", indexKeyInput: "kvLatentRope" },
  }],
  ["sparse, index scores in attention, by the oracle", { ...sparse, selector: "oracle" }, {
    ...{ indexLoss: "both", indexActivation: "none" },
  }],
  // With one head half of the scores are 0.
  ["sparse, the newest of equal scores", sparse, { indexNHeads: 1, indexTies: "newest" }],
  ["sparse, by attention itself, the newest of equal scores", sparse, {
    // Without positions equal tokens weigh alike.
    ...{ indexKeyInput: "native", latentRope: "none", numHiddenLayers: 1, vocabSize: 7 },
    indexTies: "newest",
  }],
  ["sparse, by attention itself", sparse, { indexKeyInput: "native" }],
  ["sparse, by attention itself, layers share it", sparse, {
    ...{ indexKeyInput: "native", indexShare: 2, latentRope: "none" },
  }],
  ["sparse, by the oracle", { ...sparse, selector: "oracle" }, { recipe: "dense" }],
  ["sparse, the latent rotated, keys not normed", sparse, {
    ...{ latentRope: "onLatent", indexKeyNorm: "none", indexRope: "interleaved" },
  }],
  ["sparse, one layer, one head each", sparse, {
    ...{ numHiddenLayers: 1, numAttentionHeads: 1, indexNHeads: 1, indexHeadDim: 5 },
  }],
  ["sparse, layers share indexers", sparse, { indexShare: 2, indexRope: "none" }],
  ["sparse, a selection a head", sparse, { indexGroups: 3 }],
  ["sparse, two groups of heads, odd sizes, their scores in attention", sparse, {
    ...{ numAttentionHeads: 6, indexNHeads: 4, indexHeadDim: 7, indexGroups: 2, kvLoraRank: 7 },
    ...{ qkNopeHeadDim: 3, vHeadDim: 5, indexLoss: "both", indexActivation: "none" },
  }],
  ["sparse, groups of heads by keys of latents, layers share them", sparse, {
    ...{ indexGroups: 3, indexKeyInput: "kvLatentRope", indexShare: 2 },
  }],
  ["sparse, groups of heads by attention itself", sparse, {
    ...{ indexGroups: 3, indexKeyInput: "native" },
  }],
  ["dense, with groups of heads", denseView, { indexGroups: 3 }],
  ["sparse, one key", { ...sparse, indexTopk: 1 }, {}],
  ["sparse, k > S", { ...sparse, indexTopk: 40 }, {}],
  ["sparse, several parts of keys", { ...sparse, indexTopk: 70 }, {
    ...{ seqLen: 150, numHiddenLayers: 1 },
  }],
];

for (const [name, stage, changes] of CASES) {
  Deno.test(`absorbed attention on a cache is MHA: ${name}`, async (t) => {
    const config = resolveConfig({ ...SMALL, ...changes });
    const model = decodingModel(config, stage)!;
    const { vocabSize } = config;
    const rng = config.seed === FIXED ? new Rng(FIXED, "tokens") : fresh;
    for (const [family, gpu] of Object.entries(await families())) {
      await t.step(`kernels for ${family}`, async () => {
        using engine = await openEngine(gpu, config, stage);
        const { tokens, maps } = stage.selector === "dense"
          ? { tokens: randomTokens(config, rng), maps: null }
          : await clearTokens(engine, config, stage, rng);
        const whole = await engine.logits(tokens);
        const rows = await decoded(engine, model, tokens);
        assertClose(`all positions (seed ${seed})`, rows.flatMap((row) => [...row]), whole, 1e-5);
        rows.forEach((row, i) => {
          const want = whole.subarray(i * vocabSize, (i + 1) * vocabSize);
          assertClose(`position ${i} (seed ${seed})`, row, want, 1e-4);
        });
        if (!maps) return;
        // Selections instead of logits, layer by layer.
        const { numHiddenLayers: layers, indexShare, indexGroups } = config;
        for (let i = 0; i < Math.ceil(layers / indexShare) * indexGroups; i++) {
          const [layer, group] = [Math.floor(i / indexGroups) * indexShare, i % indexGroups];
          const chosen = await decoded(engine, (parameters, inputs) => {
            const result = model(parameters, inputs);
            const first = layer / config.indexShare * config.indexGroups;
            return { ...result, logits: result.selections[first + group] };
          }, tokens);
          const got = chosen.flatMap((row) => [...new Int32Array(row.buffer)]);
          const name = `${mapOfGroup("topk", group, config)}.${layer}`;
          assert.deepEqual(
            got,
            [...maps.get(name)!],
            `layer ${layer}, group ${group} (seed ${seed})`,
          );
        }
      });
    }
  });
}

Deno.test("what has no cached form is computed in whole windows", () => {
  const config = resolveConfig(SMALL);
  const selectors = ["block", "random", "recency", "sinkRecency"] as const;
  for (const selector of selectors) {
    assert.equal(decodingModel(config, { ...sparse, selector }), null, selector);
  }
  for (const attention of ["mha", "gqa", "mosa"] as const) {
    const other = resolveConfig({ ...SMALL, attention, recipe: "dense", headDim: 8 });
    assert.equal(decodingModel(other, denseView), null, attention);
  }
});

Deno.test("a decoder says that its caches are full, and another starts anew", async () => {
  const config = resolveConfig(SMALL);
  using engine = await openEngine(await testGpu(), config, denseView);
  const model = decodingModel(config, denseView)!;
  const tokens = randomTokens(config);
  const first = await decoded(engine, model, tokens);
  await assert.rejects(decoded(engine, model, Int32Array.of(...tokens, 1)), {
    name: "RangeError",
    message: "Cannot decode more than 21 tokens of a sequence",
  });
  const again = await decoded(engine, model, tokens.slice(0, 4));
  assert.deepEqual(again, first.slice(0, 4));
});

Deno.test("sampled text is that of whole windows, past the window's end, too", async (t) => {
  const config = resolveConfig({ ...SMALL, seed: FIXED });
  const { seqLen } = config;
  for (const stage of [denseView, sparse]) {
    using engine = await openEngine(await testGpu(), config, stage);
    const decoding = decodingModel(config, stage)!;
    const counted = { windows: 0, tokens: 0 };
    const counting: Engine = Object.create(engine, {
      logits: {
        value: (tokens: Int32Array, row: number) => {
          counted.windows++;
          return engine.logits(tokens, row);
        },
      },
      decoder: {
        value: (model: DecodeFunction) => {
          const decoder = engine.decoder(model);
          return {
            push(token: number) {
              counted.tokens++;
              decoder.push(token);
            },
            logits: () => decoder.logits(),
            [Symbol.dispose]: () => decoder[Symbol.dispose](),
          };
        },
      },
    });
    const prompt = [...randomTokens(config, new Rng(FIXED, "prompt")).subarray(0, 5)];
    for (const temperature of [0, 1e-3, 1]) {
      await t.step(`${stage.selector}, temperature ${temperature}`, async () => {
        const write = (count: number, changes: object = {}) =>
          sample(counting, {
            ...{ prompt, count, temperature, seqLen, rng: new Rng(FIXED, "sample"), ...changes },
          });
        Object.assign(counted, { windows: 0, tokens: 0 });
        const want = await write(seqLen);
        assert.deepEqual(counted, { windows: seqLen, tokens: 0 });
        assert.deepEqual(await write(seqLen, { decoding }), want);
        // The window is full after seqLen - 5 new tokens; their last row gives one more.
        assert.deepEqual(counted, { windows: seqLen + 4, tokens: seqLen });
        // A prompt that is longer than the window has no use for caches.
        const long = [...prompt, ...prompt, ...prompt, ...prompt, ...prompt];
        const [got, whole] = [
          await write(2, { prompt: long, decoding }),
          await write(2, { prompt: long }),
        ];
        assert.deepEqual(got, whole);
        assert.equal(counted.tokens, seqLen);
      });
    }
  }
});

Deno.test("an engine without memory for caches samples in whole windows", async () => {
  const config = resolveConfig({ ...SMALL, seqLen: 9 });
  using engine = new TfjsEngine(await TfjsBackend.open("wasm"), {
    parameters: modelParameters(config),
    initial: initialParameters(config),
    loss: languageModel(config),
    batchSize: 1,
    seqLen: 9,
    trained: [],
  });
  const options = { prompt: [1, 2], count: 5, temperature: 0, seqLen: 9, rng: new Rng(seed, "") };
  const decoding = decodingModel(config, denseView);
  assert.deepEqual(await sample(engine, { ...options, decoding }), await sample(engine, options));
});

Deno.test("twins decode, too, and another selection would show", async () => {
  const config = resolveConfig({ ...SMALL, seqLen: 12 });
  using engine = await openEngine(await testGpu(), config, sparse);
  const { tokens } = await clearTokens(engine, config, sparse, fresh);
  const backend = await TfjsBackend.open("wasm");
  const values = initialParameters(config);
  const specs = new Map(modelParameters(config).map((spec) => [spec.name, spec]));
  const parameters = (name: string) => {
    const { rows, cols } = specs.get(name)!;
    return backend.tensor(values.get(name)!, rows, cols);
  };
  const run = (stage: StageView) => {
    const caches = new Map<string, Float32Array>();
    return Array.from(tokens, (token, t) => {
      const result = decodingModel(config, stage)!(parameters, {
        token: backend.tensor([token], 1, 1, "i32"),
        position: backend.tensor([t], 1, 1, "i32"),
        cache: (name, cols) =>
          backend.tensor(caches.get(name) ?? new Float32Array(12 * cols), 12, cols),
      });
      for (const [name, cache] of Object.entries(result.caches)) {
        caches.set(name, Float32Array.from(backend.read(cache)));
      }
      return backend.read(result.logits);
    });
  };
  const got = await decoded(engine, decodingModel(config, sparse)!, tokens);
  const want = run(sparse).flatMap((row) => [...row]);
  assertClose(`seed ${seed}`, got.flatMap((row) => [...row]), want, 1e-5);
  const dense = run(denseView);
  assert(relativeError(got[11], dense[11]) > 1e-3, `seed ${seed}`);
});
