/**
 * File systems that fail: one call, or all from one on, of those that write.
 *
 * @module
 */

/** How a call fails, as Deno tells it. */
export const faults: Readonly<Record<string, () => Error>> = {
  ENOSPC: () => new Error("No space left on device (os error 28)"),
  EDQUOT: () => new Error("Disk quota exceeded (os error 122)"),
  EIO: () => new Error("Input/output error (os error 5)"),
  EROFS: () => new Error("Read-only file system (os error 30)"),
  EMFILE: () => new Error("Too many open files (os error 24)"),
  EACCES: () => new Deno.errors.PermissionDenied("Permission denied (os error 13)"),
};

/** What may fail. Removing is left out: what clears up after a fault would hide what it finds. */
const calls = ["mkdir", "mkdirSync", "rename", "renameSync", "open", "openSync"] as const;
const textCalls = ["writeTextFileSync"] as const;
const fileCalls = ["write", "writeSync", "sync", "syncSync", "truncateSync"] as const;

/** A call that fails. */
export interface Fault {
  /** Which of the calls, from 0. */
  readonly at: number;
  readonly error: () => Error;
  /** Whether all later ones fail, too. */
  readonly stays: boolean;
}

/**
 * Does something on a file system that fails.
 *
 * @returns what the action threw, and how many calls there were
 */
export async function withFault(
  { at, error, stays }: Fault,
  action: () => Promise<void>,
): Promise<{ error: unknown; calls: number }> {
  let count = 0;
  const fails = () => {
    const n = count++;
    return stays ? n >= at : n === at;
  };
  const restore: (() => void)[] = [];
  // deno-lint-ignore no-explicit-any -- functions of any kind are replaced by others like them
  const replace = (owner: any, name: string, before: (self: any, args: any[]) => void) => {
    const original = owner[name];
    // deno-lint-ignore no-explicit-any -- as above
    owner[name] = function (this: unknown, ...args: any[]) {
      if (fails()) {
        before(this, args);
        throw error();
      }
      return original.apply(this, args);
    };
    restore.push(() => owner[name] = original);
  };
  const { writeSync } = Deno.FsFile.prototype;
  const { writeTextFileSync } = Deno;
  for (const name of calls) replace(Deno, name, () => {});
  // What fits is written before the disk is full.
  for (const name of textCalls) {
    replace(Deno, name, (_, [path, text, options]) => {
      writeTextFileSync(path, text.slice(0, text.length / 2), options);
    });
  }
  for (const name of fileCalls) {
    replace(Deno.FsFile.prototype, name, (file, [bytes]) => {
      if (name.startsWith("write")) writeSync.call(file, bytes.subarray(0, bytes.length / 2));
    });
  }
  try {
    await action();
    return { error: null, calls: count };
  } catch (error) {
    return { error, calls: count };
  } finally {
    for (const undo of restore) undo();
  }
}
