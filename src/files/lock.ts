/**
 * Locks on folders, so that no two processes write into one.
 *
 * @module
 */
import { hostname } from "node:os";
import { join } from "node:path";
import { UserError } from "../errors.ts";
import { isThere, readJson, writing } from "./files.ts";

/** Name of the file that is locked, and that tells who has it. */
export const LOCK_FILE = "lock.json";

/** Who has a lock. */
interface Holder {
  readonly host: string;
  readonly pid: number;
  /** Of the host's kernel since it was started; null where it has none to tell. */
  readonly boot: string | null;
  /** When the process began, as the kernel counts; null where that is not to be had. */
  readonly started: string | null;
  /** When the lock was taken. */
  readonly since: string;
}

/** What a lock is taken for. */
export interface LockPurpose {
  /** What is refused where another process has it, e.g. `go on with runs/x`. */
  readonly action: string;
  /** Is told where the lock of a process is taken over that ended without giving it back. */
  readonly note?: (line: string) => void;
}

/**
 * The lock of a folder, until it is disposed of or the process ends, however it ends: the kernel
 * holds it, so that none is ever left behind. What is left is the file's text, which says who it was.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { FolderLock } from "./lock.ts";
 *
 * const folder = await Deno.makeTempDir();
 * {
 *   using _lock = FolderLock.take(folder, { action: `write into ${folder}` });
 *   assert.throws(() => FolderLock.take(folder, { action: "write, too" }), /Cannot write, too/);
 * }
 * using _again = FolderLock.take(folder, { action: "write" });
 * ```
 */
export class FolderLock implements Disposable {
  readonly #path: string;
  readonly #file: Deno.FsFile;

  private constructor(path: string, file: Deno.FsFile) {
    this.#path = path;
    this.#file = file;
  }

  /**
   * Takes the lock of a folder.
   *
   * @throws {UserError} if another process has it: who, and what to do; or if it is no folder
   */
  static take(folder: string, { action, note }: LockPurpose): FolderLock {
    if (isThere(folder) && !Deno.statSync(folder).isDirectory) {
      throw new UserError(`Cannot ${action}: ${folder} is no folder`);
    }
    const path = join(folder, LOCK_FILE);
    const own = holder();
    for (;;) {
      const file = open(path);
      const last = readHolder(path);
      const locked = lockFile(file);
      if (locked === "another's") {
        const reason = last
          ? `process ${last.pid} on ${last.host} has been at it since ${last.since}; wait for it, ` +
            "or stop it"
          : "another process has just begun";
        file.close();
        throw new UserError(`Cannot ${action}: ${reason}`);
      }
      // Whoever had it may have removed the file in between: then this lock is on nothing.
      if (!isSame(file, path)) {
        file.close();
        continue;
      }
      const isHere = last && (last.host === own.host || last.boot && last.boot === own.boot);
      if (last && (!isHere || locked === "unknown" && !isOver(last, own))) {
        file.close();
        const where = isHere ? last.host : `another host, ${last.host},`;
        throw new UserError(
          `Cannot ${action}: process ${last.pid} on ${where} has been at it since ${last.since}; ` +
            `if that is over, remove ${path}`,
        );
      }
      if (last) {
        note?.(
          `note: process ${last.pid}, which had ${folder} since ${last.since}, ended without a word`,
        );
      }
      const bytes = new TextEncoder().encode(`${JSON.stringify(own)}\n`);
      writing(path, () => {
        file.truncateSync();
        file.writeSync(bytes);
      });
      return new FolderLock(path, file);
    }
  }

  /** Gives the lock back, and takes its file away, unless another is there by now. */
  [Symbol.dispose](): void {
    try {
      if (isSame(this.#file, this.#path)) Deno.removeSync(this.#path);
    } catch {
      // The folder may be gone, or have another name.
    }
    this.#file.close();
  }
}

function open(path: string): Deno.FsFile {
  return writing(path, () => Deno.openSync(path, { read: true, write: true, create: true }));
}

/** Locks a file, if no other process has; some file systems have no locks. */
function lockFile(file: Deno.FsFile): "own" | "another's" | "unknown" {
  try {
    return file.tryLockSync(true) ? "own" : "another's";
  } catch {
    return "unknown";
  }
}

/** Whether a process of this host has certainly ended. */
function isOver({ host, pid, boot, started }: Holder, own: Holder): boolean {
  // In a container with a name of its own the numbers of processes are others.
  if (host !== own.host || !boot || !own.boot) return false;
  return boot !== own.boot || started !== null && startOf(pid) !== started;
}

function isSame(file: Deno.FsFile, path: string): boolean {
  try {
    const [own, there] = [file.statSync(), Deno.statSync(path)];
    return own.ino === there.ino && own.dev === there.dev;
  } catch {
    return false;
  }
}

/** Who last had a lock; null where nobody has, or it cannot be read. */
function readHolder(path: string): Holder | null {
  try {
    const { host, pid, boot, started, since } = readJson(path) as Partial<Holder>;
    if (typeof host !== "string" || typeof pid !== "number" || typeof since !== "string") {
      return null;
    }
    const textOf = (value: unknown) => typeof value === "string" ? value : null;
    return { host, pid, boot: textOf(boot), started: textOf(started), since };
  } catch {
    return null;
  }
}

function holder(): Holder {
  let boot: string | null = null;
  try {
    boot = Deno.readTextFileSync("/proc/sys/kernel/random/boot_id").trim();
  } catch {
    // Only Linux has one.
  }
  const { pid } = Deno;
  return { host: hostname(), pid, boot, started: startOf(pid), since: new Date().toISOString() };
}

/** When a process began, in ticks since its host did; null where there is none, or not Linux. */
function startOf(pid: number): string | null {
  try {
    // Its name, the second field, may hold spaces and brackets.
    const fields = Deno.readTextFileSync(`/proc/${pid}/stat`).replace(/^.*\)/s, "").trim();
    return fields.split(" ")[19] ?? null;
  } catch {
    return null;
  }
}
