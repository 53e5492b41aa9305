/**
 * `deno task bench peer`: the small transformer that other engines have been timed with, its loss
 * read after every step.
 *
 * @module
 */
import {
  adapterOf,
  type BenchOptions,
  type BenchResult,
  summarizeTimes,
  warmUp,
} from "./result.ts";
import type { Device } from "../open_device.ts";
import * as workload from "./peer_workload.ts";

/** Batches made in advance; later steps use them again. */
const BATCHES = 64;
/** Untimed steps: enough for the losses that are known of other engines. */
const WARM_UP_STEPS = 11;
/** Steps whose losses are given. */
const LOSS_STEPS = [0, 1, 2, 5, 10];

/** Times single steps, each from the upload of its batch to its loss on the CPU. */
export async function* peerSuite(
  device: Device,
  { steps }: BenchOptions,
): AsyncGenerator<BenchResult> {
  using engine = await device.open({
    parameters: workload.parameters,
    initial: workload.initial(),
    loss: workload.loss,
    batchSize: workload.batchSize,
    seqLen: workload.seqLen,
  });
  const batches = workload.batches(BATCHES);
  const losses: number[] = [];
  const step = async () => {
    const done = losses.length;
    engine.step([batches[done % BATCHES]], workload.hyper(done + 1));
    for (const { loss } of await engine.metrics()) losses.push(loss);
  };
  await warmUp(device, WARM_UP_STEPS, step);
  const samples: number[] = [];
  for (let i = 0; i < (steps ?? 50); i++) {
    const start = performance.now();
    await step();
    samples.push(performance.now() - start);
  }
  const times = summarizeTimes(samples);
  yield {
    suite: "peer",
    name: "loss read every step",
    adapter: adapterOf(device),
    ...times,
    tokensPerSecond: Math.round(1000 * workload.batchSize * workload.seqLen / times.medianMs),
    losses: Object.fromEntries(LOSS_STEPS.map((i) => [i, losses[i]])),
  };
}
