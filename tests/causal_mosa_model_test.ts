/** A model of causal MoSA on the GPU: what it says of a token is bitwise the same whatever follows. */
import assert from "node:assert/strict";
import { resolveConfig } from "../src/config/config.ts";
import { initialParameters, modelParameters } from "../src/model/parameters.ts";
import { denseView } from "../src/model/stage_view.ts";
import { languageModel } from "../src/model/transformer.ts";
import { WebGpuEngine } from "../src/webgpu/engine/engine.ts";
import { testGpu } from "./check_op.ts";

// Selections by mask and by lists.
for (const indexTopk of [9, 3]) {
  Deno.test(`causal MoSA of ${indexTopk} tokens: no logits depend on later tokens`, async () => {
    const sizes = { seqLen: 37, batchSize: 1, numHiddenLayers: 2, vocabSize: 50 };
    const config = resolveConfig({ ...sizes, attention: "mosa", indexTopk });
    using engine = await WebGpuEngine.open(await testGpu(), {
      parameters: modelParameters(config),
      initial: initialParameters(config),
      autotune: false,
      loss: languageModel(config, { stage: denseView }),
      ...{ batchSize: 1, seqLen: config.seqLen, trained: [] },
    });
    const tokens = Int32Array.from({ length: 37 }, (_, t) => t * 7 % 50);
    for (const row of [0, 8, 20]) {
      const before = await engine.logits(tokens, row);
      const changed = tokens.map((token, t) => t > row ? 49 - token : token);
      assert.deepEqual(await engine.logits(changed, row), before, `token ${row}`);
    }
    assert.notDeepEqual(
      await engine.logits(tokens, 20),
      await engine.logits(tokens.map((token, t) => t === 0 ? 33 : token), 20),
    );
  });
}
