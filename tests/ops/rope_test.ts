/** Rotary embedding: against its twin, where it stands, and its angles at far positions. */
import assert from "node:assert/strict";
import { ropeInPlace } from "../../src/kernels/token/rope.ts";
import { gelu } from "../../src/ops/token/gelu.ts";
import { columns } from "../../src/ops/token/columns.ts";
import { rope, type RopeLayout } from "../../src/ops/token/rope.ts";
import { checkOp, testGpu } from "../check_op.ts";
import { layout as at, runKernels } from "../run_kernel.ts";

/** heads, headDim, start, dims: with and without whole vec4s, with and without other columns. */
const HEADS = [[1, 2, 0, 2], [3, 7, 2, 4], [2, 12, 4, 8], [5, 16, 0, 16], [3, 24, 8, 8], [
  2,
  9,
  0,
  6,
]];

for (const layout of ["interleaved", "halfSplit"] as RopeLayout[]) {
  for (const software of [true, false]) {
    Deno.test(`rope, ${layout}, kernels for ${software ? "software" : "GPU"}`, async () => {
      for (const [heads, headDim, start, dims] of HEADS) {
        const seqLen = 11;
        const spec = { seqLen, heads, headDim, start, dims, layout, theta: 10_000 };
        for (const inverse of [false, true]) {
          const way = inverse ? " back" : "";
          await checkOp(`rope ${heads}x${headDim}, ${dims} from ${start}${way}`, {
            inputs: [{ rows: 3 * seqLen, cols: heads * headDim }],
            apply: ([x]) => [rope(x, { ...spec, inverse })],
            capabilities: { software },
          });
        }
      }
    });
  }

  Deno.test(`rope where its input stands, ${layout}`, async () => {
    for (const [heads, headDim, start, dims] of HEADS) {
      const seqLen = 6;
      const spec = { seqLen, heads, headDim, start, dims, layout, theta: 500 };
      await checkOp(`rope in place ${heads}x${headDim}`, {
        inputs: [{ rows: 2 * seqLen, cols: heads * headDim + 8 }],
        // The view of a temporary, which nobody else reads, may be overwritten.
        apply: ([x]) => [rope(columns(gelu(x), 4, heads * headDim), spec)],
      });
    }
  });

  Deno.test(`rope's angles are right at far positions, ${layout}`, async () => {
    const [dims, theta] = [64, 10_000];
    const positions = [0, 1, 4095, 65_535, 1_000_003, 2 ** 24 - 1];
    for (const position of positions) {
      const x = new Float32Array(dims);
      for (let i = 0; i < dims / 2; i++) x[layout === "interleaved" ? 2 * i : i] = 1;
      const kernel = ropeInPlace({
        x: at(1, dims),
        seqLen: 2 ** 31,
        heads: 1,
        headDim: dims,
        start: 0,
        dims,
        layout,
        theta,
        firstRow: position,
        inverse: false,
        software: false,
      });
      const { arrays: [y] } = await runKernels(await testGpu(), [x], [[kernel, 0]]);
      for (let i = 0; i < dims / 2; i++) {
        const angle = position * theta ** (-2 * i / dims);
        const [a, b] = layout === "interleaved" ? [2 * i, 2 * i + 1] : [i, i + dims / 2];
        const error = Math.max(Math.abs(y[a] - Math.cos(angle)), Math.abs(y[b] - Math.sin(angle)));
        assert(error < 2e-7, `position ${position}, pair ${i}: ${error}`);
      }
    }
  });
}

Deno.test("rope refuses what it cannot rotate", async () => {
  const inputs = [{ rows: 4, cols: 8 }];
  const spec = { seqLen: 4, heads: 1, headDim: 8, theta: 100, layout: "interleaved" as const };
  for (const wrong of [{ start: 0, dims: 3 }, { start: 6, dims: 4 }, { start: 0, dims: 0 }]) {
    const apply = ([x]: Parameters<typeof rope>[0][]) => [rope(x, { ...spec, ...wrong })];
    await assert.rejects(checkOp("rope", { inputs, apply }), RangeError);
  }
});
