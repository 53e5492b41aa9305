/** Sizes are refused before anything is allocated: one line with what, how much and what to lower. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { planRuns } from "../src/ablate/plan.ts";
import { resolveConfig } from "../src/config/config.ts";
import { requireRoom, type Room } from "../src/costs/room.ts";
import { stageSpans } from "../src/config/stages.ts";
import { MemoryError } from "../src/errors.ts";
import { makeKernel } from "../src/kernels/wgsl/kernel.ts";
import { loadModel } from "../src/runs/load_model.ts";
import { TfjsBackend } from "../src/tfjs/backend.ts";
import { TfjsEngine } from "../src/tfjs/engine.ts";
import { requirePlans } from "../src/train/rehearsal.ts";
import type { Gpu } from "../src/webgpu/device/device.ts";
import { EVAL, SMALL } from "./eval_run.ts";
import { CLI, run, trainIn } from "./train_run.ts";
import { refuses, userError } from "./user_error.ts";

const GIB = 2 ** 30;
/** A machine with a large GPU. */
const LARGE: Room = { host: 500 * GIB, heap: 4 * GIB, device: "gpu", buffer: 80 * GIB };
const CPU: Room = { ...LARGE, device: "cpu", buffer: Infinity };
const SOFTWARE: Room = { ...LARGE, host: 20 * GIB, device: "softwareGpu", buffer: 2 * GIB };

