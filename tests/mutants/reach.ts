/**
 * Which tests can see a change of a file: those that import it, directly or by others, or name it
 * as a command to run.
 *
 * @module
 */
import { dirname, join, normalize } from "node:path";

/** All TypeScript files of the repository that the tests are made of, by path. */
export function readTree(root: string, folders: readonly string[]): Map<string, string> {
  const files = new Map<string, string>();
  const walk = (folder: string): void => {
    for (const { name, isDirectory } of Deno.readDirSync(join(root, folder))) {
      const path = join(folder, name);
      if (isDirectory) walk(path);
      else if (name.endsWith(".ts")) files.set(path, Deno.readTextFileSync(join(root, path)));
    }
  };
  for (const folder of folders) walk(folder);
  return files;
}

/** The tests that reach each file, and over how many others: the nearest first. */
export function testsOf(files: ReadonlyMap<string, string>): Map<string, string[]> {
  const named = new Map([...files].map(([file, text]) => [file, namedIn(file, text)]));
  const reached = new Map<string, { test: string; distance: number }[]>();
  for (const test of files.keys()) {
    if (!test.endsWith("_test.ts")) continue;
    const distances = new Map([[test, 0]]);
    for (const [file, distance] of distances) {
      for (const next of named.get(file) ?? []) {
        if (files.has(next) && !distances.has(next)) distances.set(next, distance + 1);
      }
    }
    for (const [file, distance] of distances) {
      reached.set(file, [...reached.get(file) ?? [], { test, distance }]);
    }
  }
  return new Map(
    [...reached].map(([file, tests]) => [
      file,
      tests.sort((a, b) => a.distance - b.distance || (a.test < b.test ? -1 : 1))
        .map(({ test }) => test),
    ]),
  );
}

/** Paths of files in quotes: imported, or run as a command. */
function namedIn(file: string, text: string): string[] {
  const found = text.matchAll(/["'`](\.{0,2}\/?[\w./-]+\.ts)["'`]/g);
  return [...found].map(([, path]) => normalize(join(dirname(file), path)));
}
