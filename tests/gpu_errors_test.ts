/** A GPU that fails in the middle of a run: nothing is kept of what came after. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { resolveConfig } from "../src/config/config.ts";
import type { Engine } from "../src/engine.ts";
import { type Device, openDevice } from "../src/open_device.ts";
import { loadNewest } from "../src/runs/newest_checkpoint.ts";
import { readMetrics, readSummary } from "../src/runs/run_folder.ts";
import { openRunData, startRun } from "../src/train/run.ts";
import { outcome, TEXT } from "./train_run.ts";

const STEPS = 40;
const FAILING = 27;
const asked = resolveConfig({
  ...{ name: "x", data: TEXT, recipe: "dense", steps: STEPS, hiddenSize: 8, numHiddenLayers: 1 },
  ...{ numAttentionHeads: 1, intermediateSize: 8, batchSize: 1, seqLen: 16, warmupSteps: 1 },
  ...{ kvLoraRank: 4, qkNopeHeadDim: 4, qkRopeHeadDim: 4, vHeadDim: 4, autotune: false },
  ...{ evalBatches: 1, sampleTokens: 2 },
});

/** How a step fails: instead of what it submits, or on top of it. */
const failures: Readonly<Record<string, (device: GPUDevice) => void>> = {
  /** The whole submission is refused: the step does nothing. */
  "refused": (device) => {
    const encoder = device.createCommandEncoder();
    encoder.clearBuffer(device.createBuffer({ size: 4, usage: GPUBufferUsage.MAP_READ }));
    device.queue.submit([encoder.finish()]);
  },
  "out of memory": (device) => {
    device.createBuffer({ size: 2 ** 40, usage: GPUBufferUsage.STORAGE });
  },
  "lost": (device) => device.destroy(),
};

/** Fails at a step as the driver would: without a word. */
function failingAt(step: number, device: Device, fail: (device: GPUDevice) => void): Device {
  return {
    ...device,
    open: async (options) => {
      const engine: Engine = await device.open(options);
      const own = engine.step.bind(engine);
      let done = 0;
      engine.step = (batches, hyper) => {
        if (++done !== step) return own(batches, hyper);
        const { submit } = GPUQueue.prototype;
        GPUQueue.prototype.submit = () => {};
        own(batches, hyper);
        GPUQueue.prototype.submit = submit;
        fail(device.gpu!.device);
      };
      return engine;
    },
  };
}

interface Rhythm {
  readonly logEvery: number;
  readonly evalEvery: number;
  readonly sampleEvery: number;
  readonly saveEvery: number;
}

/** Trains in `root`, from the newest checkpoint on if there is a run; returns its folder. */
async function train(root: string, rhythm: Rhythm, fail?: (device: GPUDevice) => void) {
  const folder = join(root, "x");
  const isNew = readSummary(folder) === null;
  const checkpoint = isNew ? null : await loadNewest(folder, { forResume: true });
  const { config, dataset } = await openRunData({ ...asked, ...rhythm });
  using device = await openDevice("webgpu");
  await startRun({
    config: { ...config, resume: isNew ? null : folder },
    ...{ dataset, checkpoint, root, experiment: "x", argv: [] },
    device: fail ? failingAt(FAILING, device, fail) : device,
    progress: { update: () => {}, note: () => {} },
    shouldStop: () => false,
  });
  return folder;
}

/** The moments at which something is kept, each as the first after the failing step. */
const rhythms: Readonly<Record<string, Rhythm>> = {
  save: { logEvery: 50, evalEvery: 0, sampleEvery: 0, saveEvery: 10 },
  log: { logEvery: 4, evalEvery: 0, sampleEvery: 0, saveEvery: 10 },
  evaluation: { logEvery: 50, evalEvery: 7, sampleEvery: 0, saveEvery: 10 },
  sample: { logEvery: 50, evalEvery: 0, sampleEvery: 7, saveEvery: 10 },
};

for (const [moment, rhythm] of Object.entries(rhythms)) {
  Deno.test(`nothing is kept past an error of the GPU: ${moment}`, async () => {
    const root = await Deno.makeTempDir();
    const whole = await outcome(await train(join(root, "whole"), rhythm));
    for (const [name, fail] of Object.entries(failures)) {
      const own = join(root, name);
      await assert.rejects(train(own, rhythm, fail), (error: Error) => {
        assert.equal(error.name, "GpuError", `${name}: ${error.stack}`);
        assert.match(
          error.message,
          /^Cannot go on: GPU [^\n]+; nothing since then was kept: .*resume=.*\/x$/,
        );
        return true;
      });
      const folder = join(own, "x");
      const { status, error } = readSummary(folder)!;
      assert.equal(status, "failed");
      assert.match(error!, /^GPU (error|device lost): [^\n]+$/);
      const rows = readMetrics(join(folder, "metrics.jsonl"));
      assert(rows.every(({ step }) => step < FAILING), `${name}: ${rows.at(-1)?.step}`);
      const steps = [...Deno.readTextFileSync(join(folder, "samples.txt")).matchAll(/step (\d+)/g)];
      assert(steps.every(([, step]) => Number(step) < FAILING), name);
      const { step } = await loadNewest(folder, { forResume: true });
      assert.equal(step, 20, name);
      await train(own, rhythm);
      assert.deepEqual(await outcome(folder), whole, name);
    }
    await Deno.remove(root, { recursive: true });
  });
}
