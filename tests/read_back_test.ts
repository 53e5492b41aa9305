import assert from "node:assert/strict";
import { write } from "../src/kernels/wgsl/operand.ts";
import { layout } from "./run_kernel.ts";
import { makeKernel } from "../src/kernels/wgsl/kernel.ts";
import { Gpu } from "../src/webgpu/device/device.ts";
import { createStorageBuffer } from "../src/webgpu/plan/plan.ts";
import { ReadBack } from "../src/webgpu/device/read_back.ts";
import { testGpu } from "./check_op.ts";

Deno.test("ReadBack reads what was last written, again and again, at any place", async () => {
  const gpu = await testGpu();
  const buffer = createStorageBuffer(gpu, "data", 64);
  const reader = new ReadBack(gpu, 256);
  for (let i = 0; i < 30; i++) {
    const values = Float32Array.from({ length: 64 }, () => Math.random());
    gpu.device.queue.writeBuffer(buffer, 0, values);
    const count = 1 + i % 8;
    const got = new Float32Array(await reader.read(buffer, 4 * i, 4 * count));
    assert.deepEqual(got, values.slice(i, i + count));
  }
  reader.destroy();
  buffer.destroy();
});

Deno.test("ReadBack waits where the data is not there at once", async () => {
  const gpu = await testGpu();
  const buffer = createStorageBuffer(gpu, "data", 16);
  const values = Float32Array.from({ length: 16 }, () => Math.random());
  gpu.device.queue.writeBuffer(buffer, 0, values);
  const reader = new ReadBack(gpu, 64);
  // As on a runtime whose mapAsync returns before the data is mapped.
  const original = GPUBuffer.prototype.getMappedRange;
  let refused = 0;
  GPUBuffer.prototype.getMappedRange = function (...args) {
    if (refused++ === 0) throw new DOMException("not mapped yet", "OperationError");
    return original.apply(this, args);
  };
  try {
    assert.deepEqual(new Float32Array(await reader.read(buffer, 0, 64)), values);
    assert(refused >= 2);
  } finally {
    GPUBuffer.prototype.getMappedRange = original;
  }
  reader.destroy();
  buffer.destroy();
});

Deno.test("nothing is read of kernels that did not compile", async () => {
  using gpu = (await Gpu.open())!;
  const reader = new ReadBack(gpu, 4);
  const buffer = createStorageBuffer(gpu, "data", 1);
  await reader.read(buffer, 0, 4);
  const common = { name: "wrong", shape: "1", operands: { x: write(layout(1, 1)) }, uniforms: {} };
  const kernel = makeKernel({
    ...common,
    workgroup: 1,
    grid: [1, 1, 1],
    body: "x[0] = nothing;",
    flops: 0,
  });
  try {
    gpu.pipeline(kernel);
  } catch {
    // Where errors arrive at once.
  }
  await assert.rejects(reader.read(buffer, 0, 4), /GPU error: .*wrong/s);
});
