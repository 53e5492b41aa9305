/** Embedding and cross-entropy. */
import { crossEntropy } from "../../ops/token/cross_entropy.ts";
import { embedding } from "../../ops/token/embedding.ts";
import type { OpCase } from "../cases/check_case.ts";
import type { Random } from "../cases/random.ts";

export function tokenOpCases(random: Random): OpCase[] {
  const ids = (count: number, limit: number) => ({
    ...{ rows: count, cols: 1, dtype: "i32" as const, values: random.below(count, limit) },
  });
  const scored = ids(65, 41);
  // -1 is not scored.
  const targets = { ...scored, values: scored.values.map((id) => id - 1) };
  return [
    {
      ...{ name: "embedding", shape: "129 of 50x36" },
      inputs: [ids(129, 50), { rows: 50, cols: 36 }],
      apply: ([ids, table]) => [embedding(ids, table)],
    },
    {
      ...{ name: "embedding, few kinds", shape: "2500 of 5x3" },
      inputs: [ids(2500, 3), { rows: 5, cols: 3 }],
      apply: ([ids, table]) => [embedding(ids, table)],
    },
    {
      ...{ name: "crossEntropy", shape: "65x40" },
      inputs: [
        { rows: 65, cols: 40, values: random.normal(65 * 40).map((x) => 2 * x) },
        targets,
        { rows: 1, cols: 1, values: [1 / 65], gradient: false },
      ],
      apply: ([logits, targets, inverseCount]) => {
        const { loss, nll } = crossEntropy(logits, targets, inverseCount);
        return [loss, nll];
      },
      losses: { 0: 0.7 },
    },
    {
      ...{ name: "crossEntropy, many kinds", shape: "3x4099" },
      inputs: [
        { rows: 3, cols: 4099 },
        ids(3, 4099),
        { rows: 1, cols: 1, values: [1 / 3], gradient: false },
      ],
      apply: ([logits, targets, inverseCount]) => [
        crossEntropy(logits, targets, inverseCount).loss,
      ],
      losses: { 0: 1 },
    },
  ];
}
