/**
 * File systems that fail: one call, or all from one on, of those that write.
 *
 * @module
 */
import { type FileCall, watched } from "./file_calls.ts";

/** How a call fails, as Deno tells it. */
export const faults: Readonly<Record<string, () => Error>> = {
  ENOSPC: () => new Error("No space left on device (os error 28)"),
  EDQUOT: () => new Error("Disk quota exceeded (os error 122)"),
  EIO: () => new Error("Input/output error (os error 5)"),
  EROFS: () => new Error("Read-only file system (os error 30)"),
  EMFILE: () => new Error("Too many open files (os error 24)"),
  EACCES: () => new Deno.errors.PermissionDenied("Permission denied (os error 13)"),
};

/** A call that fails. */
export interface Fault {
  /** Which of the calls, from 0. */
  readonly at: number;
  readonly error: () => Error;
  /** Whether all later ones fail, too. */
  readonly stays: boolean;
}

/**
 * Does something on a file system that fails. Removing works: what clears up after a fault would
 * hide what it finds.
 *
 * @returns what the action threw, and how many calls there were
 */
export async function withFault(
  { at, error, stays }: Fault,
  action: () => Promise<void>,
): Promise<{ error: unknown; calls: number }> {
  let calls = 0;
  const before = ({ name }: FileCall) => {
    if (name === "remove") return null;
    const n = calls++;
    return (stays ? n >= at : n === at) ? error() : null;
  };
  try {
    await watched(before, action);
    return { error: null, calls };
  } catch (error) {
    return { error, calls };
  }
}
