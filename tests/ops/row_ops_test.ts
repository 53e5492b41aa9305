/** Ops that work row by row or element by element, against their twins. */
import { add } from "../../src/ops/token/add.ts";
import { columns } from "../../src/ops/token/columns.ts";
import { gelu } from "../../src/ops/token/gelu.ts";
import { layerNorm } from "../../src/ops/token/layer_norm.ts";
import { rmsNorm } from "../../src/ops/token/rms_norm.ts";
import { swiglu } from "../../src/ops/token/swiglu.ts";
import { checkOp } from "../check_op.ts";

/** Odd and even sizes, narrow and wide, with and without whole vec4s. */
const SHAPES = [[1, 1], [3, 5], [7, 64], [5, 33], [2, 1100], [300, 12]];
/** Of one or two columns a norm leaves little more than rounding. */
const NORM_SHAPES = SHAPES.filter(([, cols]) => cols > 2);

for (const software of [true, false]) {
  const capabilities = { software };
  const kind = software ? "software" : "GPU";

  Deno.test(`rmsNorm, kernels for ${kind}`, async () => {
    for (const [rows, cols] of NORM_SHAPES) {
      await checkOp(`rmsNorm ${rows}x${cols}`, {
        inputs: [{ rows, cols }, { rows: 1, cols }],
        apply: ([x, w]) => [rmsNorm(x, w, 1e-3)],
        capabilities,
      });
    }
  });

  Deno.test(`layerNorm, kernels for ${kind}`, async () => {
    for (const [rows, cols] of NORM_SHAPES) {
      await checkOp(`layerNorm ${rows}x${cols}`, {
        inputs: [{ rows, cols }, { rows: 1, cols }, { rows: 1, cols }],
        apply: ([x, w, b]) => [layerNorm(x, w, b, 1e-3)],
        capabilities,
      });
    }
    await checkOp("layerNorm without bias", {
      inputs: [{ rows: 9, cols: 20 }, { rows: 1, cols: 20 }],
      apply: ([x, w]) => [layerNorm(x, w, null, 1e-3)],
      capabilities,
    });
  });
}

Deno.test("norms of a constant that needs no gradient still give the weight's", async () => {
  for (const apply of [rmsNorm, (x, w, eps) => layerNorm(x, w, null, eps)] as typeof rmsNorm[]) {
    await checkOp(apply.name || "layerNorm", {
      inputs: [{ rows: 6, cols: 9, gradient: false }, { rows: 1, cols: 9 }],
      apply: ([x, w]) => [apply(x, w, 1e-3)],
    });
  }
});

Deno.test("swiglu", async () => {
  for (const [rows, cols] of SHAPES) {
    await checkOp(`swiglu ${rows}x${cols}`, {
      inputs: [{ rows, cols: 2 * cols }],
      apply: ([x]) => [swiglu(x)],
    });
  }
  await checkOp("swiglu of large numbers", {
    inputs: [{ rows: 1, cols: 8, values: [-200, -100, 90, 1000, 1, 2, 3, 4] }],
    apply: ([x]) => [swiglu(x)],
  });
});

Deno.test("gelu", async () => {
  for (const [rows, cols] of SHAPES) {
    await checkOp(`gelu ${rows}x${cols}`, { inputs: [{ rows, cols }], apply: ([x]) => [gelu(x)] });
  }
  await checkOp("gelu of large numbers", {
    inputs: [{ rows: 1, cols: 8, values: [-200, -30, 30, 1000, 5, -5, 0, 4] }],
    apply: ([x]) => [gelu(x)],
  });
});

Deno.test("add, also of a matrix to itself", async () => {
  for (const [rows, cols] of SHAPES) {
    await checkOp(`add ${rows}x${cols}`, {
      inputs: [{ rows, cols }, { rows, cols }],
      apply: ([a, b]) => [add(a, b)],
    });
  }
  await checkOp("add to itself", { inputs: [{ rows: 3, cols: 7 }], apply: ([a]) => [add(a, a)] });
});

Deno.test("columns: views of one matrix, some columns unused", async () => {
  await checkOp("columns", {
    inputs: [{ rows: 5, cols: 23 }],
    apply: ([x]) => [add(gelu(columns(x, 0, 8)), gelu(columns(x, 11, 8)))],
  });
});
