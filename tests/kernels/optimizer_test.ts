/** Kernels of the training step that are not ops, against plain loops in float64. */
import assert from "node:assert/strict";
import { ADAMW_HYPER, adamwKernel } from "../../src/kernels/step/adamw.ts";
import { addInto } from "../../src/kernels/token/add.ts";
import { fill } from "../../src/kernels/token/fill.ts";
import { recordMetrics } from "../../src/kernels/step/record_metrics.ts";
import { rmsNormKernel } from "../../src/kernels/token/rms_norm.ts";
import {
  normOfPartials,
  sumOfSquares,
  sumOfSquaresBlocks,
} from "../../src/kernels/step/sum_of_squares.ts";
import { assertClose, randomNormal, testGpu } from "../check_op.ts";
import { layout, runKernels } from "../run_kernel.ts";

const nan = (count: number) => new Float32Array(count).fill(NaN);

Deno.test("fill sets the matrix and nothing else", async () => {
  const gpu = await testGpu();
  for (const [rows, cols, offset, stride] of [[3, 5, 2, 7], [4, 8, 4, 12], [1, 9, 3, 9]]) {
    const size = offset + rows * stride + 4;
    const x = layout(rows, cols, offset, stride);
    const { arrays: [got] } = await runKernels(gpu, [nan(size)], [[fill({ x, value: 1.5 }), 0]]);
    for (let i = 0; i < size; i++) {
      const [r, c] = [Math.floor((i - offset) / stride), (i - offset) % stride];
      const inside = i >= offset && r < rows && c < cols;
      assert(Object.is(got[i], inside ? 1.5 : NaN), `${rows}x${cols} element ${i}: ${got[i]}`);
    }
  }
});

Deno.test("copies and sums of ranges that are folded over the grid", async () => {
  const gpu = await testGpu();
  for (const count of [2 ** 20 + 5, 2 ** 22 + 8]) {
    const [a, b] = [randomNormal(count), randomNormal(count)];
    const [whole, rest] = [layout(1, count), layout(1, count)];
    const { arrays } = await runKernels(gpu, [a, b, nan(count), nan(count)], [
      [addInto({ a: whole, into: rest, add: whole }), 0, 2, 1],
      [addInto({ a: whole, into: rest, add: null }), 0, 3],
      [addInto({ a: whole, into: rest, add: rest }), 1, 3],
    ]);
    assertClose("sum", arrays[2], a.map((x, i) => x + b[i]), 1e-7);
    assert.deepEqual(arrays[2], arrays[3]);
  }
});

Deno.test("more rows than workgroups in one dimension of a grid", async () => {
  const rows = 16 * 65_535 + 100;
  const x = randomNormal(rows * 2);
  const m = layout(rows, 2);
  const kernel = rmsNormKernel({ x: m, w: layout(1, 2), y: m, eps: 0.1, software: false });
  assert(kernel.grid[1] > 1);
  const { arrays } = await runKernels(
    await testGpu(),
    [x, Float32Array.of(1, 2), nan(rows * 2)],
    [[kernel, 0, 1, 2]],
  );
  const want = Float64Array.from(x, (value, i) => {
    const other = x[i ^ 1];
    return value / Math.sqrt((value ** 2 + other ** 2) / 2 + 0.1) * (1 + i % 2);
  });
  assertClose("rmsNorm", arrays[2], want, 1e-6);
});

