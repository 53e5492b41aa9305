/** Columns beside those of heads, matrices side by side and sums of heads, against their twins. */
import assert from "node:assert/strict";
import { beside } from "../../src/ops/token/beside.ts";
import { columns, sideBySide } from "../../src/ops/token/columns.ts";
import { mixHeads } from "../../src/ops/token/mix_heads.ts";
import { TfjsBackend } from "../../src/tfjs/backend.ts";
import { checkOp } from "../check_op.ts";

const SIZES = [[5, 1, 1, 1], [37, 3, 5, 2], [70, 2, 8, 12], [300, 4, 12, 20]];

for (const software of [true, false]) {
  const kind = software ? "software" : "GPU";

  Deno.test(`beside, kernels for ${kind}`, async () => {
    for (const [rows, heads, own, shared] of SIZES) {
      await checkOp(`${rows}x${heads}x(${own}+${shared})`, {
        inputs: [{ rows, cols: heads * own }, { rows, cols: shared }],
        apply: ([a, b]) => [beside(a, b, heads)],
        capabilities: { software },
      });
    }
    await checkOp("frozen", {
      inputs: [{ rows: 9, cols: 6, gradient: false }, { rows: 9, cols: 3 }],
      apply: ([a, b]) => [beside(a, b)],
      capabilities: { software },
    });
  });

  Deno.test(`sideBySide, kernels for ${kind}`, async () => {
    for (const cols of [[1, 1], [3, 5, 2], [8, 4, 12], [7]]) {
      await checkOp(`37x(${cols.join("+")})`, {
        inputs: cols.map((cols) => ({ rows: 37, cols })),
        apply: (parts) => [sideBySide(parts)],
        capabilities: { software },
      });
    }
    await checkOp("columns taken apart, and one of them in windows", {
      inputs: [{ rows: 700, cols: 24 }, { rows: 700, cols: 3, gradient: false }],
      apply: ([x, y]) => [sideBySide([columns(x, 5, 7), y, columns(x, 12, 9)])],
      capabilities: { software, maxBindingBytes: 700 * 24 },
    });
  });

  Deno.test(`mixHeads, kernels for ${kind}`, async () => {
    for (const [rows, heads, dim] of SIZES) {
      const inputs = [{ rows, cols: heads * dim }, { rows, cols: heads }, { rows: 1, cols: 1 }];
      const apply = ([x, w, gate]: Parameters<typeof mixHeads>[0][]) => [mixHeads(x, w, gate, 0.7)];
      await checkOp(`${rows}x${heads}x${dim}`, { inputs, apply, capabilities: { software } });
    }
    const inputs = [{ rows: 700, cols: 24 }, { rows: 700, cols: 3 }, { rows: 1, cols: 1 }];
    await checkOp("in windows", {
      inputs,
      apply: ([x, w, gate]) => [mixHeads(x, w, gate)],
      capabilities: { software, maxBindingBytes: 700 * 24 },
    });
  });
}

Deno.test("beside, sideBySide and mixHeads refuse what does not fit", async () => {
  const backend = await TfjsBackend.open("wasm");
  const of = (rows: number, cols: number) =>
    backend.tensor(new Float32Array(rows * cols), rows, cols);
  assert.throws(() => beside(of(2, 5), of(2, 1), 2), /beside to 2x5, 2x1: expected a \[rows, 2/);
  assert.throws(() => beside(of(2, 4), of(3, 1)), /beside to 2x4, 3x1/);
  assert.throws(() => sideBySide([of(2, 4), of(3, 1)]), /sideBySide to 2x4, 3x1: .* of 2 rows/);
  assert.throws(() => mixHeads(of(2, 5), of(2, 2), of(1, 1)), /mixHeads to 2x5, 2x2, 1x1/);
  assert.throws(() => mixHeads(of(2, 4), of(2, 2), of(2, 1)), /gate \[1, 1\]/);
});