Deno.test("what needs more than there is names the need, both sizes and the keys", () => {
  const cases: [string, Room, RegExp][] = [
    [
      "hiddenSize=1e9",
      LARGE,
      /parameters.* TiB.*machine has free 500 GiB; lower .*hiddenSize \(1e?0+/,
    ],
    ["intermediateSize=1e9", LARGE, /parameters.*lower intermediateSize \(1000000000\)/],
    ["vocabSize=2e9", LARGE, /parameters.*lower vocabSize \(2000000000\)/],
    ["numAttentionHeads=1e8", LARGE, /parameters.*lower numAttentionHeads/],
    ["indexNHeads=1e8", LARGE, /parameters.*lower indexNHeads/],
    ["accumulate=1e9", LARGE, /the batches of a step.*lower accumulate \(1000000000\)/],
    ["evalBatches=1e9", LARGE, /batches of an evaluation.*lower evalBatches/],
    ["batchSize=2147483647", LARGE, /lower batchSize \(2147483647\) or seqLen \(128\)/],
    ["numHiddenLayers=10000", { ...LARGE, heap: GIB / 2 }, /plans of all layers.*numHiddenLayers/],
    ["batchSize=1048576", SOFTWARE, /activations.*lower batchSize/],
    ["batchSize=65536", { ...SOFTWARE, host: 100 * GIB }, /one buffer of the adapter holds 2 GiB/],
    ["seqLen=20000", CPU, /attention's scores.*\(wasm\) can address 4 GiB; lower seqLen \(20000\)/],
    ["hiddenSize=200000", { ...CPU, host: 2 * GIB }, /parameters.*machine has free 2 GiB/],
    ["batchSize=131072", CPU, /lower batchSize|attention's scores.*batchSize \(131072\)/],
  ];
  for (const [word, room, message] of cases) {
    const config = resolveConfig({ data: "copy" }, [word]);
    assert.match(userError(() => requireRoom(config, "train", room)), message, word);
  }
});

Deno.test("every preset has room on a usual GPU, evaluation needs less than training", () => {
  for (const preset of ["nano", "tiny", "small", "base", "long"] as const) {
    const room = { ...LARGE, host: 16 * GIB, buffer: 4 * GIB };
    requireRoom(resolveConfig({ preset }), "train", room);
    requireRoom(resolveConfig({ preset }), "evaluate", { ...room, host: GIB });
  }
  const nano = resolveConfig({});
  for (const room of [CPU, SOFTWARE]) requireRoom(nano, "train", { ...room, host: GIB });
  const wide = resolveConfig({ hiddenSize: 40_000 });
  requireRoom(wide, "evaluate", { ...LARGE, host: GIB });
  assert.throws(() => requireRoom(wide, "train", { ...LARGE, host: GIB }));
});

Deno.test("keys have their largest values, in configurations and in what folders claim", () => {
  const cases: [string, RegExp][] = [
    ["seqLen=65537", /seqLen=65537: expected a whole number from 2 to 65536/],
    ["numHiddenLayers=1e9", /numHiddenLayers=1000000000: .* to 10000/],
    // What follows from a key, too.
    ["qkNopeHeadDim=2147483647", /headDim=2147483655: .* to 2147483647/],
    ["numAttentionHeads=2147483647 attention=gqa headDim=2 numKeyValueHeads=7", /must divide/],
  ];
  for (const [words, message] of cases) {
    assert.match(userError(() => resolveConfig({}, words.split(" "))), message);
  }
});

Deno.test("a later stage that cannot run is refused before the first", () => {
  const capabilities = {
    ...{ software: false, maxBindingBytes: 2 ** 31, workgroupBytes: 2 ** 15 },
    ...{ maxInvocations: 256, subgroups: null },
  };
  const gpu = { name: "a GPU", capabilities, limits: { maxBufferSize: 2 ** 32 } };
  const device = { gpu: { ...gpu, device: { limits: gpu.limits } } as unknown as Gpu };
  const sizes = ["hiddenSize=8", "intermediateSize=8", "numHiddenLayers=1", "seqLen=4"];
  const plans = (word: string) => {
    const config = resolveConfig({ data: "copy" }, [...sizes, word]);
    return stageSpans(config.stages).map((span) => () => requirePlans(device, config, [span]));
  };
  for (const plan of plans("batchSize=60000")) plan();
  const [dense, warmup, sparse] = plans("batchSize=70000");
  dense();
  const message =
    /Cannot run index_scores\S* \S+: it needs 1 x 1 x 70000 workgroups.*lower batchSize/;
  assert.match(userError(warmup), message);
  assert.match(userError(sparse), message);
  // A buffer that is too large, too, whatever holds it.
  device.gpu.limits.maxBufferSize = 2 ** 20;
  assert.match(userError(plans("batchSize=60000")[0]), /needs \d.* one buffer holds 1 MiB/);
});

Deno.test("a wasm module without memory ends in one line, and can be disposed of", async () => {
  const spec = { name: "w", shape: [1], rows: 1, cols: 1, group: "backbone", decay: true };
  for (
    const [name, message] of [["RuntimeError", "Aborted()"], ["RangeError", "Invalid array length"]]
  ) {
    const engine = new TfjsEngine(await TfjsBackend.open("wasm"), {
      ...{ parameters: [spec], initial: new Map([["w", new Float32Array(1)]]) },
      ...{ batchSize: 1, seqLen: 2 },
      loss: () => {
        throw Object.assign(new Error(message), { name });
      },
    });
    const batch = { tokens: new Int32Array(2), targets: new Int32Array(2), count: 2 };
    assert.throws(() => engine.evaluate(batch), MemoryError);
    engine[Symbol.dispose]();
  }
});

Deno.test("a grid that WebGPU does not allow is refused where the kernel is made", () => {
  const grid = [1, 65_536, 1] as const;
  const kernel = {
    name: "k",
    shape: "s",
    operands: {},
    uniforms: {},
    workgroup: 1,
  } as const;
  assert.throws(
    () => makeKernel({ ...kernel, grid, body: "" }),
    /k s: it needs 1 x 65536 x 1 work/,
  );
});

Deno.test("a million variants are refused before one is made", () => {
  const many = Array.from({ length: 1000 }, (_, i) => i + 1);
  const axes = { indexTopk: many, kvLoraRank: many, seqLen: many };
  const message = userError(() => planRuns({ question: "?", config: {}, axes, seeds: [0, 1] }));
  assert.match(
    message,
    /2000000000 runs \(indexTopk 1000 x kvLoraRank 1000 x seqLen 1000 x seeds 2\)/,
  );
  const seeds = Array.from({ length: 1e6 }, (_, i) => i);
  assert.match(userError(() => planRuns({ question: "?", config: {}, seeds })), /1000000 runs/);
});

Deno.test("folders that claim sizes, and commands that ask for them", async () => {
  const cwd = await Deno.makeTempDir();
  try {
    const folder = await trainIn(
      cwd,
      ...SMALL.filter((word) => !word.startsWith("steps=")),
      ...["recipe=dense", "steps=1", "data=copy", "name=small"],
    );
    const state = join(folder, "checkpoints/step_000001/state.json");
    const saved = JSON.parse(await Deno.readTextFile(state));
    // Without checksums, as older versions wrote it: whatever it claims is looked at.
    for (const [key, value] of [["numHiddenLayers", 1e9], ["hiddenSize", 1e9]] as const) {
      const config = { ...saved.config, [key]: value };
      await Deno.writeTextFile(state, JSON.stringify({ ...saved, version: 2, config }));
      await refuses(
        () => loadModel(join(state, "..")),
        /numHiddenLayers=1000000000|the model needs/,
      );
    }
    await Deno.writeTextFile(state, JSON.stringify({ ...saved, version: 2 }));
    const commands: [string, string[], RegExp][] = [
      [EVAL, ["runs/small", "batchSize=100000000"], /lower .*batchSize \(100000000\)/],
      [CLI, ["data=copy", "hiddenSize=1e9", "name=none"], /lower .*hiddenSize \(1000000000\)/],
    ];
    for (const [script, args, message] of commands) {
      const { code, stderr } = await run(script, args, cwd);
      assert.equal(code, 2, stderr);
      assert.match(stderr.trim(), /^error: [^\n]*$/);
      assert.match(stderr, message);
    }
    assert.deepEqual([...Deno.readDirSync(join(cwd, "runs"))].map(({ name }) => name), ["small"]);
  } finally {
    await Deno.remove(cwd, { recursive: true });
  }
});
