/**
 * What a bug report has to say of the machine: found out without the network, and null where it
 * cannot be.
 *
 * @module
 */
import { statfsSync } from "node:fs";
import { join } from "node:path";
import { describeEnvironment } from "../runs/environment.ts";
import type { Gpu } from "../webgpu/device/device.ts";
import { readChoices, tuningPath } from "../webgpu/tuning/tuning_cache.ts";

/** A folder or file that saves time. */
export interface CacheFacts {
  readonly name: string;
  readonly path: string | null;
  /** Null where there is nothing yet. */
  readonly bytes: number | null;
  readonly note?: string;
}

/** Of the machine. */
export interface Facts {
  readonly environment: Readonly<Record<string, unknown>>;
  /** The driver in its own words, where the adapter's name does not say it. */
  readonly driver: string | null;
  readonly isSoftware: boolean | null;
  readonly disk: { readonly folder: string; readonly freeBytes: number | null };
  readonly memory: { readonly totalBytes: number; readonly availableBytes: number };
  readonly caches: readonly CacheFacts[];
}

/** Looks at the machine; `gpu` is null where there is no adapter. */
export function findFacts(gpu: Gpu | null, seed: number, argv: readonly string[]): Facts {
  const { total, available } = Deno.systemMemoryInfo();
  const folder = Deno.cwd();
  return {
    environment: describeEnvironment({
      backend: gpu ? "webgpu" : "none",
      adapter: gpu?.name ?? "no WebGPU adapter",
      features: gpu?.features,
      limits: gpu?.limits,
      seed,
      argv,
    }),
    driver: nvidiaDriver(),
    isSoftware: gpu && gpu.capabilities.software,
    disk: { folder, freeBytes: freeBytes(folder) },
    memory: { totalBytes: total, availableBytes: available },
    caches: [denoCache(), tuningCache(gpu), ...shaderCaches()],
  };
}

/** NVIDIA's kernel module, e.g. `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15 …`. */
function nvidiaDriver(): string | null {
  try {
    return Deno.readTextFileSync("/proc/driver/nvidia/version").split("\n")[0].trim();
  } catch {
    return null;
  }
}

function freeBytes(folder: string): number | null {
  try {
    const { bavail, bsize } = statfsSync(folder);
    return bavail * bsize;
  } catch {
    return null;
  }
}

function denoCache(): CacheFacts {
  let path: string | null = null;
  try {
    const { stdout } = new Deno.Command(Deno.execPath(), {
      ...{ args: ["info", "--json"], stdin: "null", stderr: "null" },
    }).outputSync();
    path = JSON.parse(new TextDecoder().decode(stdout)).denoDir;
  } catch {
    // Said as not known.
  }
  return { name: "deno", path, bytes: sizeOnDisk(path) };
}

function tuningCache(gpu: Gpu | null): CacheFacts {
  const path = tuningPath();
  const count = path && gpu ? readChoices(path, gpu.name).size : 0;
  return {
    ...{ name: "tuning", path, bytes: sizeOnDisk(path) },
    note: `${count} choices for this adapter`,
  };
}

/** Where drivers keep compiled kernels, as far as there is something. */
function shaderCaches(): CacheFacts[] {
  const home = Deno.env.get("HOME") ?? "";
  const cache = Deno.env.get("XDG_CACHE_HOME") || join(home, ".cache");
  const folders = [
    Deno.env.get("MESA_SHADER_CACHE_DIR"),
    join(cache, "mesa_shader_cache"),
    join(cache, "mesa_shader_cache_db"),
    Deno.env.get("__GL_SHADER_DISK_CACHE_PATH"),
    join(cache, "nvidia", "GLCache"),
    join(home, ".nv", "GLCache"),
  ];
  const found = folders.flatMap((path) => {
    const bytes = sizeOnDisk(path);
    return bytes === null ? [] : [{ name: "shader", path: path!, bytes }];
  });
  return found.length ? found : [{ name: "shader", path: null, bytes: null }];
}

/** Bytes of a file, or of all files in a folder; null where there is neither. */
function sizeOnDisk(path: string | null | undefined): number | null {
  if (!path) return null;
  try {
    const { isFile, size } = Deno.lstatSync(path);
    if (isFile) return size;
    let bytes = 0;
    for (const { name, isSymlink } of Deno.readDirSync(path)) {
      if (!isSymlink) bytes += sizeOnDisk(join(path, name)) ?? 0;
    }
    return bytes;
  } catch {
    return null;
  }
}
