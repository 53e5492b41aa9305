/**
 * Memory of this machine.
 *
 * @module
 */

/** What a container may use; in files, so that no library is needed. */
const GROUP = { limit: "/sys/fs/cgroup/memory.max", used: "/sys/fs/cgroup/memory.current" };

/** Bytes that are free for this process; Infinity where that cannot be asked. */
export function freeMemory(): number {
  try {
    const group = readNumber(GROUP.limit) - readNumber(GROUP.used);
    const { available } = Deno.systemMemoryInfo();
    return Number.isFinite(group) ? Math.min(available, group) : available;
  } catch {
    return Infinity;
  }
}

/** NaN where there is no such file, or it has no number in it (`max`). */
function readNumber(path: string): number {
  try {
    return parseInt(Deno.readTextFileSync(path));
  } catch {
    return NaN;
  }
}
