/** Sums and products over tokens against their twin. */
import assert from "node:assert/strict";
import { columns } from "../../src/ops/token/columns.ts";
import { latentStatistics, latentStatisticsOp } from "../../src/ops/attention/latent_statistics.ts";
import { matrixType } from "../../src/ops/op.ts";
import { checkOp } from "../check_op.ts";

for (const software of [true, false]) {
  Deno.test(`latentStatistics, kernels for ${software ? "software" : "GPU"}`, async () => {
    // Odd sizes, whole vec4s, enough rows for several partial sums, one row.
    for (const [rows, a, b] of [[37, 5, 3], [64, 16, 8], [300, 12, 7], [1, 4, 4]]) {
      await checkOp(`latentStatistics ${rows}x${a}+${b}`, {
        inputs: [
          { rows, cols: a, gradient: false },
          { rows, cols: b, gradient: false },
        ],
        apply: ([x, c]) => [latentStatistics(x, c)],
        cotangents: [],
        capabilities: { software },
      });
    }
  });
}

Deno.test("latentStatistics of matrices larger than a binding, and of columns", async () => {
  await checkOp("latentStatistics in parts", {
    inputs: [
      { rows: 700, cols: 16, gradient: false },
      { rows: 700, cols: 24, gradient: false },
    ],
    apply: ([x, c]) => [latentStatistics(x, columns(c, 5, 11))],
    cotangents: [],
    capabilities: { maxBindingBytes: 4 * 4000 },
  });
});

Deno.test("latentStatistics refuses matrices of different rows", () => {
  assert.throws(
    () => latentStatisticsOp.types([matrixType(3, 2), matrixType(4, 2)], {}),
    { name: "RangeError", message: /latentStatistics.*3x2, 4x2/ },
  );
});