Deno.test("norm of several ranges, each at its place in one row of partial sums", async () => {
  const gpu = await testGpu();
  for (const counts of [[1, 3], [4096 * 3 + 8, 70_001, 12]]) {
    const ranges = counts.map((count) => randomNormal(count + 4));
    const blocks = counts.map(sumOfSquaresBlocks);
    const total = blocks.reduce((a, b) => a + b);
    const partialsAt = ranges.length;
    let place = 0;
    const calls = counts.map((count, i) => {
      const partials = layout(1, blocks[i], place);
      place += blocks[i];
      return [sumOfSquares({ x: layout(1, count, 4), partials }), i, partialsAt] as const;
    });
    const final = normOfPartials({ partials: layout(1, total), norm: layout(1, 1, 3) });
    const { arrays } = await runKernels(gpu, [...ranges, nan(total), nan(4)], [
      ...calls,
      [final, partialsAt, partialsAt + 1],
    ]);
    const squares = ranges.flatMap((r) => [...r.subarray(4)]).reduce((sum, x) => sum + x * x, 0);
    assertClose("norm", arrays[partialsAt + 1].subarray(3), [Math.sqrt(squares)], 1e-6);
  }
});

Deno.test("adamw, three steps, with and without clipping", async () => {
  const gpu = await testGpu();
  for (const count of [1, 37, 64, 5000]) {
    for (const clip of [0, 0.5]) {
      const p = randomNormal(count);
      const state = [p, nan(count), new Float32Array(count), new Float32Array(count)];
      const want = state.map((a) => Float64Array.from(a));
      let arrays: Float32Array[] = state;
      for (let t = 1; t <= 3; t++) {
        const g = randomNormal(count);
        const norm = Math.hypot(...g);
        const hyper: Record<typeof ADAMW_HYPER[number], number> = {
          lr: 0.01,
          weightDecay: 0.1,
          clip,
          beta1: 0.9,
          beta2: 0.95,
          eps: 1e-8,
          correction1: 1 / (1 - 0.9 ** t),
          correction2: 1 / (1 - 0.95 ** t),
        };
        const m = layout(1, count);
        const kernel = adamwKernel({
          p: m,
          g: m,
          m,
          v: m,
          norm: layout(1, 1),
          hyper: layout(1, ADAMW_HYPER.length, 1),
        });
        const settings = Float32Array.of(NaN, ...ADAMW_HYPER.map((name) => hyper[name]));
        ({ arrays } = await runKernels(
          gpu,
          [arrays[0], g, arrays[2], arrays[3], Float32Array.of(norm), settings],
          [[kernel, 0, 1, 2, 3, 4, 5]],
        ));
        adamwLoop(want, g, hyper, norm);
      }
      // Beside a 1: a single moment may cancel to nearly nothing, and its relative error with it.
      for (const [i, name] of [[0, "p"], [2, "m"], [3, "v"]] as const) {
        assertClose(`${count} ${name}`, [...arrays[i], 1], [...want[i], 1], 1e-6);
      }
    }
  }
});

function adamwLoop(
  [p, , m, v]: Float64Array[],
  g: Float32Array,
  hyper: Record<string, number>,
  norm: number,
): void {
  const scale = hyper.clip > 0 ? Math.min(1, hyper.clip / (norm + 1e-6)) : 1;
  for (let i = 0; i < p.length; i++) {
    const x = g[i] * scale;
    m[i] = hyper.beta1 * m[i] + (1 - hyper.beta1) * x;
    v[i] = hyper.beta2 * v[i] + (1 - hyper.beta2) * x * x;
    const step = m[i] * hyper.correction1 / (Math.sqrt(v[i] * hyper.correction2) + hyper.eps);
    p[i] -= hyper.lr * (step + hyper.weightDecay * p[i]);
  }
}

Deno.test("metrics go to, or are added to, the slot that the device is told", async () => {
  const row = layout(1, 3, 1);
  const ring = layout(4, 3, 0, 5);
  const slot = layout(1, 1, 2);
  const { arrays } = await runKernels(
    await testGpu(),
    [Float32Array.of(NaN, 1, 2, 3), Int32Array.of(9, 9, 2), new Float32Array(20)],
    [
      [recordMetrics({ row, slot, ring, add: false }), 0, 2, 1],
      [recordMetrics({ row, slot, ring, add: true }), 0, 2, 1],
    ],
  );
  const want = new Float32Array(20);
  want.set([2, 4, 6], 10);
  assert.deepEqual(arrays[2], want);
});
