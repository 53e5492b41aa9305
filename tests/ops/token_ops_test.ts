/** Embedding and cross-entropy against their twins. */
import { crossEntropy } from "../../src/ops/token/cross_entropy.ts";
import { embedding } from "../../src/ops/token/embedding.ts";
import { checkOp, randomNormal } from "../check_op.ts";

function randomIds(count: number, limit: number): number[] {
  return Array.from({ length: count }, () => Math.floor(Math.random() * limit));
}

for (const software of [true, false]) {
  const kind = software ? "software" : "GPU";
  const embed = (tokens: number, kinds: number, vocabulary: number, cols: number) =>
    checkOp(`embedding ${vocabulary}x${cols}, ${tokens} tokens`, {
      inputs: [
        { rows: tokens, cols: 1, dtype: "i32", values: randomIds(tokens, kinds) },
        { rows: vocabulary, cols },
      ],
      apply: ([ids, table]) => [embedding(ids, table)],
      capabilities: { software },
    });

  Deno.test(`embedding, kernels for ${kind}`, async () => {
    const cases = [[1, 1, 1], [50, 7, 33], [70, 3000, 20], [129, 9, 140]];
    for (const [tokens, vocabulary, cols] of cases) {
      await embed(tokens, vocabulary, vocabulary, cols);
    }
  });

  Deno.test(`embedding of many tokens of few kinds, kernels for ${kind}`, async () => {
    await embed(2 * 8192 + 77, 3, 5, 3);
  });
}

Deno.test("embedding larger than one binding", async () => {
  const [tokens, vocabulary, cols] = [400, 300, 12];
  await checkOp("embedding", {
    inputs: [
      { rows: tokens, cols: 1, dtype: "i32", values: randomIds(tokens, vocabulary) },
      { rows: vocabulary, cols },
    ],
    apply: ([ids, table]) => [embedding(ids, table)],
    capabilities: { maxBindingBytes: 4096 },
  });
});

for (const software of [true, false]) {
  Deno.test(`crossEntropy, kernels for ${software ? "software" : "GPU"}`, async () => {
    for (const [rows, vocabulary] of [[9, 2], [17, 5], [33, 256], [3, 4099], [513, 8]]) {
      const targets = randomIds(rows, vocabulary + 1).map((id) => id - 1);
      targets[0] = 0;
      await checkOp(`crossEntropy ${rows}x${vocabulary}`, {
        inputs: [
          { rows, cols: vocabulary, values: randomNormal(rows * vocabulary).map((x) => 2 * x) },
          { rows, cols: 1, dtype: "i32", values: targets },
          { rows: 1, cols: 1, values: [1 / rows], gradient: false },
        ],
        apply: ([logits, targets, inverseCount]) => {
          const { loss, nll } = crossEntropy(logits, targets, inverseCount);
          return [loss, nll];
        },
        losses: { 0: 0.7 },
        capabilities: { software },
      });
    }
  });
}

Deno.test("crossEntropy of logits larger than one binding", async () => {
  const [rows, vocabulary] = [100, 70];
  await checkOp("crossEntropy", {
    inputs: [
      { rows, cols: vocabulary },
      { rows, cols: 1, dtype: "i32", values: randomIds(rows, vocabulary) },
      { rows: 1, cols: 1, values: [0.01], gradient: false },
    ],
    apply: ([logits, targets, inverseCount]) => [crossEntropy(logits, targets, inverseCount).loss],
    losses: { 0: 1 },
    capabilities: { maxBindingBytes: 4096 },
  });
});
