/** Products with weights. */
import { latentStatistics } from "../../ops/attention/latent_statistics.ts";
import { linear } from "../../ops/token/linear.ts";
import type { OpCase } from "../cases/check_case.ts";

export function productCases(): OpCase[] {
  const weights = [13, 8, 33].map((rows) => ({ rows, cols: 22 }));
  const frozen = (rows: number, cols: number) => ({ rows, cols, gradient: false });
  return [
    {
      ...{ name: "linear, weights and residual", shape: "37x22x54" },
      inputs: [{ rows: 37, cols: 22 }, ...weights, { rows: 37, cols: 54 }],
      apply: ([x, a, b, c, residual]) => [linear(x, [a, b, c], residual)],
    },
    {
      ...{ name: "linear, whole vec4s", shape: "192x64x128" },
      inputs: [{ rows: 192, cols: 64 }, { rows: 128, cols: 64 }],
      apply: ([x, w]) => [linear(x, w)],
    },
    {
      ...{ name: "linear, long sums", shape: "700x24x20" },
      inputs: [{ rows: 700, cols: 24 }, { rows: 20, cols: 24 }],
      apply: ([x, w]) => [linear(x, w)],
    },
    {
      ...{ name: "linear, one row", shape: "1x260x300" },
      inputs: [frozen(1, 260), frozen(300, 260)],
      apply: ([x, w]) => [linear(x, w)],
    },
    {
      ...{ name: "latentStatistics", shape: "300x12+7" },
      inputs: [frozen(300, 12), frozen(300, 7)],
      apply: ([x, c]) => [latentStatistics(x, c)],
    },
  ];
}
