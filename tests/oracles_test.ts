/** The oracles of DeepSeek Sparse Attention: what must hold whatever the weights. */
import assert from "node:assert/strict";
import { denseView } from "../src/model/stage_view.ts";
import { selectors } from "../src/ops/select/selectors/selectors.ts";
import { WebGpuEngine } from "../src/webgpu/engine/engine.ts";
import { assertClose, testGpu } from "./check_op.ts";
import { config, isZero, options, randomBatch, results, sparse } from "./oracle_case.ts";

for (const form of ["masked", "gathered"] as const) {
  Deno.test(`k >= S is dense attention, loss and every gradient (${form})`, async () => {
    const c = config({ sparseForm: form });
    const batch = randomBatch(c);
    const dense = await results(c, denseView, batch);
    const all = await results(c, { ...sparse, indexTopk: c.seqLen }, batch);
    assertClose("loss", [all.loss], [dense.loss], 1e-6);
    assertClose("logits", all.logits, dense.logits, 1e-5);
    for (const [name, gradient] of dense.gradients) {
      assertClose(name, all.gradients.get(name)!, gradient, 1e-4);
    }
  });
}

for (const klTarget of ["restricted", "renormalized"] as const) {
  Deno.test(`the masked form is the gathered form, of attention and KL (${klTarget})`, async () => {
    const c = config({ klTarget });
    const batch = randomBatch(c);
    const stage = { ...sparse, kl: "selected" } as const;
    const [masked, gathered] = [
      await results({ ...c, sparseForm: "masked" }, stage, batch),
      await results({ ...c, sparseForm: "gathered" }, stage, batch),
    ];
    assertClose("logits", gathered.logits, masked.logits, 1e-5);
    for (const [name, gradient] of masked.gradients) {
      assert(!isZero(gradient), name);
      assertClose(name, gathered.gradients.get(name)!, gradient, 1e-4);
    }
  });
}

for (const selector of Object.keys(selectors) as (keyof typeof selectors)[]) {
  Deno.test(`no selector lets a token see the future, rows below k included: ${selector}`, async () => {
    const c = config({ blockSize: 3 });
    const { tokens } = randomBatch(c);
    const stage = { ...sparse, selector };
    using engine = await WebGpuEngine.open(await testGpu(), {
      ...options(c, stage),
      trained: [],
    });
    const before = await engine.logits(tokens);
    for (const t of [2, 12]) {
      const changed = tokens.slice();
      for (let b = 0; b < c.batchSize; b++) {
        for (let s = t + 1; s < c.seqLen; s++) {
          changed[b * c.seqLen + s] = (tokens[b * c.seqLen + s] + 1 + s) % c.vocabSize;
        }
      }
      const after = await engine.logits(changed);
      for (let b = 0; b < c.batchSize; b++) {
        const row = (x: Float32Array, s: number) => {
          const start = (b * c.seqLen + s) * c.vocabSize;
          return x.subarray(start, start + c.vocabSize);
        };
        for (let s = 0; s <= t; s++) assert.deepEqual(row(after, s), row(before, s), `row ${s}`);
        assert.notDeepEqual(row(after, t + 1), row(before, t + 1));
      }
    }
  });
}
