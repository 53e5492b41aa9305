/**
 * Opens a WebGPU device with all its adapter offers, and keeps the pipelines made on it.
 *
 * @module
 */
import { GpuError } from "../../errors.ts";
import type { Kernel } from "../../kernels/wgsl/kernel.ts";
import type { Capabilities } from "../../kernels/wgsl/device.ts";

/** WGSL extensions that Deno grants without listing them; each is probed. */
const UNLISTED = ["subgroups"] as const;

/** Everything that a device may report. */
const ERRORS = ["validation", "internal", "out-of-memory"] as const;

/** An open device. Dispose of it with `using` or {@linkcode Gpu.destroy}. */
export class Gpu {
  /** The open device itself. */
  readonly device: GPUDevice;
  /** What kernels are chosen by: limits, subgroups, whether the adapter is software. */
  readonly capabilities: Capabilities;
  /** The adapter's own name, e.g. `llvmpipe (LLVM 15.0.6, 256 bits)`. */
  readonly name: string;
  /** Optional features that were granted. */
  readonly features: readonly string[];
  readonly #pipelines = new Map<string, GPUComputePipeline>();
  readonly #layouts = new Map<string, GPUBindGroupLayout>();
  #error: GpuError | null = null;
  #destroyed = false;

  private constructor(adapter: GPUAdapter, device: GPUDevice, features: string[]) {
    const info = adapter.info;
    this.device = device;
    this.features = features;
    this.name = info.description || info.device || info.vendor || "unknown adapter";
    const limits = device.limits;
    this.capabilities = {
      software: /llvmpipe|lavapipe|swiftshader/i.test(`${info.description} ${info.device}`) ||
        info.isFallbackAdapter === true,
      maxBindingBytes: Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize),
      workgroupBytes: limits.maxComputeWorkgroupStorageSize,
      maxInvocations: limits.maxComputeInvocationsPerWorkgroup,
      subgroups: features.includes("subgroups")
        ? { min: info.subgroupMinSize ?? 4, max: info.subgroupMaxSize ?? 128 }
        : null,
    };
    this.#pushScopes();
    device.lost.then((lost) => {
      if (!this.#destroyed) this.#error ??= new GpuError(`GPU device lost: ${lost.message}`);
    });
  }

  /**
   * Opens the best adapter, or returns null where there is none.
   *
   * @example
   * ```ts
   * import { Gpu } from "./device.ts";
   *
   * using gpu = await Gpu.open();
   * console.log(gpu?.name ?? "no adapter");
   * ```
   */
  static async open(): Promise<Gpu | null> {
    prepareLinux();
    const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
    if (!adapter) return null;
    const requiredLimits = limitsOf(adapter);
    const optional: GPUFeatureName[] = ["timestamp-query", "shader-f16"];
    const listed: string[] = optional.filter((f) => adapter.features.has(f));
    for (const features of [[...listed, ...UNLISTED], listed]) {
      try {
        const device = await adapter.requestDevice({
          requiredFeatures: features as GPUFeatureName[],
          requiredLimits,
        });
        return new Gpu(adapter, device, features);
      } catch (error) {
        if (features === listed) throw error;
      }
    }
    return null;
  }

  /** The device's limits, for records. */
  get limits(): Record<string, number> {
    return limitsOf(this.device);
  }

  /** Whether the pipeline of a kernel is there, or has to be compiled first. */
  hasPipeline({ code }: Kernel): boolean {
    return this.#pipelines.has(code);
  }

  /** The pipeline of a kernel; kernels with the same code share one. */
  pipeline(kernel: Kernel): GPUComputePipeline {
    const known = this.#pipelines.get(kernel.code);
    if (known) return known;
    const pipeline = this.#compile(kernel);
    this.#pipelines.set(kernel.code, pipeline);
    return pipeline;
  }

