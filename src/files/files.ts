/**
 * Files that a folder may have or lack.
 *
 * @module
 */
import { basename } from "node:path";
import { UserError, WriteError } from "../errors.ts";

/** Whether there is a file or folder. */
export function isThere(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

/** The text of a file, or null where there is none. */
export function readText(path: string): string | null {
  try {
    // Reading a pipe or a device could wait, or go on, for ever.
    if (!Deno.statSync(path).isFile) throw new TypeError("not a file");
    return Deno.readTextFileSync(path);
  } catch (error) {
    const isMissing = error instanceof Deno.errors.NotFound ||
      error instanceof Deno.errors.NotADirectory;
    if (isMissing) return null;
    const isDenied = error instanceof Deno.errors.PermissionDenied;
    throw new UserError(
      `Cannot read ${path}: ${isDenied ? "it may not be read" : "it is no readable file"}`,
    );
  }
}

/**
 * The object in a JSON file, or null where there is no file.
 *
 * @throws {UserError} naming the file, if it holds anything else
 */
export function readJson(path: string): Record<string, unknown> | null {
  const text = readText(path);
  if (text === null) return null;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // Told below.
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  throw new UserError(`Cannot read ${path}: ${basename(path)} is damaged, it holds no JSON object`);
}

/**
 * Does what writes to a file or folder.
 *
 * @throws {WriteError} naming it, and why it cannot be written
 */
export function writing<T>(path: string, write: () => T): T {
  try {
    return write();
  } catch (error) {
    throw asWriteError(path, error);
  }
}

/** Like {@linkcode writing}, for what takes its time. */
export async function writingLater<T>(path: string, write: () => Promise<T>): Promise<T> {
  try {
    return await write();
  } catch (error) {
    throw asWriteError(path, error);
  }
}

function asWriteError(path: string, error: unknown): Error {
  if (error instanceof UserError || error instanceof WriteError) return error;
  const reason = error instanceof Error ? error.message : error;
  const wayOut = "make room or mend its folder, then go on with resume=…";
  return new WriteError(`Cannot write ${path}: ${reason}; ${wayOut}`, { cause: error });
}
