/** Rounding to few bits: what is known to come out, on both backends, and its gradient. */
import assert from "node:assert/strict";
import {
  fakeQuantize,
  type FakeQuantizeAttributes,
  QUANTIZED,
  type QuantizedName,
} from "../../src/ops/token/fake_quantize.ts";
import type { Grid } from "../../src/kernels/token/fake_quantize.ts";
import { TfjsBackend } from "../../src/tfjs/backend.ts";
import { assertClose, checkOp, testGpu } from "../check_op.ts";
import { runOp } from "../run_op.ts";

const names = Object.keys(QUANTIZED) as QuantizedName[];

/** All values from 0 on that a number may have. */
function valuesOf({ largest, float }: Grid): number[] {
  if (!float) return Array.from({ length: largest + 1 }, (_, i) => i);
  const values = [0];
  for (let unit = 2 ** (float.lowest - float.mantissa); values.at(-1)! < largest;) {
    values.push(values.at(-1)! + unit);
    if (values.at(-1)! >= 2 ** (float.mantissa + 1) * unit) unit *= 2;
  }
  return values;
}

/** Rows of groups that are near to values that they may have, and those values. */
function nearby(rows: number, cols: number, { to, groups = 1 }: FakeQuantizeAttributes) {
  const allowed = valuesOf(QUANTIZED[to].grid);
  const last = allowed.length - 1;
  const [x, want] = [new Float64Array(rows * cols), new Float64Array(rows * cols)];
  const n = cols / groups;
  for (let first = 0; first < rows * cols; first += n) {
    const scale = 2 ** Math.floor(12 * Math.random() - 6);
    const largest = Math.floor(n * Math.random());
    for (let i = 0; i < n; i++) {
      const at = i === largest ? last : Math.floor(allowed.length * Math.random());
      // Not so far that it could be the next one instead; the largest sets the scale.
      const [below, above] = [allowed[at] - (allowed[at - 1] ?? -allowed[1]), allowed[at + 1] ?? 0];
      const room = Math.min(below, above > 0 ? above - allowed[at] : Infinity);
      const off = i === largest || at === last ? 0 : (Math.random() - 0.5) * 0.9 * room;
      const sign = Math.random() < 0.5 ? -1 : 1;
      x[first + i] = sign * scale * (allowed[at] + off);
      want[first + i] = sign * scale * allowed[at];
    }
  }
  return { x, want };
}

/** Each group times the Hadamard matrix of blocks of `block`, by its definition. */
function turned(x: Float64Array, block: number): Float64Array {
  const sign = (i: number, j: number) =>
    (i & j).toString(2).replaceAll("0", "").length % 2 ? -1 : 1;
  return x.map((_, at) => {
    const [first, i] = [at - at % block, at % block];
    let sum = 0;
    for (let j = 0; j < block; j++) sum += sign(i, j) * x[first + j];
    return sum / Math.sqrt(block);
  });
}

Deno.test("E4M3 has 448 for its largest, and 2^-9 for its least", () => {
  const values = valuesOf(QUANTIZED.fp8.grid);
  assert.deepEqual([values[1], values.at(-2), values.at(-1)], [2 ** -9, 416, 448]);
  assert.equal(values.length, 127);
});

for (const to of names) {
  Deno.test(`fakeQuantize to ${to}: the nearest value, in each group by a scale of its own`, async () => {
    for (
      const [rows, cols, groups] of [[1, 1, 1], [3, 5, 1], [37, 12, 3], [2, 300, 2], [5, 64, 1]]
    ) {
      for (const hadamard of [false, true]) {
        const attributes = { to, groups, hadamard };
        const { x, want } = nearby(rows, cols, attributes);
        const n = cols / groups;
        const block = hadamard ? n & -n : 1;
        const [given, expected] = [x, want].map((v) => Float32Array.from(turned(v, block)));
        const inputs = [{ rows, cols, values: given }];
        const name = `${to} ${rows}x${cols} in ${groups}, hadamard ${hadamard}`;
        const apply = ([x]: Parameters<typeof fakeQuantize>[0][]) => [fakeQuantize(x, attributes)];
        for (const software of [true, false]) {
          const [got] = await runOp(inputs, apply, { software });
          assertClose(name, got, expected, 1e-6);
        }
        await checkOp(name, { inputs, apply });
      }
    }
  });
}

Deno.test("fakeQuantize: zeros stay zeros, halves go to the even side", async () => {
  await testGpu();
  const backend = await TfjsBackend.open("wasm");
  const x = [[0, 0, 0, 0], [7, 0.5, 1.5, -2.5]].flat();
  const want = [[0, 0, 0, 0], [7, 0, 2, -2]].flat();
  const twin = backend.read(fakeQuantize(backend.tensor(x, 2, 4), { to: "4" }));
  const [kernel] = await runOp([{ rows: 2, cols: 4, values: x }], ([x]) => [
    fakeQuantize(x, { to: "4" }),
  ], {});
  for (const got of [twin, kernel]) assert.deepEqual([...got].map((v) => v + 0), want);
});

Deno.test("fakeQuantize: 16 bits are nearly all of it", async () => {
  const values = Float32Array.from({ length: 40 * 24 }, () => Math.random() - 0.5);
  const [got] = await runOp([{ rows: 40, cols: 24, values }], ([x]) => [
    fakeQuantize(x, { to: "16", hadamard: true }),
  ], {});
  assertClose("16 bits", got, values, 1e-4);
});

Deno.test("fakeQuantize refuses groups that are not whole or too wide", async () => {
  const backend = await TfjsBackend.open("wasm");
  const x = backend.tensor(new Float32Array(4098), 1, 4098);
  assert.throws(() => fakeQuantize(x, { to: "8", groups: 4 }), /in 4 groups: they must be whole/);
  assert.throws(() => fakeQuantize(x, { to: "8" }), /4098 columns with one scale: .*2048/);
});
