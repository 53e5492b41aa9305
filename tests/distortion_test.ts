/** Distortion of attention's output, where it is known. */
import assert from "node:assert/strict";
import {
  attentionOutputs,
  distortion,
  projectionDistortion,
  quantisationDistortion,
  TRIED_BITS,
} from "../src/measure/density/distortion.ts";
import { latentDirections } from "../src/measure/density/projection.ts";
import { latentSums } from "../src/measure/latents.ts";
import { initialParameters } from "../src/model/parameters.ts";
import { denseView } from "../src/model/stage_view.ts";
import { languageModel } from "../src/model/transformer.ts";
import { fakeQuantize } from "../src/ops/token/fake_quantize.ts";
import { TfjsBackend } from "../src/tfjs/backend.ts";
import { WebGpuEngine } from "../src/webgpu/engine/engine.ts";
import { testGpu } from "./check_op.ts";
import { config, options, randomBatch } from "./oracle_case.ts";

function near(got: number, want: number, relative: number, what: string): void {
  assert(Math.abs(got - want) <= relative * Math.abs(want) + 1e-12, `${what}: ${got}, not ${want}`);
}

Deno.test("distortion is the lost share of the squares", () => {
  assert.equal(distortion([1, 2, 3], [1, 2, 3]), 0);
  assert.equal(distortion([1, 2, 3], [0, 0, 0]), 1);
  assert.equal(distortion([3, 4], [3, 0]), 16 / 25);
  assert.equal(distortion([1, 1], [3, 1]), 2, "twice as much as there is");
  assert.equal(distortion([0, 0], [0, 0]), 0);
  assert.throws(() => distortion([1], [1, 2]), RangeError);
});

/**
 * A model of two layers whose attention puts out the latent itself: a window of one token, one head
 * as wide as the latent, values that are the latent.
 */
async function echoes() {
  const c = config({
    ...{ numAttentionHeads: 1, vHeadDim: 12, kvLoraRank: 12, window: 1, recipe: "dense", seed: 5 },
  });
  const parameters = new Map(initialParameters(c));
  for (let layer = 0; layer < 2; layer++) {
    const name = `model.layers.${layer}.self_attn.kv_b_proj.weight`;
    const up = Float32Array.from(parameters.get(name)!);
    const { qkNopeHeadDim: nope, kvLoraRank: n } = c;
    for (let i = 0; i < n * n; i++) up[nope * n + i] = i % (n + 1) ? 0 : 1;
    parameters.set(name, up);
  }
  const engine = await WebGpuEngine.open(await testGpu(), {
    ...options(c, denseView),
    ...{ initial: parameters, trained: [] },
  });
  const batch = randomBatch(c);
  const stage = c.stages[0];
  const loss = languageModel(c, { stage: { ...denseView, keeps: ["latent"] } });
  const latents = await engine.maps(batch, { name: "latents", loss });
  const outputs = await attentionOutputs(engine, { config: c, stage, batch });
  return { c, parameters, engine, batch, stage, latents, outputs };
}

Deno.test("where attention puts out its latents, a projection costs the eigenvalues that it leaves", async () => {
  const { c, parameters, engine, batch, stage, outputs } = await echoes();
  using _ = engine;
  const { kvLoraRank: n, hiddenSize } = c;
  const sums = await latentSums(engine, { config: c, stage, batches: [batch] });
  for (let layer = 0; layer < 2; layer++) {
    const directions = latentDirections(sums[layer], n);
    const width = hiddenSize + n;
    // vᵀ M v of each direction: an eigenvalue.
    const values = Array.from({ length: n }, (_, k) => {
      let value = 0;
      for (let i = 0; i < n * n; i++) {
        const [row, col] = [Math.floor(i / n), i % n];
        const moment = sums[layer][(hiddenSize + row) * width + hiddenSize + col];
        value += directions[k * n + row] * directions[k * n + col] * moment;
      }
      return value;
    });
    const total = values.reduce((a, b) => a + b);
    for (const rank of [0, 1, 4, 11, 12]) {
      const left = values.slice(rank).reduce((a, b) => a + b, 0) / total;
      const known = { config: c, parameters, stage, batch, outputs, layer, directions, rank };
      const found = await projectionDistortion(engine, known);
      if (rank === 12) assert(found < 1e-10, `${found}`);
      else near(found, left, 1e-4, `layer ${layer}, rank ${rank}`);
    }
  }
});

Deno.test("where attention puts out its latents, few bits cost what rounding does", async () => {
  const { c, engine, batch, stage, latents, outputs } = await echoes();
  using _ = engine;
  const backend = await TfjsBackend.open("wasm");
  const found: number[] = [];
  for (const bits of TRIED_BITS) {
    for (let layer = 0; layer < 2; layer++) {
      const own = latents.get(`latent.${layer}`)!;
      const rows = own.length / c.kvLoraRank;
      const x = backend.tensor(own, rows, c.kvLoraRank);
      const want = distortion(own, backend.read(fakeQuantize(x, { to: bits })));
      const known = { config: c, stage, batch, outputs, layer, bits };
      const got = await quantisationDistortion(engine, known);
      near(got, want, 1e-3, `${bits} bits, layer ${layer}`);
      found.push(got);
    }
  }
  const [eight, , fp8, , four, , two] = found;
  assert(0 < eight && eight < fp8 && fp8 < four && four < two && two < 1, `${found}`);
});
