import assert from "node:assert/strict";
import { join } from "node:path";
import * as peer from "../src/bench/peer_workload.ts";
import type { EngineState, LossFunction, ParameterSpec } from "../src/engine.ts";
import { type Kernel, type KernelVariants, makeKernel } from "../src/kernels/wgsl/kernel.ts";
import { crossEntropy } from "../src/ops/token/cross_entropy.ts";
import { embedding } from "../src/ops/token/embedding.ts";
import { linear } from "../src/ops/token/linear.ts";
import { read, write } from "../src/kernels/wgsl/operand.ts";
import { matrixAt } from "../src/ops/matrix.ts";
import type { Capabilities } from "../src/kernels/wgsl/device.ts";
import { Gpu } from "../src/webgpu/device/device.ts";
import { WebGpuEngine } from "../src/webgpu/engine/engine.ts";
import { Graph } from "../src/graph/graph.ts";
import { lower } from "../src/graph/lower.ts";
import type { Dispatch } from "../src/graph/plan_recorder.ts";
import { Tuning, tuningKey } from "../src/webgpu/tuning/tuning.ts";
import { readChoices, tuningPath, writeChoices } from "../src/webgpu/tuning/tuning_cache.ts";
import { testGpu } from "./check_op.ts";

/** A device that takes itself for a GPU: kernels in tiles, of which there are variants. */
async function openAsGpu(): Promise<Gpu> {
  const gpu = await Gpu.open();
  assert(gpu, "No WebGPU adapter");
  return Object.assign(gpu, { capabilities: { ...gpu.capabilities, software: false } });
}

async function withFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** The dispatches of a linear layer and its gradients: a product in each form. */
function layer(capabilities: Capabilities): readonly Dispatch[] {
  const graph = new Graph();
  const leaf = (label: string, rows: number, cols: number) =>
    graph.leaf(matrixAt({ label, size: rows * cols }, 0, { rows, cols }), { trained: true });
  const y = linear(leaf("x", 70, 36), leaf("w", 44, 36)) as ReturnType<typeof leaf>;
  const matrix = matrixAt({ label: "dy", size: 70 * 44 }, 0, { rows: 70, cols: 44 });
  return lower(graph, { capabilities, cotangents: [{ tensor: y, matrix }] }).dispatches;
}

/** Counts the pipelines that are tried from now on. */
function countPipelines(gpu: Gpu): () => number {
  let count = 0;
  const make = gpu.tryPipeline.bind(gpu);
  gpu.tryPipeline = (kernel) => {
    count++;
    return make(kernel);
  };
  return () => count;
}

/** More than is compared in one piece. */
const LENGTH = 40_000;

const [INPUT, OUTPUT] = ["x", "y"].map((label) =>
  matrixAt({ label, size: LENGTH }, 0, { rows: 1, cols: LENGTH })
);

/** y = 2x, after some rounds of a loop that changes nothing. */
function doubling(rounds: number, term = ""): Kernel {
  return makeKernel({
    name: "double",
    shape: `${LENGTH}`,
    operands: { x: read(INPUT), y: write(OUTPUT) },
    uniforms: { rounds },
    workgroup: 64,
    grid: [LENGTH / 64, 1, 1],
    iterations: rounds,
    body: `
let at = wid.x * 64u + lane;
var v = 2.0 * x[at];
for (var i = 0u; i < u.rounds; i++) { v = max(v, x[(at + i) % 64u] - 9.0); }
y[at] = v${term};`,
    flops: LENGTH,
  });
}

const UNLIMITED = { path: null, budgetMs: Infinity };

