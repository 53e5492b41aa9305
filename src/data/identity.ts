/**
 * Which text a run was trained on, so that it is not gone on with, or evaluated, on another.
 *
 * @module
 */
import { UserError } from "../errors.ts";
import { aList, anObject, aNull, aNumber, aText, either, type Shape } from "../files/shape.ts";
import { withUnit } from "../text/units.ts";

/** What tells a text from others; where its files lie does not matter. */
export interface DataIdentity {
  /**
   * Names of its files, in the order in which they are joined; of texts from npm packages what was
   * asked of each package, `three@0.187.0/src/*.js`.
   */
  readonly files: readonly string[];
  /** Bytes of the whole text. */
  readonly bytes: number;
  /**
   * SHA-256 of the whole text, in hexadecimal; where it has documents, of each after its name and a
   * zero byte.
   */
  readonly sha256: string;
  /** How many documents it has; absent where it has none, and its end validates. */
  readonly documents?: number;
  /** How many of them validate. */
  readonly validationDocuments?: number;
  /** The npm packages that they are from. */
  readonly packages?: readonly PackageSource[];
}

/** An npm package that texts are from. */
export interface PackageSource {
  /** `three@0.187.0`. */
  readonly package: string;
  /** What its `package.json` says; null where it says nothing. */
  readonly license: string | null;
  /** Hash of its tarball, as npm writes it: `sha512-…`. */
  readonly integrity: string;
  /** Files that were named but are no UTF-8 text. */
  readonly skipped: number;
}

/** That of {@linkcode DataIdentity}. */
export const identityShape: Shape = anObject(
  { files: aList(aText), bytes: aNumber, sha256: aText },
  {
    documents: aNumber,
    validationDocuments: aNumber,
    packages: aList(
      anObject({
        package: aText,
        license: either(aText, aNull),
        integrity: aText,
        skipped: aNumber,
      }),
    ),
  },
);

/**
 * Refuses a text that is not the one that a run was trained on.
 *
 * @param found that of the data as they are; null for generated tasks
 * @param saved that of the run; undefined where a version before 3 has not saved it
 * @param about `action` as in "resume runs/a"; `data` as it is set; `wayOut` ends the message
 * @throws {UserError} saying how both differ
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { requireSameData } from "./identity.ts";
 *
 * const saved = { files: ["a.txt"], bytes: 3, sha256: "ba78" };
 * const about = { action: "resume runs/a", data: "new/a.txt", wayOut: "put it back" };
 * requireSameData({ ...saved, files: ["b.txt"] }, saved, about);
 * assert.throws(() => requireSameData({ ...saved, sha256: "cb8f" }, saved, about), /resume runs.a/);
 * ```
 */
export function requireSameData(
  found: DataIdentity | null,
  saved: DataIdentity | null | undefined,
  about: { action: string; data: string; wayOut: string },
): void {
  if (saved === undefined || found?.sha256 === saved?.sha256) return;
  const { action, data, wayOut } = about;
  throw new UserError(
    `Cannot ${action}: data=${data} is ${described(found)}, but the run was trained on ` +
      `${described(saved)}; ${wayOut}`,
  );
}

function described(text: DataIdentity | null): string {
  if (!text) return "a generated task";
  const { files, bytes, sha256 } = text;
  const [first] = files;
  const kind = text.packages ? "packages" : "files";
  const named = files.length === 1 ? first : `${files.length} ${kind} from ${first} on`;
  return `${named} (${bytes} bytes, SHA-256 ${sha256.slice(0, 8)}…)`;
}

/**
 * What a text is, for people: its size and hash; of packages also their licenses and documents.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { describeIdentity } from "./identity.ts";
 *
 * const text = { files: ["a.txt"], bytes: 9000, sha256: "ba7816bf8f01cfea" };
 * assert.equal(describeIdentity(text), "9.00 kB, SHA-256 ba7816bf…");
 * ```
 */
export function describeIdentity(text: DataIdentity): string {
  const { bytes, sha256, packages = [], documents, validationDocuments: validating } = text;
  const skipped = packages.reduce((sum, { skipped }) => sum + skipped, 0);
  return [
    ...packages.map(({ package: name, license }) => `${name} (${license ?? "no license"})`),
    `${withUnit(bytes)}B`,
    `SHA-256 ${sha256.slice(0, 8)}…`,
    ...(documents === undefined ? [] : [`${documents} documents of which ${validating} validate`]),
    ...(skipped ? [`${skipped} ${skipped === 1 ? "file" : "files"} left out: no text`] : []),
  ].join(", ");
}
