/**
 * Checks of the adapter that are not of one op: reading back, long loops, compiling, and whether
 * the same training gives the same bits.
 *
 * @module
 */
import { benchConfig, openBenchModel } from "../bench/step.ts";
import type { EngineState } from "../engine.ts";
import { makeKernel } from "../kernels/wgsl/kernel.ts";
import { write } from "../kernels/wgsl/operand.ts";
import { WebGpuEngine } from "../webgpu/engine/engine.ts";
import type { Gpu } from "../webgpu/device/device.ts";
import { createStorageBuffer } from "../webgpu/plan/plan.ts";
import { countRounds, OUTPUT_WORD, runAlone } from "../webgpu/plan/self_test.ts";
import { ReadBack } from "../webgpu/device/read_back.ts";
import type { Random } from "./cases/random.ts";

/** What came of a check of the adapter. */
export interface DeviceReport {
  readonly name: string;
  readonly ok: boolean;
  /** What was seen, in words. */
  readonly note: string;
}

/** A check of the adapter. */
type DeviceCheck = (gpu: Gpu, random: Random) => Promise<Omit<DeviceReport, "name">>;

const checks: Readonly<Record<string, DeviceCheck>> = {
  "read back": checkReadBack,
  "long loops": checkLongLoops,
  "pipelines": checkPipelines,
  "same bits twice": checkDeterminism,
};

/** Runs all of them; what throws has failed. */
export async function checkDevice(gpu: Gpu, random: Random): Promise<DeviceReport[]> {
  const reports: DeviceReport[] = [];
  for (const [name, check] of Object.entries(checks)) {
    try {
      reports.push({ name, ...await check(gpu, random) });
    } catch (error) {
      const note = error instanceof Error ? error.message.split("\n")[0] : String(error);
      reports.push({ name, ok: false, note });
    }
  }
  return reports;
}

/** What is written has to come back, bit by bit, from any place. */
async function checkReadBack(gpu: Gpu, random: Random): ReturnType<DeviceCheck> {
  const words = random.below(2 ** 18, 2 ** 32);
  const buffer = createStorageBuffer(gpu, "read back", words.length);
  const reader = new ReadBack(gpu, words.byteLength);
  let wrong = 0;
  try {
    gpu.device.queue.writeBuffer(buffer, 0, words as Int32Array<ArrayBuffer>);
    for (const first of [0, 1, 4099]) {
      const bytes = await reader.read(buffer, 4 * first, 4 * (words.length - first));
      new Int32Array(bytes).forEach((word, i) => wrong += Number(word !== words[first + i]));
    }
  } finally {
    reader.destroy();
    buffer.destroy();
  }
  return { ok: wrong === 0, note: wrong ? `${wrong} words differ` : "3 x 1 MiB, equal" };
}

/** Rounds of all loops of an invocation together after which llvmpipe ends them, without an error. */
export const LLVMPIPE_ROUNDS = 65_535;

/**
 * How far one invocation's loops go. That some drivers end them is known, and no kernel here loops
 * as far; a driver that ends them earlier would give wrong numbers.
 */
async function checkLongLoops(gpu: Gpu): ReturnType<DeviceCheck> {
  const [outer, inner] = [70, 1000];
  return judgeLoops(await countRounds(gpu, outer, inner), outer * inner);
}

/** What it means that loops of `asked` rounds have gone through `counted`. */
export function judgeLoops(counted: number, asked: number): Omit<DeviceReport, "name"> {
  if (counted === asked) return { ok: true, note: `${asked} rounds of an invocation, all run` };
  // The rounds of the outer loop count too, so fewer of the inner one are run.
  const isKnown = counted > 0.99 * LLVMPIPE_ROUNDS && counted <= LLVMPIPE_ROUNDS;
  const seen = `loops of an invocation end after about ${counted} of ${asked} rounds`;
  return isKnown
    ? { ok: true, note: `known limit: ${seen}, as in llvmpipe; no kernel here may loop as far` }
    : { ok: false, note: seen };
}

/** How long a kernel takes that no cache has seen, and the same one again. */
async function checkPipelines(gpu: Gpu, random: Random): ReturnType<DeviceCheck> {
  const [rounds] = random.below(1, 2 ** 30);
  const kernel = makeKernel({
    name: "compiled_anew",
    shape: "1",
    operands: { x: write(OUTPUT_WORD, "u32") },
    uniforms: { n: 100 },
    workgroup: 64,
    grid: [1, 1, 1],
    iterations: 100,
    declarations: "var<workgroup> shared_words: array<u32, 64>;",
    body: `
  shared_words[lane] = lane * ${rounds}u;
  workgroupBarrier();
  var sum = 0u;
  for (var i = 0u; i < u.n; i++) { sum += shared_words[(lane + i) % 64u]; }
  if (lane == 0u) { x[0] = sum; }`,
  });
  const [first, second] = [await runAlone(gpu, kernel), await runAlone(gpu, kernel)];
  let want = 0;
  for (let i = 0; i < 100; i++) want = (want + Math.imul(i % 64, rounds)) >>> 0;
  const ok = first.word === want && second.word === want;
  const times = `a new kernel after ${first.ms.toFixed(1)} ms, again ${second.ms.toFixed(1)} ms`;
  return { ok, note: ok ? times : `${times}, but ${first.word} for ${want}` };
}

/** Three steps of a small model with an indexer, twice: losses, weights and moments bit by bit. */
async function checkDeterminism(gpu: Gpu): ReturnType<DeviceCheck> {
  const config = benchConfig("nano", ["numHiddenLayers=1", "batchSize=2", "autotune=false"]);
  const train = async () => {
    using model = await openBenchModel(
      { gpu, open: (options) => WebGpuEngine.open(gpu, options), [Symbol.dispose]() {} },
      config,
      "sparse",
    );
    for (let i = 0; i < 3; i++) model.step();
    const metrics = await model.engine.metrics();
    return { metrics, state: await model.engine.exportState() };
  };
  const [one, two] = [await train(), await train()];
  const losses = one.metrics.map(({ loss }) => loss);
  if (!losses.every(Number.isFinite)) return { ok: false, note: `losses ${losses.join(", ")}` };
  const different = differentTensors(one.state, two.state);
  const ok = different.length === 0 && JSON.stringify(one.metrics) === JSON.stringify(two.metrics);
  return {
    ok,
    note: ok
      ? `3 steps of preset=nano, equal; loss ${losses.map((x) => x.toFixed(4)).join(", ")}`
      : `3 steps of preset=nano differ in ${different.join(", ") || "their metrics"}`,
  };
}

function differentTensors(a: EngineState, b: EngineState): string[] {
  return (["parameters", "m", "v"] as const).flatMap((part) =>
    [...a[part]].filter(([name, values]) => {
      const others = b[part].get(name)!;
      return !values.every((x, i) => Object.is(x, others[i]));
    }).map(([name]) => part === "parameters" ? name : `${part} of ${name}`)
  );
}
