import assert from "node:assert/strict";
import * as peer from "../src/bench/peer_workload.ts";
import { resolveConfig } from "../src/config/config.ts";
import type { Engine, EngineOptions, Metrics } from "../src/engine.ts";
import { initialParameters, modelParameters } from "../src/model/parameters.ts";
import { viewOf } from "../src/model/stage_view.ts";
import { languageModel } from "../src/model/transformer.ts";
import { crossEntropy } from "../src/ops/token/cross_entropy.ts";
import { embedding } from "../src/ops/token/embedding.ts";
import { linear } from "../src/ops/token/linear.ts";
import { Rng } from "../src/rng.ts";
import { stageSpans } from "../src/config/stages.ts";
import { TfjsBackend } from "../src/tfjs/backend.ts";
import { TfjsEngine } from "../src/tfjs/engine.ts";
import { stepHyper, trainedGroups } from "../src/train/hyper.ts";
import { StepLog } from "../src/train/step_log.ts";
import { WebGpuEngine } from "../src/webgpu/engine/engine.ts";
import { assertClose, testGpu } from "./check_op.ts";
import { SMALL } from "./oracle_case.ts";

const options: EngineOptions = {
  parameters: peer.parameters,
  initial: peer.initial(),
  loss: peer.loss,
  batchSize: peer.batchSize,
  seqLen: peer.seqLen,
};

const rng = new Rng(Math.floor(Math.random() * 2 ** 32), "engine test");
// A clipped gradient would look the same at any scale.
const INDEXED = { ...SMALL, seed: rng.below(1e9), clip: null };

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

for (const device of ["webgpu", "cpu"]) {
  Deno.test(`micro-batches train an indexer as one large batch does on ${device}`, async () => {
    const [tokens, targets] = [0, 1].map(() =>
      Int32Array.from({ length: 6 * INDEXED.seqLen }, () => rng.below(INDEXED.vocabSize))
    );
    // Scored targets are unevenly spread; KL is a mean over all rows all the same.
    targets.fill(-1, 0, 33);
    /** A step of a stage on the same tokens, in `accumulate` parts: its log and what it left. */
    const train = async (name: string, accumulate: number) => {
      const batchSize = 6 / accumulate;
      const config = resolveConfig({ ...INDEXED, batchSize, accumulate });
      const size = batchSize * config.seqLen;
      const batches = Array.from({ length: accumulate }, (_, i) => {
        const own = targets.slice(i * size, (i + 1) * size);
        const count = own.filter((t) => t >= 0).length;
        return { tokens: tokens.slice(i * size, (i + 1) * size), targets: own, count };
      });
      const span = stageSpans(config.stages).find(({ stage }) => stage.name === name)!;
      const { stage } = span;
      const model: EngineOptions = {
        parameters: modelParameters(config),
        initial: initialParameters(config),
        loss: languageModel(config, { stage: viewOf(stage, config), trains: stage.trains }),
        ...{ batchSize, seqLen: config.seqLen, trained: trainedGroups(stage) },
      };
      using engine = device === "webgpu"
        ? await WebGpuEngine.open(await testGpu(), model)
        : new TfjsEngine(await TfjsBackend.open("wasm"), model);
      const hyper = stepHyper(config, span, 0);
      engine.step(batches, hyper);
      const progress = { update() {}, note() {} };
      const log = new StepLog({ config, progress, skipped: { count: 0 } }, {
        span,
        engine,
        first: 0,
      });
      return { row: await log.row(1, hyper), state: await engine.exportState() };
    };
    for (const stage of ["warmup", "sparse"]) {
      const whole = await train(stage, 1);
      assert(whole.row["train/kl"] > 1e-2, `${whole.row["train/kl"]}: nothing to compare`);
      for (const accumulate of [2, 3]) {
        const parts = await train(stage, accumulate);
        for (const [name, value] of Object.entries(whole.row)) {
          if (/^time/.test(name)) continue;
          assertClose(`${stage} ${name}`, [parts.row[name]], [value], 1e-4);
        }
        for (const part of ["m", "v"] as const) {
          for (const [name, values] of whole.state[part]) {
            assertClose(`${stage} ${part} ${name}`, parts.state[part].get(name)!, values, 1e-3);
          }
        }
      }
    }
  });

  Deno.test(`a group without hyper-parameters is frozen for that step on ${device}`, async () => {
    // Two groups, so that the other one goes on.
    const parameters = peer.parameters.map((spec, i) => i % 2 ? { ...spec, group: "odd" } : spec);
    parameters.sort((a, b) => a.group.localeCompare(b.group));
    const own = { ...options, parameters };
    using engine = device === "webgpu"
      ? await WebGpuEngine.open(await testGpu(), own)
      : new TfjsEngine(await TfjsBackend.open("wasm"), own);
    const isFrozen = (name: string) => parameters.find((p) => p.name === name)!.group === "odd";
    const hyper = (update: number, names: readonly string[]) => {
      const { backbone } = peer.hyper(update).groups;
      const groups = Object.fromEntries(names.map((name) => [name, { ...backbone, update }]));
      return { ...peer.hyper(update), groups };
    };
    const [first, second, third] = peer.batches(3);
    // A step of both, so that there are moments to keep.
    engine.step([first], hyper(1, ["backbone", "odd"]));
    const before = await engine.exportState();
    engine.step([second], hyper(2, ["backbone"]));
    const after = await engine.exportState();
    for (const part of ["parameters", "m", "v"] as const) {
      for (const [name, values] of before[part]) {
        const same = values.every((x, i) => x === after[part].get(name)![i]);
        assert.equal(same, isFrozen(name), `${part} of ${name}`);
      }
    }
    engine.step([third], hyper(3, []));
    assert.deepEqual(await engine.exportState(), after);
    for (const row of await engine.metrics()) {
      assert(row["grad/norm/backbone"] > 0 && row["grad/norm/odd"] > 0);
    }
  });
}

