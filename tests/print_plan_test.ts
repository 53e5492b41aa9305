import assert from "node:assert/strict";
import { plannedMemory, printPlan } from "../src/graph/print_plan.ts";
import type { PlanSource } from "../src/graph/plan_source.ts";
import { PlanRecorder } from "../src/graph/plan_recorder.ts";
import { addInto } from "../src/kernels/token/add.ts";
import { fill } from "../src/kernels/token/fill.ts";
import { matrixAt } from "../src/ops/matrix.ts";
import { WebGpuEngine } from "../src/webgpu/engine/engine.ts";
import { testGpu } from "./check_op.ts";
import { config, options, sparse } from "./oracle_case.ts";

/** x = a; y = x + a; out = y: x is free again when out is written, and y is not. */
function threeSteps(): PlanSource {
  const capabilities = {
    ...{ software: true, maxBindingBytes: 2 ** 27, workgroupBytes: 2 ** 14, maxInvocations: 256 },
    subgroups: null,
  };
  const r = new PlanRecorder(capabilities);
  const a = matrixAt({ label: "a", size: 64 }, 0, { rows: 8, cols: 8 });
  r.scope = "copy";
  const x = r.temporary(8, 8);
  r.dispatch(addInto({ a, into: x, add: null }));
  r.scope = "sum";
  const y = r.temporary(8, 8);
  r.dispatch(addInto({ a, into: y, add: x }));
  const out = r.temporary(8, 8);
  r.dispatch(addInto({ a: y, into: out, add: null }));
  r.dispatch(fill({ x: out, value: 0 }));
  return r;
}

Deno.test("a plan as text: ops, kernels, slots, bytes, and what the planner saves", () => {
  const source = threeSteps();
  assert.deepEqual(plannedMemory(source), { temporaries: 3 * 256, slots: 2 * 256 });
  const lines = printPlan(source).split("\n");
  assert.deepEqual(lines.map((line) => line.trim().split(/ {2,}/).slice(1, 3)), [
    ["kernel", "groups"],
    ["copy", "copy 8x8"],
    ["sum", "add 8x8"],
    ["sum", "copy 8x8"],
    ["sum", "fill 8x8"],
    [],
  ]);
  const operands = lines.slice(1, -1).map((line) => line.trim().split(/ {2,}/).at(-1));
  // The slot of x is taken over by out.
  assert.deepEqual(operands, [
    "a 8x8, → #0 8x8",
    "a 8x8, → #1 8x8, #0 8x8",
    "#1 8x8, → #0 8x8",
    "→ #0 8x8",
  ]);
  assert.equal(lines.at(-1), "temporaries of 768 B in 512 B of slots: the planner saves 256 B");
});

Deno.test("the plan of a sparse step names all its ops, the optimizer and the metrics", async () => {
  const gpu = await testGpu();
  const stage = { ...sparse, kl: "selected" } as const;
  using engine = await WebGpuEngine.open(gpu, options(config(), stage));
  const { bytes } = engine;
  const text = engine.printPlan();
  assert.equal(engine.bytes, bytes, "a look takes no memory");
  const ops = [
    "rope",
    "indexTopk",
    "sparseMlaAttention gradient",
    "indexerLoss",
    "optimizer",
    "metrics",
  ];
  for (const op of ops) assert.match(text, new RegExp(`^ *\\d+  ${op}  `, "m"), op);
  assert.match(text, /→ gradients \d+x\d+/);
  assert.match(engine.describeMemory(), /^step: temporaries of .* the planner saves /);
  using parts = await WebGpuEngine.open(gpu, {
    ...options(config({ accumulate: 2 }), stage),
    microBatches: 2,
  });
  assert.deepEqual(parts.printPlan().match(/^plan of .*$/gm), [
    "plan of a step, first",
    "plan of a step, next",
    "plan of a step, update",
  ]);
});
