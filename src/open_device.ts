/**
 * From a configuration to the device that it asks for.
 *
 * @module
 */
import type { RunConfig } from "./config/config.ts";
import type { Engine, EngineOptions } from "./engine.ts";
import { UserError } from "./errors.ts";
import { within } from "./files/patience.ts";
import { Gpu } from "./webgpu/device/device.ts";
import { WebGpuEngine } from "./webgpu/engine/engine.ts";
import { type Rehearsal, rehearse } from "./webgpu/engine/rehearsal.ts";
import { requireLongLoops } from "./webgpu/plan/self_test.ts";
import { formatBytes } from "./text/units.ts";

/** A device on which engines can be opened, one after the other. */
export interface Device extends Disposable {
  /** Null on the CPU. */
  readonly gpu: Gpu | null;
  /**
   * Puts a model on the device.
   *
   * @throws {UserError} if it does not fit: the bytes, the limit and what to lower
   */
  open(options: EngineOptions): Promise<Engine>;
}

/**
 * Makes a plan that is to run later, to see that it can.
 *
 * @throws {UserError} if it does not fit on the device, as {@linkcode Device.open} says it
 */
export function requirePlan({ gpu }: Pick<Device, "gpu">, plan: Rehearsal): void {
  if (!gpu) return;
  try {
    rehearse(gpu, plan);
  } catch (error) {
    throw asUserError(error, plan, gpu);
  }
}

/** How to get an adapter, for those who have none. */
const WITHOUT_ADAPTER = "no WebGPU adapter (a Vulkan driver gives one; in software: " +
  "apt-get install mesa-vulkan-drivers)";

/**
 * Opens the device that `device` asks for. `auto` takes WebGPU where there is an adapter, and else
 * says how to get one and goes on on the CPU.
 *
 * @throws {UserError} if there is no adapter for `webgpu`, or its driver ends loops too early
 */
export async function openDevice(
  device: RunConfig["device"],
  options: { note?: (line: string) => void } = {},
): Promise<Device> {
  const gpu = device === "cpu" ? null : await Gpu.open();
  if (gpu) {
    await requireLongLoops(gpu);
    return {
      gpu,
      open: (engine) =>
        WebGpuEngine.open(gpu, engine).catch((error) => {
          throw asUserError(error, engine, gpu);
        }),
      [Symbol.dispose]: () => gpu.destroy(),
    };
  }
  if (device === "webgpu") {
    throw new UserError(`Cannot use device=webgpu: ${WITHOUT_ADAPTER}; or use device=cpu`);
  }
  if (device === "auto") options.note?.(`${WITHOUT_ADAPTER}: going on on the CPU`);
  const { TfjsBackend, TfjsEngine } = await importTfjs();
  const backend = await TfjsBackend.open("wasm");
  return {
    gpu: null,
    open: (engine) => Promise.resolve(new TfjsEngine(backend, engine)),
    [Symbol.dispose]: () => {},
  };
}

/** Seconds to wait for packages that have to be fetched. */
const FETCH_SECONDS = 60;

/**
 * Only now, and by names that Deno does not see in advance: the WebGPU path must not ask for an
 * npm package, not even when the program starts.
 */
async function importTfjs(): Promise<
  typeof import("./tfjs/backend.ts") & typeof import("./tfjs/engine.ts")
> {
  const names = ["backend", "engine"].map((n) => new URL(`./tfjs/${n}.ts`, import.meta.url).href);
  try {
    const [backend, engine] = await within(
      FETCH_SECONDS,
      () => Promise.all(names.map((name) => import(name))),
    );
    return { ...backend, ...engine };
  } catch (error) {
    const reason = (error instanceof Error ? error.message : String(error)).split("\n")[0];
    throw new UserError(
      `Cannot compute on the CPU without tfjs: ${reason}; run "deno install" with a network`,
    );
  }
}

function asUserError(
  error: unknown,
  { batchSize, seqLen }: Pick<EngineOptions, "batchSize" | "seqLen">,
  gpu: Gpu,
): unknown {
  const message = error instanceof Error ? error.message : String(error);
  // Plans are made of sizes alone: what is out of range in one is a size.
  const isSize = error instanceof RangeError || /out of memory|not enough memory/i.test(message);
  if (!isSize) return error;
  const limits = `${gpu.name}: buffers up to ${formatBytes(gpu.device.limits.maxBufferSize)}, ` +
    `bindings up to ${formatBytes(gpu.capabilities.maxBindingBytes)}`;
  return new UserError(
    `Cannot fit this model on the adapter: ${message.replace(/^GPU error: /, "").trim()} ` +
      `(${limits}); lower batchSize (${batchSize}) or seqLen (${seqLen})`,
  );
}