Deno.test("metrics of more steps than the device keeps come back in order, unread ones are not lost", async () => {
  const gpu = await testGpu();
  const parameters = [
    { name: "e", shape: [5, 4], rows: 5, cols: 4, group: "backbone", decay: false },
  ];
  const small: EngineOptions = {
    parameters,
    initial: new Map([["e", Float32Array.from({ length: 20 }, () => rng.normal())]]),
    batchSize: 1,
    seqLen: 6,
    loss(parameter, { tokens, targets, inverseCount }) {
      const logits = linear(embedding(tokens, parameter("e")), parameter("e"));
      const { loss, nll } = crossEntropy(logits, targets, inverseCount);
      return { losses: [{ tensor: loss, weight: 1 }], metrics: { loss }, logits, nll };
    },
  };
  const batch = (step: number) => ({
    tokens: Int32Array.from({ length: 6 }, (_, i) => (step * 7 + i * i) % 5),
    targets: Int32Array.from({ length: 6 }, (_, i) => (step * 3 + i) % 5),
    count: 6,
  });
  using often = await WebGpuEngine.open(gpu, small);
  using seldom = await WebGpuEngine.open(gpu, small);
  const rows: Metrics[] = [];
  const late: Metrics[] = [];
  const losses = new Map<number, number>();
  for (let step = 0; step < 1500; step++) {
    if (step % 97 === 0) losses.set(step, (await often.evaluate(batch(step))).loss);
    for (const engine of [often, seldom]) engine.step([batch(step)], peer.hyper(step + 1));
    if (step % 100 === 99) rows.push(...await often.metrics());
    if (step === 899) late.push(...await seldom.metrics());
  }
  late.push(...await seldom.metrics());
  assert.equal(rows.length, 1500);
  assert.deepEqual(late, rows);
  for (const [step, loss] of losses) assertClose(`${step}`, [rows[step].loss], [loss], 1e-6);
  for (let step = 0; step < 1024; step++) seldom.step([batch(step)], peer.hyper(step + 1));
  assert.throws(() => seldom.step([batch(0)], peer.hyper(1)), /more than 1024 steps of metrics/);
  assert.equal((await seldom.metrics()).length, 1024);
});
