import assert from "node:assert/strict";
import type { Matrix, Tensor } from "../../src/ops/op.ts";
import { linear } from "../../src/ops/token/linear.ts";
import { Graph } from "../../src/graph/graph.ts";
import { lower } from "../../src/graph/lower.ts";
import { matrixAt } from "../../src/ops/matrix.ts";
import { checkOp, testGpu } from "../check_op.ts";

const apply = ([x, ...weights]: Tensor[]) => [linear(x, weights)];
const applyResidual = (inputs: Tensor[]) => [
  linear(inputs[0], inputs.slice(1, -1), inputs.at(-1)),
];

for (const software of [true, false]) {
  const device = software ? "software" : "GPU";
  const capabilities = { software };

  Deno.test(`linear on ${device}: one weight, several, and a residual`, async () => {
    const x = { rows: 37, cols: 22 };
    await checkOp("one", { inputs: [x, { rows: 13, cols: 22 }], apply, capabilities });
    const weights = [13, 8, 33].map((rows) => ({ rows, cols: 22 }));
    await checkOp("three", { inputs: [x, ...weights], apply, capabilities });
    await checkOp("residual", {
      inputs: [x, ...weights, { rows: 37, cols: 54 }],
      apply: applyResidual,
      capabilities,
    });
  });

  Deno.test(`linear on ${device}: gradients that nobody wants are left out`, async () => {
    const x = { rows: 12, cols: 16 };
    const frozen = (rows: number) => ({ rows, cols: 16, gradient: false });
    await checkOp("frozen x", {
      inputs: [{ ...x, gradient: false }, { rows: 8, cols: 16 }],
      apply,
      capabilities,
    });
    await checkOp("frozen weight in the middle", {
      inputs: [x, { rows: 4, cols: 16 }, frozen(8), { rows: 12, cols: 16 }],
      apply,
      capabilities,
    });
  });
}

Deno.test("linear: long sums in parts, and more rows than one binding holds", async () => {
  const inputs = [{ rows: 700, cols: 24 }, { rows: 20, cols: 24 }, { rows: 700, cols: 20 }];
  await checkOp("in parts", { inputs, apply: applyResidual });
  const maxBindingBytes = 700 * 24;
  await checkOp("in windows", { inputs, apply: applyResidual, capabilities: { maxBindingBytes } });
  await checkOp("weight in windows", {
    inputs: [{ rows: 4, cols: 64 }, { rows: 60, cols: 64 }, { rows: 30, cols: 64 }],
    apply,
    capabilities: { maxBindingBytes: 64 * 64 },
  });
});

Deno.test("linear: neighbouring weights cost one product in each pass", async () => {
  const { capabilities } = await testGpu();
  const products = (gap: number) => {
    const graph = new Graph();
    const leaf = (label: string, rows: number, trained: boolean, place?: [Matrix, Matrix]) =>
      graph.leaf(place?.[0] ?? matrixAt({ label, size: rows * 16 }, 0, { rows, cols: 16 }), {
        trained,
        gradient: place?.[1] ?? null,
      });
    const arena = { label: "weights", size: 1000 };
    const gradients = { label: "gradients", size: 1000 };
    const at = (start: number, rows: number): [Matrix, Matrix] => [
      matrixAt(arena, start, { rows, cols: 16 }),
      matrixAt(gradients, start, { rows, cols: 16 }),
    ];
    const x = leaf("x", 40, true);
    const first = leaf("first", 12, true, at(0, 12));
    const second = leaf("second", 20, true, at(12 * 16 + gap, 20));
    const y = linear(x, [first, second]) as typeof x;
    const cotangent = matrixAt({ label: "dy", size: 40 * 32 }, 0, y);
    const program = lower(graph, {
      capabilities,
      cotangents: [{ tensor: y, matrix: cotangent }],
    });
    return program.dispatches.map((d) => d.kernel.label.split(" ").slice(0, 2).join(" "));
  };
  assert.deepEqual(products(0), [
    "matmul_nt 40x32x16",
    "matmul_nn 40x16x32",
    "matmul_tn 32x16x40",
  ]);
  assert.equal(products(4).length, 6);
});

Deno.test("linear refuses shapes that do not fit", () => {
  const graph = new Graph();
  const leaf = (rows: number, cols: number) =>
    graph.leaf(matrixAt({ label: "", size: rows * cols }, 0, { rows, cols }));
  const x = leaf(4, 3);
  const message = /^RangeError: Cannot apply linear to 4x3, /;
  assert.throws(() => linear(x, leaf(5, 4)), message);
  assert.throws(() => linear(x, [leaf(5, 3), leaf(5, 2)]), message);
  assert.throws(() => linear(x, leaf(5, 3), leaf(4, 4)), message);
  assert.throws(() => linear(x, []), /Cannot apply linear/);
});