for (const timestamps of [true, false]) {
  const clock = timestamps ? "GPU timestamps" : "the clock";
  Deno.test(`the fastest variant with the right bits is found, by ${clock}`, async () => {
    const gpu = await testGpu();
    const kernels: Record<string, Kernel> = {
      slow: doubling(300),
      wrong: doubling(0, " + 1.0"),
      wrongAtTheEnd: doubling(0, ` + select(0.0, 1.0, at == ${LENGTH - 1}u)`),
      broken: doubling(0, " + nothing"),
      fast: doubling(10),
      slower: doubling(600),
    };
    const names = Object.keys(kernels);
    const variants = { key: "double", names, make: (name: string) => kernels[name] };
    const operands = [INPUT, OUTPUT];
    const dispatches: Dispatch[] = [{
      op: "test",
      kernel: { ...kernels.slow, variants },
      operands,
    }];
    const tuning = new Tuning(gpu, { ...UNLIMITED, timestamps });
    assert.equal(tuning.apply(dispatches)[0], dispatches[0]);
    await tuning.tune(dispatches);
    assert.deepEqual([...tuning.choices], [["double", "fast"]]);
    assert.deepEqual(tuning.apply(dispatches), [{ op: "test", kernel: kernels.fast, operands }]);
    // The broken one has left no error behind.
    await gpu.settle();
  });
}

Deno.test("a second device takes over what the first one found", () =>
  withFolder(async (folder) => {
    const path = join(folder, "deeper", "tuning.json");
    using one = await openAsGpu();
    const dispatches = layer(one.capabilities);
    const products = dispatches.filter(({ kernel }) => kernel.variants);
    assert.equal(products.length, 3);
    const first = new Tuning(one, { path, budgetMs: Infinity });
    const made = countPipelines(one);
    await first.tune(dispatches);
    assert.equal(made(), 6);
    assert.equal(first.choices.size, 3);
    for (const { kernel: { variants } } of products) {
      assert(variants!.names.includes(first.choices.get(variants!.key)!));
    }
    using two = await openAsGpu();
    const second = new Tuning(two, { path, budgetMs: Infinity });
    const madeAgain = countPipelines(two);
    await second.tune(dispatches);
    assert.equal(madeAgain(), 0);
    assert.deepEqual(second.choices, first.choices);
    assert.deepEqual([...Deno.readDirSync(join(folder, "deeper"))].map((e) => e.name), [
      "tuning.json",
    ]);
  }));

Deno.test("a file that cannot be read or written does no harm", () =>
  withFolder(async (folder) => {
    using gpu = await openAsGpu();
    const dispatches = layer(gpu.capabilities);
    const path = join(folder, "tuning.json");
    const tune = async (path: string) => {
      const tuning = new Tuning(gpu, { path, budgetMs: Infinity });
      await tuning.tune(dispatches);
      assert.equal(tuning.choices.size, 3);
      return tuning;
    };
    const adapter = tuningKey(gpu);
    const damaged = ['{"cut', "[1]", "null", JSON.stringify({ [adapter]: [1] })];
    for (const text of [...damaged, JSON.stringify({ [adapter]: { key: 5 } })]) {
      Deno.writeTextFileSync(path, text);
      const { choices } = await tune(path);
      assert.deepEqual(readChoices(path, adapter), new Map(choices), text);
    }
    Deno.writeTextFileSync(join(folder, "file"), "");
    await tune(join(folder, "file", "tuning.json"));
    assert.deepEqual(readChoices(folder, adapter), new Map());
  }));

Deno.test("choices of other adapters and unknown variants are kept, and not taken", () =>
  withFolder(async (folder) => {
    const path = join(folder, "tuning.json");
    using gpu = await openAsGpu();
    const dispatches = layer(gpu.capabilities);
    const { key } = dispatches.find(({ kernel }) => kernel.variants)!.kernel.variants!;
    writeChoices(path, "another", new Map([[key, "its tile"]]));
    const tuning = new Tuning(gpu, { path, budgetMs: Infinity });
    await tuning.tune(dispatches);
    assert.deepEqual(readChoices(path, "another"), new Map([[key, "its tile"]]));
    const adapter = tuningKey(gpu);
    writeChoices(path, adapter, new Map([[key, "its tile"]]));
    assert.equal(readChoices(path, adapter).size, 3);
    const next = new Tuning(gpu, { path });
    assert.equal(next.choices.get(key), "its tile");
    const at = dispatches.findIndex(({ kernel }) => kernel.variants?.key === key);
    assert.equal(next.apply(dispatches)[at], dispatches[at]);
  }));

