/**
 * Text files that are read piece by piece: the text of a large one does not fit into one string.
 *
 * @module
 */
import { UserError } from "../errors.ts";

/** What cannot be read to its end, by the property that tells it. */
const NO_FILES = [
  ["isDirectory", "it is a folder; name its files, {}/*.txt"],
  ["isFifo", "it is a pipe, and a text is read more than once; save it in a file"],
  ["isSocket", "it is a socket; name a text file"],
  ["isCharDevice", "it is a device; name a text file"],
  ["isBlockDevice", "it is a device; name a text file"],
] as const;

/**
 * Bytes of a text file.
 *
 * @throws {UserError} if it is none: a folder, a pipe, a device
 */
export function textFileSize(path: string): number {
  const info = reading(path, () => Deno.statSync(path));
  for (const [is, reason] of NO_FILES) {
    if (info[is]) throw new UserError(`Cannot read ${path}: ${reason.replace("{}", path)}`);
  }
  return info.size;
}

/**
 * The text of a UTF-8 file, without the mark of its byte order, in pieces of at most `pieceBytes`
 * bytes; none ends within a character.
 *
 * @throws {UserError} if it cannot be read, is not UTF-8, or changes its size meanwhile
 */
export function* readPieces(path: string, pieceBytes: number): Iterable<string> {
  const size = textFileSize(path);
  if (size === 0) return;
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const decode = (bytes?: Uint8Array<ArrayBuffer>): string => {
    try {
      return decoder.decode(bytes, { stream: bytes !== undefined });
    } catch {
      throw new UserError(`Cannot read ${path}: it is not UTF-8 text; convert it with iconv`);
    }
  };
  using file = reading(path, () => Deno.openSync(path));
  const buffer = new Uint8Array(Math.min(size, pieceBytes));
  let left = size;
  for (let count; (count = reading(path, () => file.readSync(buffer))) !== null; left -= count) {
    // What grows could go on for ever.
    if (count > left) throw changed(path);
    const piece = decode(buffer.subarray(0, count));
    if (piece) yield piece;
  }
  if (left > 0) throw changed(path);
  decode();
}

function changed(path: string): UserError {
  return new UserError(`Cannot read ${path}: it changes while it is read; wait, or copy it`);
}

function reading<T>(path: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    const [line] = String(error instanceof Error ? error.message : error).split("\n", 1);
    throw new UserError(`Cannot read ${path}: ${line}; check its permissions`);
  }
}
