/**
 * From a configuration to a model on a device.
 *
 * @module
 */
import type { RunConfig } from "./config.ts";
import type { Engine, EngineOptions } from "./engine.ts";
import { UserError } from "./errors.ts";
import { Gpu } from "./webgpu/device.ts";
import { WebGpuEngine } from "./webgpu/engine.ts";
import { formatBytes, MemoryError } from "./webgpu/plan.ts";

/** An engine with what it runs on. */
export interface OpenedEngine extends Disposable {
  /** The model on its device. */
  readonly engine: Engine;
  /** Null on the CPU. */
  readonly gpu: Gpu | null;
}

/** How to get an adapter, for those who have none. */
const WITHOUT_ADAPTER = "no WebGPU adapter (a Vulkan driver gives one; in software: " +
  "apt-get install mesa-vulkan-drivers)";

/**
 * Opens the device that `config.device` asks for and puts a model on it. `auto` takes WebGPU where
 * there is an adapter, and else says how to get one and goes on on the CPU.
 *
 * @throws {UserError} if there is no adapter for `webgpu`, or the model does not fit the adapter
 */
export async function openEngine(
  config: RunConfig,
  options: EngineOptions & { note?: (line: string) => void },
): Promise<OpenedEngine> {
  const gpu = config.device === "cpu" ? null : await Gpu.open();
  if (gpu) {
    try {
      const engine = await WebGpuEngine.open(gpu, options);
      return {
        engine,
        gpu,
        [Symbol.dispose]() {
          engine[Symbol.dispose]();
          gpu.destroy();
        },
      };
    } catch (error) {
      throw asUserError(error, config, gpu);
    }
  }
  if (config.device === "webgpu") {
    throw new UserError(`Cannot use device=webgpu: ${WITHOUT_ADAPTER}; or use device=cpu`);
  }
  if (config.device === "auto") options.note?.(`${WITHOUT_ADAPTER}: going on on the CPU`);
  const { TfjsBackend, TfjsEngine } = await importTfjs();
  const engine = new TfjsEngine(await TfjsBackend.open("wasm"), options);
  return { engine, gpu: null, [Symbol.dispose]: () => engine[Symbol.dispose]() };
}

/**
 * Only now, and by names that Deno does not see in advance: the WebGPU path must not ask for an
 * npm package, not even when the program starts.
 */
async function importTfjs(): Promise<
  typeof import("./tfjs/backend.ts") & typeof import("./tfjs/engine.ts")
> {
  const [backend, engine] = await Promise.all(
    ["backend", "engine"].map((name) => import(new URL(`./tfjs/${name}.ts`, import.meta.url).href)),
  );
  return { ...backend, ...engine };
}

function asUserError(error: unknown, config: RunConfig, gpu: Gpu): unknown {
  const message = error instanceof Error ? error.message : String(error);
  const isMemory = error instanceof MemoryError || /out of memory|not enough memory/i.test(message);
  if (!isMemory) return error;
  const limits = `${gpu.name}: buffers up to ${formatBytes(gpu.device.limits.maxBufferSize)}, ` +
    `bindings up to ${formatBytes(gpu.capabilities.maxBindingBytes)}`;
  return new UserError(
    `Cannot fit this model on the adapter: ${message.replace(/^GPU error: /, "").trim()} ` +
      `(${limits}); lower batchSize (${config.batchSize}) or seqLen (${config.seqLen})`,
  );
}
