/**
 * Sees every call that changes files before it is made, and may let it fail.
 *
 * @module
 */

/** Calls by path. */
const calls = [
  ...["mkdir", "mkdirSync", "rename", "renameSync", "remove", "removeSync"],
  ...["open", "openSync", "writeFile", "writeTextFileSync"],
];
/** Calls of open files. */
const fileCalls = ["write", "writeSync", "sync", "syncSync", "truncateSync"];

/** A call about to be made. */
export interface FileCall {
  /** Such as `rename`, or `write` of an open file, without the `Sync` of its name. */
  readonly name: string;
  readonly path: string;
}

/**
 * Does something, and shows each of its calls that change files before it is made.
 *
 * @param before returns an error for a call that is to fail. Of a write that fails the first half
 * is written.
 * @param fail what happens then, instead of throwing it
 */
export async function watched<T>(
  before: (call: FileCall) => Error | null,
  action: () => T | Promise<T>,
  fail = (error: Error): never => {
    throw error;
  },
): Promise<T> {
  const restore: (() => void)[] = [];
  const paths = new WeakMap<object, string>();
  const { writeSync } = Deno.FsFile.prototype;
  const { writeFileSync } = Deno;
  // deno-lint-ignore no-explicit-any -- functions of any kind are replaced by others like them
  const replace = (owner: any, own: string, pathOf: (self: any, args: any[]) => string) => {
    const original = owner[own];
    const name = own.replace(/Sync$/, "");
    // deno-lint-ignore no-explicit-any -- as above
    owner[own] = function (this: any, ...args: any[]) {
      const path = pathOf(this, args);
      // What is opened to be read changes nothing.
      const changes = name !== "open" || args[1]?.write || args[1]?.append || args[1]?.create;
      const error = changes ? before({ name, path }) : null;
      if (error) {
        if (name === "write") writeSync.call(this, half(args[0]));
        if (name === "writeFile") writeFileSync(path, half(args[1]), args[2]);
        if (name === "writeTextFile") {
          writeFileSync(path, half(new TextEncoder().encode(args[1])), args[2]);
        }
        fail(error);
      }
      const result = original.apply(this, args);
      if (own === "openSync") paths.set(result, path);
      if (own === "open") {
        return result.then((file: Deno.FsFile) => {
          paths.set(file, path);
          return file;
        });
      }
      return result;
    };
    restore.push(() => owner[own] = original);
  };
  for (const name of calls) replace(Deno, name, (_, [path]) => String(path));
  for (const name of fileCalls) {
    replace(Deno.FsFile.prototype, name, (file) => paths.get(file) ?? "");
  }
  try {
    return await action();
  } finally {
    for (const undo of restore) undo();
  }
}

function half(bytes: Uint8Array): Uint8Array {
  return bytes.subarray(0, bytes.length / 2);
}