  /** Like {@linkcode Gpu.pipeline}, but null for a kernel that the device refuses. */
  async tryPipeline(kernel: Kernel): Promise<GPUComputePipeline | null> {
    const known = this.#pipelines.get(kernel.code);
    if (known) return known;
    this.#pushScopes();
    const pipeline = this.#compile(kernel);
    if (await this.#popScopes()) return null;
    this.#pipelines.set(kernel.code, pipeline);
    return pipeline;
  }

  #compile(kernel: Kernel): GPUComputePipeline {
    return this.device.createComputePipeline({
      label: kernel.label,
      layout: this.device.createPipelineLayout({ bindGroupLayouts: [this.layout(kernel)] }),
      compute: {
        module: this.device.createShaderModule({ label: kernel.label, code: kernel.code }),
      },
    });
  }

  /** The bind group layout of a kernel: its buffers, then its uniforms. */
  layout(kernel: Kernel): GPUBindGroupLayout {
    const key = kernel.access.join();
    const known = this.#layouts.get(key);
    if (known) return known;
    const types = kernel.access.map((a) => a === "read" ? "read-only-storage" : "storage" as const);
    const layout = this.device.createBindGroupLayout({
      label: key,
      entries: [...types, "uniform" as const].map((type, binding) => ({
        binding,
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type },
      })),
    });
    this.#layouts.set(key, layout);
    return layout;
  }

  /**
   * Throws the first error of all calls since the device was opened. What is read from the device
   * before this, and after what it is made of, is as it should be. It takes microseconds.
   *
   * @throws {GpuError} for good once there was one
   */
  async settle(): Promise<void> {
    // An event would tell of an error only some time after it.
    const popped = this.#popScopes();
    this.#pushScopes();
    const error = await popped;
    if (error) this.#error ??= new GpuError(`GPU error: ${error.message}`);
    if (this.#error) throw this.#error;
  }

  /** The error of a device that does not do what it was asked to: its loss, if it is lost. */
  async failure(reason: string): Promise<GpuError> {
    // The loss is told in another turn of the event loop.
    await new Promise((resolve) => setTimeout(resolve));
    return this.#error ??= new GpuError(`GPU error: ${reason}`);
  }

  #pushScopes(): void {
    for (const filter of ERRORS) this.device.pushErrorScope(filter);
  }

  /** The first error of each kind since the scopes were pushed, or null. */
  async #popScopes(): Promise<GPUError | null> {
    const errors = await Promise.all(ERRORS.map(() => this.device.popErrorScope()));
    return errors.find((error) => error !== null) ?? null;
  }

  /** Frees the device; errors after this are not reported. */
  destroy(): void {
    this.#destroyed = true;
    this.device.destroy();
  }

  /** Like {@linkcode Gpu.destroy}. */
  [Symbol.dispose](): void {
    this.destroy();
  }
}

/** What drivers read from the environment, where the user has not set it. */
const DRIVER_SETTINGS: Readonly<Record<string, string>> = {
  // Without it Deno falls back to OpenGL, where kernels take minutes or hang.
  DENO_WEBGPU_BACKEND: "vulkan",
  // Mesa's drivers complain on stderr without this folder; they need none to compute.
  XDG_RUNTIME_DIR: "/tmp",
  // NVIDIA's driver keeps compiled kernels between processes; for root only if it is told to.
  __GL_SHADER_DISK_CACHE: "1",
};

function prepareLinux(): void {
  const mayAsk = Deno.permissions.querySync({ name: "env" }).state === "granted";
  if (Deno.build.os !== "linux" || !mayAsk) return;
  for (const [name, value] of Object.entries(DRIVER_SETTINGS)) {
    if (!Deno.env.get(name)) Deno.env.set(name, value);
  }
}

function limitsOf({ limits }: GPUAdapter | GPUDevice): Record<string, number> {
  const out: Record<string, number> = {};
  for (const key in limits) {
    const value = limits[key as keyof GPUSupportedLimits];
    if (typeof value === "number") out[key] = value;
  }
  return out;
}
