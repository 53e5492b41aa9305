/** Ops that work row by row or element by element. */
import { add } from "../../ops/token/add.ts";
import { beside } from "../../ops/token/beside.ts";
import { checkpoint } from "../../ops/token/checkpoint.ts";
import { columns, sideBySide } from "../../ops/token/columns.ts";
import { detach } from "../../ops/token/detach.ts";
import { fakeQuantize } from "../../ops/token/fake_quantize.ts";
import { gelu } from "../../ops/token/gelu.ts";
import { layerNorm } from "../../ops/token/layer_norm.ts";
import { mixHeads } from "../../ops/token/mix_heads.ts";
import { rmsNorm } from "../../ops/token/rms_norm.ts";
import { rope } from "../../ops/token/rope.ts";
import { swiglu } from "../../ops/token/swiglu.ts";
import type { OpCase } from "../cases/check_case.ts";

const [rows, cols] = [70, 36];
const x = { rows, cols };
const weight = { rows: 1, cols };
const spec = { seqLen: 35, heads: 3, headDim: 12, start: 4, dims: 8, theta: 10_000 };

export function rowOpCases(): OpCase[] {
  const shape = `${rows}x${cols}`;
  return [
    {
      ...{ name: "rmsNorm", shape, inputs: [x, weight] },
      apply: ([x, w]) => [rmsNorm(x, w, 1e-3)],
    },
    {
      ...{ name: "layerNorm", shape, inputs: [x, weight, weight] },
      apply: ([x, w, b]) => [layerNorm(x, w, b, 1e-3)],
    },
    {
      ...{ name: "rmsNorm, long rows", shape: "2x1100" },
      inputs: [{ rows: 2, cols: 1100 }, { rows: 1, cols: 1100 }],
      apply: ([x, w]) => [rmsNorm(x, w, 1e-3)],
    },
    {
      ...{ name: "rope, interleaved", shape, inputs: [x] },
      apply: ([x]) => [rope(x, { ...spec, layout: "interleaved" })],
    },
    {
      ...{ name: "rope, half split", shape, inputs: [x] },
      apply: ([x]) => [rope(x, { ...spec, layout: "halfSplit" })],
    },
    {
      ...{ name: "rope, in place", shape: `${rows}x44`, inputs: [{ rows, cols: 44 }] },
      // The view of a temporary, which nobody else reads, may be overwritten.
      apply: ([x]) => [rope(columns(gelu(x), 4, cols), { ...spec, layout: "interleaved" })],
    },
    { ...{ name: "swiglu", shape, inputs: [x] }, apply: ([x]) => [swiglu(x)] },
    { ...{ name: "gelu", shape, inputs: [x] }, apply: ([x]) => [gelu(x)] },
    ...(["8", "fp8"] as const).map((to): OpCase => ({
      ...{ name: `fakeQuantize to ${to}`, shape, inputs: [x] },
      // Where one rounding decides, a number may be the next one instead.
      tolerance: { forward: 1e-2 },
      apply: ([x]) => [fakeQuantize(x, { to, groups: 3, hadamard: true })],
    })),
    {
      ...{ name: "beside", shape, inputs: [x, { rows, cols: 5 }] },
      apply: ([a, b]) => [beside(a, b, 3)],
    },
    {
      ...{ name: "sideBySide", shape, inputs: [x, { rows, cols: 5 }] },
      apply: (parts) => [sideBySide(parts)],
    },
    {
      ...{ name: "mixHeads", shape, inputs: [x, { rows, cols: 3 }, { rows: 1, cols: 1 }] },
      apply: ([x, w, gate]) => [mixHeads(x, w, gate, 0.7)],
    },
    { ...{ name: "add", shape, inputs: [x, x] }, apply: ([a, b]) => [add(a, b)] },
    {
      ...{ name: "columns, detach, checkpoint", shape, inputs: [x] },
      apply: ([x]) => [
        add(
          checkpoint(gelu(columns(x, 0, 8))),
          add(gelu(columns(x, 11, 8)), detach(columns(x, 3, 8))),
        ),
      ],
    },
  ];
}
