/**
 * The file that keeps, for each kind of adapter, which variants of kernels are the fastest there.
 * It saves time and nothing else: what cannot be read is measured again, what cannot be written is
 * forgotten, and nobody hears of it.
 *
 * @module
 */
import { dirname, isAbsolute, join } from "node:path";

/** Names of variants by the key of what they compute. */
export type Choices = Map<string, string>;

/**
 * `latentk/tuning.json` where the system keeps caches, or null where that cannot be found out
 * without asking the user.
 */
export function tuningPath(): string | null {
  const [home, cache] = {
    windows: ["USERPROFILE", "AppData/Local"],
    darwin: ["HOME", "Library/Caches"],
  }[Deno.build.os as string] ?? ["HOME", ".cache"];
  const chosen = environment("XDG_CACHE_HOME");
  if (chosen && isAbsolute(chosen)) return join(chosen, "latentk", "tuning.json");
  const folder = environment(home);
  return folder ? join(folder, cache, "latentk", "tuning.json") : null;
}

/** What the file has for an adapter. */
export function readChoices(path: string, adapter: string): Choices {
  const choices = readFile(path)[adapter];
  return new Map(
    isRecord(choices)
      ? Object.entries(choices).filter((e): e is [string, string] => typeof e[1] === "string")
      : [],
  );
}

/** Adds to what the file has for an adapter, be it from this process or another. */
export function writeChoices(path: string, adapter: string, choices: Choices): void {
  if (!isGranted({ name: "write", path: dirname(path) })) return;
  const partial = `${path}.${Deno.pid}.partial`;
  try {
    const all = readFile(path);
    const merged = new Map([...readChoices(path, adapter), ...choices]);
    all[adapter] = Object.fromEntries([...merged].sort());
    Deno.mkdirSync(dirname(path), { recursive: true });
    Deno.writeTextFileSync(partial, JSON.stringify(all, null, 2) + "\n");
    Deno.renameSync(partial, path);
  } catch {
    // A full or read-only disk.
  }
}

function readFile(path: string): Record<string, unknown> {
  if (!isGranted({ name: "read", path })) return {};
  try {
    const content: unknown = JSON.parse(Deno.readTextFileSync(path));
    return isRecord(content) ? content : {};
  } catch {
    return {};
  }
}

function environment(variable: string): string | undefined {
  return isGranted({ name: "env", variable }) ? Deno.env.get(variable) : undefined;
}

/** Whether Deno grants something by itself: a cache is no reason to ask. */
function isGranted(permission: Deno.PermissionDescriptor): boolean {
  return Deno.permissions.querySync(permission).state === "granted";
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
