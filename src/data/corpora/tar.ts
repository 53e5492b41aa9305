/**
 * Files out of a tar archive, as npm packs them.
 *
 * @module
 */

/** A file of an archive. */
export interface TarFile {
  /** Its path in the archive, with `/`. */
  readonly path: string;
  /** What it holds. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

const BLOCK = 512;

/** Bytes of an entry that gives the next one a long name. */
const MOST_NAME_BYTES = 2 ** 16;

const decoder = new TextDecoder();

/**
 * The files of a tar archive (ustar, with pax and GNU headers for long names), in its order. Links,
 * folders and devices are passed over.
 *
 * @param options.wants asked with path and bytes of each file before it is read into memory
 * @param options.mostBytes of the whole archive
 * @throws {Error} saying what is damaged, if it is cut off, a header does not add up, a path leads
 * out of the archive, or it is too long
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { readTar } from "./tar.ts";
 *
 * const nothing = new Blob([new Uint8Array(1024)]).stream();
 * for await (const _ of readTar(nothing, { wants: () => true })) assert.fail();
 * ```
 */
export async function* readTar(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  options: { wants: (path: string, bytes: number) => boolean; mostBytes?: number },
): AsyncGenerator<TarFile> {
  const { wants, mostBytes = Infinity } = options;
  const source = new Source(stream, mostBytes);
  try {
    let longName: string | null = null;
    for (;;) {
      const header = await source.take(BLOCK);
      // The end is two empty blocks, but not every archive has both.
      if (!header || header.every((byte) => byte === 0)) return;
      const { path, size, kind } = readHeader(header);
      const isName = kind === "x" || kind === "L";
      const name: string = longName ?? path;
      if (isName && size > MOST_NAME_BYTES) throw new Error(`a name of ${size} bytes`);
      const isFile = kind === "0" || kind === "\0";
      if (isFile) requireInside(name);
      const bytes: Uint8Array<ArrayBuffer> | null = isName || isFile && wants(name, size)
        ? await source.take(size)
        : await source.pass(size);
      if (bytes === null) throw new Error(`${name} is cut off`);
      await source.pass((BLOCK - size % BLOCK) % BLOCK);
      if (isName) {
        longName = (kind === "x" ? paxPath(bytes) : beforeZero(bytes)) ?? longName;
        continue;
      }
      longName = null;
      if (isFile && bytes !== PASSED) yield { path: name, bytes };
    }
  } finally {
    await source.close();
  }
}

function readHeader(header: Uint8Array): { path: string; size: number; kind: string } {
  const field = (from: number, length: number) => beforeZero(header.subarray(from, from + length));
  let sum = 0;
  // The checksum itself counts as spaces.
  header.forEach((byte, i) => sum += i >= 148 && i < 156 ? 0x20 : byte);
  if (octal(field(148, 8)) !== sum) throw new Error("a header does not add up");
  const isUstar = field(257, 5) === "ustar";
  const prefix = isUstar && header[262] === 0 ? field(345, 155) : "";
  const name = field(0, 100);
  return {
    path: prefix ? `${prefix}/${name}` : name,
    size: octal(field(124, 12)),
    kind: String.fromCharCode(header[156]),
  };
}

function octal(text: string): number {
  const value = /^ *[0-7]+ *$/.test(text) ? parseInt(text, 8) : NaN;
  if (!Number.isSafeInteger(value)) throw new Error("a header is damaged");
  return value;
}

function beforeZero(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return decoder.decode(end < 0 ? bytes : bytes.subarray(0, end));
}

/** `path` of the lines `<bytes of the line> <key>=<value>`; null where there is none. */
function paxPath(bytes: Uint8Array): string | null {
  let path: string | null = null;
  for (let at = 0; at < bytes.length;) {
    const [, digits] = decoder.decode(bytes.subarray(at, at + 10)).match(/^(\d+) /) ?? [];
    const end = at + Number(digits);
    if (!(end > at && end <= bytes.length)) throw new Error("a header is damaged");
    const line = decoder.decode(bytes.subarray(at + digits.length + 1, end - 1));
    if (line.startsWith("path=")) path = line.slice("path=".length);
    at = end;
  }
  return path;
}

function requireInside(path: string): void {
  if (/^[/\\]|^[a-z]:|(?:^|[/\\])\.\.(?:[/\\]|$)|\0/i.test(path)) {
    throw new Error(`the path ${JSON.stringify(path)} leads out of it`);
  }
}

/** In place of bytes that were not kept. */
const PASSED = new Uint8Array(0);

/** Bytes of a stream, taken or passed over in any numbers. */
class Source {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>;
  readonly #mostBytes: number;
  #chunk = PASSED;
  #read = 0;

  constructor(stream: ReadableStream<Uint8Array<ArrayBuffer>>, mostBytes: number) {
    this.#reader = stream.getReader();
    this.#mostBytes = mostBytes;
  }

  /** The next bytes; null at the end. */
  async take(count: number): Promise<Uint8Array<ArrayBuffer> | null> {
    // As it grows, and not as a header claims.
    const parts: Uint8Array<ArrayBuffer>[] = [];
    const found = await this.#each(count, (part) => parts.push(part));
    if (found === 0 && count > 0) return null;
    if (found < count) throw new Error("it is cut off");
    return parts.length === 1 ? parts[0] : await new Blob(parts).bytes();
  }

  /** Passes over the next bytes. */
  async pass(count: number): Promise<Uint8Array<ArrayBuffer>> {
    if (await this.#each(count, () => {}) < count) throw new Error("it is cut off");
    return PASSED;
  }

  async close(): Promise<void> {
    // What broke it is told already.
    await this.#reader.cancel().catch(() => {});
  }

  async #each(count: number, use: (part: Uint8Array<ArrayBuffer>) => void): Promise<number> {
    let left = count;
    while (left > 0) {
      if (!this.#chunk.length) {
        const { done, value } = await this.#reader.read();
        if (done) break;
        this.#chunk = value;
        this.#read += value.length;
        if (this.#read > this.#mostBytes) throw new Error(`it is over ${this.#mostBytes} bytes`);
        continue;
      }
      const part = this.#chunk.subarray(0, left);
      this.#chunk = this.#chunk.subarray(part.length);
      use(part);
      left -= part.length;
    }
    return count - left;
  }
}
