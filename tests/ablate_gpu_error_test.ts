/** A GPU that fails in the middle of an ablation: it stops, and the same command goes on. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { planRuns } from "../src/ablate/plan.ts";
import type { AblationResults } from "../src/ablate/results.ts";
import { runAblation } from "../src/ablate/runner.ts";
import { readJson } from "../src/files/files.ts";
import { TEXT } from "./train_run.ts";

const plan = planRuns({
  question: "?",
  config: {
    ...{ data: TEXT, steps: 9, hiddenSize: 8, numHiddenLayers: 1, numAttentionHeads: 1 },
    ...{ intermediateSize: 8, batchSize: 1, seqLen: 16, warmupSteps: 1, qLoraRank: 4 },
    ...{ kvLoraRank: 4, qkNopeHeadDim: 4, qkRopeHeadDim: 2, vHeadDim: 4, indexNHeads: 1 },
    ...{ indexHeadDim: 4, evalBatches: 1, sampleTokens: 0, autotune: false, device: "webgpu" },
  },
  axes: { "sparse.indexTopk": [2, 4] },
});

function run(folder: string): Promise<AblationResults> {
  const job = { experiment: "x", size: "real", plan, folder, argv: [], shouldStop: () => false };
  return runAblation(job);
}

/** Runs `body` with a `before` that is called with the device ahead of each submission. */
async function watchingSubmits<T>(
  before: (device: GPUDevice) => void,
  body: () => Promise<T>,
): Promise<T> {
  const { requestDevice } = GPUAdapter.prototype;
  const { submit } = GPUQueue.prototype;
  let device: GPUDevice;
  GPUAdapter.prototype.requestDevice = async function (...args) {
    return device = await requestDevice.apply(this, args);
  };
  GPUQueue.prototype.submit = function (...args) {
    before(device);
    return submit.apply(this, args);
  };
  try {
    return await body();
  } finally {
    GPUAdapter.prototype.requestDevice = requestDevice;
    GPUQueue.prototype.submit = submit;
  }
}

/** What a run came to, without times. */
function outcomes({ runs, finished }: AblationResults) {
  return [finished, ...runs.map(({ variant, status, metrics }) => ({ variant, status, metrics }))];
}

const failures: Readonly<Record<string, (device: GPUDevice) => void>> = {
  "lost": (device) => device.destroy(),
  "out of memory": (device) => {
    device.createBuffer({ size: 2 ** 40, usage: GPUBufferUsage.STORAGE });
  },
};

Deno.test("an ablation stops at an error of the GPU, keeps what is done, and goes on", async (t) => {
  const root = await Deno.makeTempDir();
  let submits = 0;
  const whole = await watchingSubmits(() => submits++, () => run(join(root, "whole")));
  assert.deepEqual(whole.runs.map(({ status }) => status), ["done", "done"]);
  for (const [name, fail] of Object.entries(failures)) {
    for (const share of [0.2, 0.5, 0.9]) {
      await t.step(`${name} after ${100 * share} % of the work`, async () => {
        const folder = join(root, `${name}_${share}`);
        const failing = Math.floor(share * submits);
        let count = 0;
        const failOnce = (device: GPUDevice) => {
          if (++count === failing) fail(device);
        };
        await assert.rejects(watchingSubmits(failOnce, () => run(folder)), {
          name: "GpuError",
          message: /^Cannot go on: GPU (error|device lost): [^\n]+; the same command goes on$/,
        });
        const kept = readJson(join(folder, "results.json")) as unknown as AblationResults;
        assert.equal(kept.finished, false);
        assert(kept.runs.every(({ status }) => status !== "failed"), JSON.stringify(kept.runs));
        const doneBefore = kept.runs.filter(({ status }) => status === "done");
        assert.equal(doneBefore.length, share > 0.8 ? 1 : 0);
        assert.deepEqual(outcomes(await run(folder)), outcomes(whole));
      });
    }
  }
  await Deno.remove(root, { recursive: true });
});
