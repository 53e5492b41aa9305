/**
 * Texts out of the tarball of an npm package.
 *
 * @module
 */
import { matchesGlob } from "node:path";
import { UserError } from "../../errors.ts";
import { type PackageFiles, packageFilesName } from "./package_name.ts";
import type { Tarball } from "./registry.ts";
import { readTar } from "./tar.ts";

/** Texts of a package. */
export interface Unpacked {
  /** Sorted by name. */
  readonly texts: readonly { readonly name: string; readonly bytes: Uint8Array<ArrayBuffer> }[];
  /** Names of files that match but are no UTF-8 text. */
  readonly skipped: readonly string[];
  /** What `package.json` says; null where it says nothing. */
  readonly license: string | null;
}

/** Most bytes of all files that are asked for, and of the archive. */
const MOST_BYTES = { texts: 2 ** 30, archive: 2 ** 33 };

/**
 * The texts that `files` names.
 *
 * @throws {UserError} if the tarball is damaged, nothing matches, nothing is text, or it is too much
 */
export async function unpackTexts(
  { bytes }: Pick<Tarball, "bytes">,
  files: PackageFiles,
  about: { data: string; mostBytes?: { texts: number; archive: number } },
): Promise<Unpacked> {
  const { data, mostBytes = MOST_BYTES } = about;
  const found = new Map<string, Uint8Array<ArrayBuffer>>();
  const others = new Set<string>();
  let manifest: Uint8Array | null = null;
  let total = 0;
  const wants = (path: string, size: number): boolean => {
    const name = inPackage(path);
    if (name === MANIFEST) return true;
    if (!matchesGlob(name, files.glob)) {
      others.add(name.replace(/\/.*/, "/"));
      return false;
    }
    total += size;
    if (total <= mostBytes.texts) return true;
    throw new UserError(
      `Cannot use data=${data}: more than ${mostBytes.texts} bytes match; name fewer files`,
    );
  };
  try {
    const archive = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    for await (const file of readTar(archive, { wants, mostBytes: mostBytes.archive })) {
      const name = inPackage(file.path);
      if (name === MANIFEST) manifest = file.bytes;
      if (matchesGlob(name, files.glob)) found.set(name, file.bytes);
    }
  } catch (error) {
    if (error instanceof UserError) throw error;
    const [reason] = String(error instanceof Error ? error.message : error).split("\n", 1);
    throw new UserError(
      `Cannot use data=${data}: the tarball of ${files.package}@${files.version} is damaged ` +
        `(${reason}); use another version`,
    );
  }
  const names = [...found.keys()].sort();
  const texts = names.flatMap((name) => {
    const text = textOf(found.get(name)!, files);
    return text ? [{ name, bytes: text }] : [];
  });
  if (!texts.length) {
    const there = [...others].sort().slice(0, 8).join(", ");
    throw new UserError(
      names.length
        ? `Cannot use data=${data}: none of its ${names.length} files is UTF-8 text; name others`
        : `Cannot use data=${data}: no file matches ${packageFilesName(files)}; there are ${there}`,
    );
  }
  const isText = new Set(texts.map(({ name }) => name));
  return {
    texts,
    skipped: names.filter((name) => !isText.has(name)),
    license: licenseOf(manifest),
  };
}

const MANIFEST = "package.json";

/** A path without the archive's own folder, mostly `package/`. */
function inPackage(path: string): string {
  return path.replace(/^(?:\.\/)*[^/]*\//, "");
}

/** What is kept of a file, or null where it is no text. */
function textOf(
  bytes: Uint8Array<ArrayBuffer>,
  { reading }: PackageFiles,
): Uint8Array<ArrayBuffer> | null {
  if (bytes.includes(0)) return null;
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return reading === "untagged" ? new TextEncoder().encode(untagged(text)) : bytes;
  } catch {
    return null;
  }
}

/** The words of a text in which each is followed by `/` and its part of speech. */
function untagged(text: string): string {
  const lines = text.split("\n").map((line) =>
    line.trim().split(/\s+/).map((word) => word.replace(/\/[^/]*$/, "")).join(" ")
  );
  return lines.filter((line) => line !== "").map((line) => `${line}\n`).join("");
}

/** As npm has it today, or had it once. */
function licenseOf(manifest: Uint8Array | null): string | null {
  try {
    const { license, licenses } = JSON.parse(new TextDecoder().decode(manifest!));
    const all = [license, ...Array.isArray(licenses) ? licenses : []]
      .map((item) => typeof item === "string" ? item : item?.type)
      .filter((item) => typeof item === "string");
    return all.length ? all.join(" OR ") : null;
  } catch {
    return null;
  }
}
