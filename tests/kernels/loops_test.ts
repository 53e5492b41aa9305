/**
 * Loops of kernels: none goes further than its kernel says, and none is made that goes too far for a
 * driver. Mesa's llvmpipe ends them silently.
 */
import assert from "node:assert/strict";
import { checkCase, type OpCase } from "../../src/doctor/cases/check_case.ts";
import { Random } from "../../src/doctor/cases/random.ts";
import { allCases } from "../../src/doctor/checks/all.ts";
import { familiesOf } from "../../src/doctor/checkup.ts";
import { type Kernel, makeKernel } from "../../src/kernels/wgsl/kernel.ts";
import { write } from "../../src/kernels/wgsl/operand.ts";
import { MOST_ITERATIONS, requireShortLoops } from "../../src/kernels/wgsl/loops.ts";
import { layerNorm } from "../../src/ops/token/layer_norm.ts";
import { crossEntropy } from "../../src/ops/token/cross_entropy.ts";
import { embedding } from "../../src/ops/token/embedding.ts";
import { linear } from "../../src/ops/token/linear.ts";
import { rmsNorm } from "../../src/ops/token/rms_norm.ts";
import { requireLongLoops } from "../../src/webgpu/plan/self_test.ts";
import { refuses } from "../user_error.ts";
import { testGpu } from "../check_op.ts";
import { endLoopsAfter } from "./end_loops.ts";

const seed = Math.floor(Math.random() * 2 ** 32);
const random = new Random(seed, "loops");

Deno.test("no kernel is made whose loops say nothing of their length, or are too long", () => {
  const kernel = (iterations?: number) =>
    makeKernel({
      name: "long",
      shape: "1",
      operands: { x: write({ rows: 1, cols: 1, offset: 0, stride: 1 }) },
      uniforms: { n: 1 },
      workgroup: 1,
      grid: [1, 1, 1],
      iterations,
      body: "for (var i = 0u; i < u.n; i++) { x[0] += 1.0; }",
    });
  assert.equal(kernel(MOST_ITERATIONS).iterations, MOST_ITERATIONS);
  assert.throws(() => kernel(), /long 1 has loops/);
  assert.throws(() => kernel(MOST_ITERATIONS + 1), /long 1: .* loop 60001 times/);
  for (const code of ["while (a) {", "loop {", "for(;;) {"]) {
    assert.throws(() => requireShortLoops({ label: "x", code }), TypeError);
  }
  requireShortLoops({ label: "x", code: "// for a while\nlet format = loops;" });
});

for (const { name, capabilities } of familiesOf(await testGpu(), "all")) {
  Deno.test(`no loop goes further than its kernel says, kernels for ${name}, seed ${seed}`, async () => {
    const gpu = await testGpu();
    const family = { name, capabilities };
    const failures: string[] = [];
    const looped = new Set<string>();
    const limited = (kernel: Kernel) => {
      if (kernel.iterations > 0) looped.add(kernel.label.split(" ")[0]);
      return endLoopsAfter(kernel, kernel.iterations);
    };
    for (const [i, given] of allCases(random).entries()) {
      const again = () => allCases(random)[i];
      const { op, shape, ok, note } = await checkCase(gpu, given, again, family, random, limited);
      if (!ok) failures.push(`${op} ${shape}: ${note ?? "other numbers"}`);
    }
    assert.deepEqual(failures, []);
    assert(looped.size > 25, `${looped.size} kernels have loops`);
  });
}

Deno.test("loops that end too early are noticed", async () => {
  const gpu = await testGpu();
  const [family] = familiesOf(gpu, "own");
  const early = (kernel: Kernel) => endLoopsAfter(kernel, Math.floor(kernel.iterations / 2));
  const given = () => allCases(random).find(({ name }) => name === "crossEntropy")!;
  const { ok, note } = await checkCase(gpu, given(), given, family, random, early);
  assert.deepEqual([ok, note], [false, null]);
});

Deno.test("a software driver that ends loops earlier is not computed with", async () => {
  const gpu = await testGpu();
  await requireLongLoops(gpu);
  if (!gpu.capabilities.software) return;
  const early = (_: unknown, outer: number, inner: number) => Promise.resolve(outer * inner - 1);
  await refuses(() => requireLongLoops(gpu, early), /ends loops after about 59993 rounds/);
});

const matrix = (rows: number, cols: number, scale = 1) => ({
  ...{ rows, cols, values: random.normal(rows * cols).map((x) => scale * x) },
});
const ids = (rows: number, values: ArrayLike<number>) => ({
  ...{ rows, cols: 1, dtype: "i32" as const, values },
});
const tokens = 2 ** 20;

/** Sizes at which one invocation would loop too far, if it had as much to do as with small ones. */
const large: OpCase[] = [
  {
    name: "crossEntropy",
    shape: "2x100277",
    inputs: [
      matrix(2, 100_277),
      ids(2, [7, 100_276]),
      { rows: 1, cols: 1, values: [0.5], gradient: false },
    ],
    apply: ([logits, targets, inverseCount]) => {
      const { loss, nll } = crossEntropy(logits, targets, inverseCount);
      return [loss, nll];
    },
    losses: { 0: 1 },
  },
  {
    name: "embedding",
    shape: "49152 of 8x5",
    inputs: [ids(49_152, random.below(49_152, 8)), matrix(8, 5)],
    apply: ([ids, table]) => [embedding(ids, table)],
  },
  {
    name: "embedding",
    shape: "9000 of 8x644, of one kind",
    inputs: [ids(9000, new Int32Array(9000).fill(3)), matrix(8, 644)],
    apply: ([ids, table]) => [embedding(ids, table)],
  },
  {
    name: "rmsNorm",
    shape: `${tokens}x3`,
    inputs: [matrix(tokens, 3), matrix(1, 3)],
    apply: ([x, w]) => [rmsNorm(x, w, 1e-6)],
  },
  {
    name: "rmsNorm",
    shape: "2x250001",
    inputs: [matrix(2, 250_001), matrix(1, 250_001)],
    apply: ([x, w]) => [rmsNorm(x, w, 1e-6)],
  },
  {
    name: "layerNorm",
    shape: `${tokens}x2`,
    // Pairs of numbers that are not close to each other, whose variance would be all rounding.
    inputs: [
      { rows: tokens, cols: 2, values: random.normal(2 * tokens).map((x, i) => x + 5 * (i % 2)) },
      matrix(1, 2),
      matrix(1, 2),
    ],
    apply: ([x, w, b]) => [layerNorm(x, w, b, 1e-5)],
  },
  {
    name: "linear",
    shape: `${tokens}x2x3`,
    inputs: [matrix(tokens, 2), matrix(3, 2)],
    apply: ([x, w]) => [linear(x, w)],
  },
];

for (const given of large) {
  Deno.test(`${given.name} ${given.shape} is right, seed ${seed}`, async () => {
    const gpu = await testGpu();
    const [family] = familiesOf(gpu, "own");
    const { ok, note, output, gradients } = await checkCase(
      gpu,
      given,
      () => given,
      family,
      random,
    );
    assert(ok, note ?? `errors ${output}, ${gradients}`);
  });
}
