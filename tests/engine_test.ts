import assert from "node:assert/strict";
import * as peer from "../src/bench/peer_workload.ts";
import type { Engine, EngineOptions } from "../src/engine.ts";
import { TfjsBackend } from "../src/tfjs/backend.ts";
import { TfjsEngine } from "../src/tfjs/engine.ts";
import { WebGpuEngine } from "../src/webgpu/engine.ts";
import { assertClose, testGpu } from "./check_op.ts";

const options: EngineOptions = {
  parameters: peer.parameters,
  initial: peer.initial(),
  loss: peer.loss,
  batchSize: peer.batchSize,
  seqLen: peer.seqLen,
};

async function losses(engine: Engine, steps: number): Promise<number[]> {
  peer.batches(steps).forEach((batch, i) => engine.step([batch], peer.hyper(i + 1)));
  return (await engine.metrics()).map((row) => row.loss);
}

for (const device of ["webgpu", "cpu"]) {
  Deno.test(`the peer workload's losses are those of four other engines on ${device}`, async () => {
    using engine = device === "webgpu"
      ? await WebGpuEngine.open(await testGpu(), options)
      : new TfjsEngine(await TfjsBackend.open("wasm"), options);
    const got = await losses(engine, 11);
    for (const [step, want] of Object.entries(peer.knownLosses)) {
      // One unit of the fourth decimal: what the other engines differ by among themselves.
      assert(Math.abs(got[Number(step)] - want) < 1.1e-4, `step ${step}: ${got[Number(step)]}`);
    }
  });
}

Deno.test("two engines train bitwise alike, and one goes on from the other's state", async () => {
  const gpu = await testGpu();
  using one = await WebGpuEngine.open(gpu, options);
  using two = await WebGpuEngine.open(gpu, options);
  const batches = peer.batches(6);
  batches.forEach((batch, i) => one.step([batch], peer.hyper(i + 1)));
  batches.slice(0, 3).forEach((batch, i) => two.step([batch], peer.hyper(i + 1)));
  using three = await WebGpuEngine.open(gpu, options);
  three.importState(await two.exportState());
  batches.slice(3).forEach((batch, i) => three.step([batch], peer.hyper(i + 4)));
  assert.deepEqual(await three.exportState(), await one.exportState());
  const [before, after] = [await two.metrics(), await three.metrics()];
  assert.deepEqual([...before, ...after], await one.metrics());
});

Deno.test("micro-batches add up to the gradient of one large batch", async () => {
  const gpu = await testGpu();
  const half = { ...options, batchSize: peer.batchSize / 2 };
  using whole = await WebGpuEngine.open(gpu, options);
  using parts = await WebGpuEngine.open(gpu, half);
  const [batch] = peer.batches(1);
  const size = batch.tokens.length / 2;
  const halves = [0, size].map((start) => {
    // Uneven counts of scored targets: micro-batches are weighed by them.
    const targets = batch.targets.slice(start, start + size);
    if (start > 0) targets.fill(-1, 7);
    const tokens = batch.tokens.slice(start, start + size);
    return { tokens, targets, count: targets.filter((t) => t >= 0).length };
  });
  const targets = Int32Array.from([...halves[0].targets, ...halves[1].targets]);
  const count = halves[0].count + halves[1].count;
  whole.step([{ tokens: batch.tokens, targets, count }], peer.hyper(1));
  parts.step(halves, peer.hyper(1));
  const [a] = await whole.metrics();
  const [b] = await parts.metrics();
  assertClose("loss", [b.loss], [a.loss], 1e-6);
  assertClose("norm", [b["grad/norm/backbone"]], [a["grad/norm/backbone"]], 1e-5);
  const [x, y] = [await whole.exportState(), await parts.exportState()];
  for (const [name, m] of x.m) assertClose(name, y.m.get(name)!, m, 1e-4);
});

Deno.test("a group without hyper-parameters of its own is left alone", async () => {
  using engine = await WebGpuEngine.open(await testGpu(), { ...options, trained: [] });
  const before = await engine.exportState();
  await engine.evaluate(peer.batches(1)[0]);
  assert.deepEqual((await engine.exportState()).parameters, before.parameters);
});