Deno.test("without a budget, and on software adapters, nothing is tried", async () => {
  using gpu = await openAsGpu();
  const tuning = new Tuning(gpu, { path: null, budgetMs: 0 });
  const made = countPipelines(gpu);
  const dispatches = layer(gpu.capabilities);
  await tuning.tune(dispatches);
  assert.equal(tuning.choices.size, 0);
  assert.deepEqual(tuning.apply(dispatches), dispatches);
  const software = layer({ ...gpu.capabilities, software: true });
  assert(software.every(({ kernel }) => !kernel.variants));
  await new Tuning(gpu, UNLIMITED).tune(software);
  assert.equal(made(), 0);
});

Deno.test({
  name: "without permissions there is no file, and no question",
  permissions: { env: false, read: false, write: false },
  fn() {
    assert.equal(tuningPath(), null);
    assert.deepEqual(readChoices("/tuning.json", "adapter"), new Map());
    writeChoices("/tuning.json", "adapter", new Map([["key", "name"]]));
  },
});

/** A model of two products, on the vocabulary of the peers' workload. */
const loss: LossFunction = (p, { tokens, targets, inverseCount }) => {
  const logits = linear(linear(embedding(tokens, p("table")), p("w1")), p("w2"));
  const { loss } = crossEntropy(logits, targets, inverseCount);
  return { losses: [{ tensor: loss, weight: 1 }], metrics: { loss }, logits };
};

const parameters: ParameterSpec[] = [
  { name: "table", rows: peer.vocabSize, cols: 48 },
  { name: "w1", rows: 80, cols: 48 },
  { name: "w2", rows: peer.vocabSize, cols: 80 },
].map((p) => ({ ...p, shape: [p.rows, p.cols], group: "backbone", decay: false }));

/** Three steps of training from `initial`, and the code of all kernels that were used. */
async function train(
  initial: ReadonlyMap<string, Float32Array>,
  autotune: boolean,
): Promise<{ state: EngineState; codes: Set<string>; variants: KernelVariants[] }> {
  using gpu = await openAsGpu();
  const kernels: Kernel[] = [];
  const make = gpu.pipeline.bind(gpu);
  gpu.pipeline = (kernel) => {
    kernels.push(kernel);
    return make(kernel);
  };
  const { batchSize, seqLen } = peer;
  const options = { parameters, initial, loss, batchSize, seqLen, autotune };
  using engine = await WebGpuEngine.open(gpu, options);
  peer.batches(3).forEach((batch, i) => engine.step([batch], peer.hyper(i + 1)));
  return {
    state: await engine.exportState(),
    codes: new Set(kernels.map(({ code }) => code)),
    variants: kernels.flatMap(({ variants }) => variants ?? []),
  };
}

Deno.test("training gives the same bits with any choice of variants", () =>
  withFolder(async (folder) => {
    const before = Deno.env.get("XDG_CACHE_HOME");
    Deno.env.set("XDG_CACHE_HOME", folder);
    try {
      const path = tuningPath()!;
      assert.equal(path, join(folder, "latentk", "tuning.json"));
      const initial = new Map(
        parameters.map(({ name, rows, cols }) => [
          name,
          Float32Array.from({ length: rows * cols }, () => Math.random() - 0.5),
        ]),
      );
      const untuned = await train(initial, false);
      assert.throws(() => Deno.statSync(path), Deno.errors.NotFound);
      assert.deepEqual((await train(initial, true)).state, untuned.state);
      const last = untuned.variants.filter(({ names }) => names.length > 1)
        .map(({ key, names }): [string, string] => [key, names.at(-1)!]);
      assert(last.length >= 3);
      writeChoices(path, tuningKey(await testGpu()), new Map(last));
      const forced = await train(initial, true);
      assert(!forced.codes.isSubsetOf(untuned.codes), "other tiles were not used");
      assert.deepEqual(forced.state, untuned.state);
    } finally {
      if (before === undefined) Deno.env.delete("XDG_CACHE_HOME");
      else Deno.env.set("XDG_CACHE_HOME", before);
    }
  }));
