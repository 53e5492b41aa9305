/**
 * `manifest.json` of a checkpoint: size and SHA-256 of each of its files. It is written last, when
 * all of them are on the disk.
 *
 * @module
 */
import { join } from "node:path";
import { UserError } from "../errors.ts";
import { readJson } from "../files/files.ts";
import { type FileSum, sumOfFile } from "../files/checksum.ts";

/** The name of the file. */
export const MANIFEST = "manifest.json";

/** Content of `manifest.json`. */
export interface Manifest {
  /** Finished steps of the checkpoint. */
  readonly step: number;
  /** By name. */
  readonly files: Readonly<Record<string, FileSum>>;
}

/**
 * Checks the files of a checkpoint against its manifest.
 *
 * @param options `step`: that of the checkpoint; `without`: files that are not looked at
 * @throws {UserError} naming the first file that is missing, damaged or edited
 */
export function verifyFiles(
  folder: string,
  { step, without = [] }: { step: number; without?: readonly string[] },
): void {
  const path = join(folder, MANIFEST);
  const manifest = readJson(path) as Partial<Manifest> | null;
  if (!manifest) throw new UserError(`Cannot load ${folder}: ${MANIFEST} is missing`);
  if (manifest.step !== step || !isFiles(manifest.files)) {
    throw new UserError(`Cannot read ${path}: ${MANIFEST} is damaged, or of another checkpoint`);
  }
  for (const [name, sum] of Object.entries(manifest.files)) {
    if (!without.includes(name)) verifyFile(join(folder, name), sum);
  }
}

function verifyFile(path: string, sum: FileSum): void {
  let found: FileSum;
  try {
    const { size } = Deno.statSync(path);
    // A file of another size need not be read.
    found = size === sum.bytes ? sumOfFile(path) : { bytes: size, sha256: "" };
  } catch (error) {
    const isMissing = error instanceof Deno.errors.NotFound;
    const reason = isMissing ? "there is no such file" : (error as Error).message;
    throw new UserError(`Cannot read ${path}: ${reason}`);
  }
  if (found.bytes !== sum.bytes) {
    throw new UserError(
      `Cannot read ${path}: it is damaged, ${found.bytes} bytes long and not ${sum.bytes}`,
    );
  }
  if (found.sha256 !== sum.sha256) {
    throw new UserError(
      `Cannot read ${path}: it is damaged or edited, its SHA-256 is not that of ${MANIFEST}`,
    );
  }
}

function isFiles(value: unknown): value is Manifest["files"] {
  return typeof value === "object" && value !== null &&
    Object.values(value).every((sum: Partial<FileSum> | null) =>
      Number.isSafeInteger(sum?.bytes) && typeof sum?.sha256 === "string"
    );
}
