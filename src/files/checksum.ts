/**
 * Size and SHA-256 of files.
 *
 * @module
 */
import { createHash } from "node:crypto";

/** What tells a file from others. */
export interface FileSum {
  /** Its size. */
  readonly bytes: number;
  /** Its SHA-256, in hexadecimal. */
  readonly sha256: string;
}

/** Bytes that are hashed at a time. */
const CHUNK = 2 ** 20;

/**
 * Size and SHA-256 of a file.
 *
 * @param length only its first bytes; a shorter file is taken as it is
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { sumOfFile } from "./checksum.ts";
 *
 * const path = await Deno.makeTempFile();
 * await Deno.writeTextFile(path, "abc");
 * assert.equal(sumOfFile(path).bytes, 3);
 * assert.match(sumOfFile(path).sha256, /^ba7816bf/);
 * assert.deepEqual(sumOfFile(path, 9), sumOfFile(path));
 * ```
 */
export function sumOfFile(path: string, length = Infinity): FileSum {
  using file = Deno.openSync(path);
  const hash = createHash("sha256");
  const chunk = new Uint8Array(CHUNK);
  let bytes = 0;
  while (bytes < length) {
    const count = file.readSync(chunk.subarray(0, Math.min(CHUNK, length - bytes)));
    if (count === null) break;
    hash.update(chunk.subarray(0, count));
    bytes += count;
  }
  return { bytes, sha256: hash.digest("hex") };
}

/** Size and SHA-256 of what is written in parts. */
export class Summing {
  readonly #hash = createHash("sha256");
  #bytes = 0;

  /** Adds the next part. */
  add(part: Uint8Array): this {
    this.#hash.update(part);
    this.#bytes += part.length;
    return this;
  }

  /** Of all parts; the last call. */
  sum(): FileSum {
    return { bytes: this.#bytes, sha256: this.#hash.digest("hex") };
  }
}
