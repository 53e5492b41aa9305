/**
 * Which text a run was trained on, so that it is not gone on with, or evaluated, on another.
 *
 * @module
 */
import { UserError } from "../errors.ts";

/** What tells a text from others; where its files lie does not matter. */
export interface DataIdentity {
  /** Names of its files, in the order in which they are joined. */
  readonly files: readonly string[];
  /** Bytes of the whole text. */
  readonly bytes: number;
  /** SHA-256 of the whole text, in hexadecimal. */
  readonly sha256: string;
}

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
  const named = files.length === 1 ? first : `${files.length} files from ${first} on`;
  return `${named} (${bytes} bytes, SHA-256 ${sha256.slice(0, 8)}…)`;
}
