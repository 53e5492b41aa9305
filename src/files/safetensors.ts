/**
 * Reads and writes safetensors files: 8 bytes of header length (little-endian), a JSON header
 * padded with spaces to a multiple of 8 bytes, then the data of all tensors.
 *
 * @see https://github.com/huggingface/safetensors#format
 * @module
 */
import { UserError } from "../errors.ts";
import { type FileSum, Summing } from "./checksum.ts";

/** Element types that can be read; F32 and I32 are written. */
export type TensorDtype = "F32" | "I32" | "F64" | "F16" | "BF16";

/** Values and shape of a tensor; `[]` is a scalar. */
export interface TensorData {
  /** Size of each dimension. */
  readonly shape: readonly number[];
  /** All elements, row-major. */
  readonly data: Float32Array | Int32Array;
}

/** A tensor as read: F64, F16 and BF16 are converted to float32, I32 stays. */
export interface StoredTensor extends TensorData {
  /** The type in the file. */
  readonly dtype: TensorDtype;
  /** All elements, row-major. */
  readonly data: Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>;
}

/** Content of a file. */
export interface Safetensors {
  /** By name, in the order of the file. */
  readonly tensors: Map<string, StoredTensor>;
  /** Text by key; empty if the file has none. */
  readonly metadata: Record<string, string>;
}

const bytesPerElement: Record<TensorDtype, number> = { F32: 4, I32: 4, F64: 8, F16: 2, BF16: 2 };
/** The format's own limit. */
const maxHeaderBytes = 100_000_000;

/**
 * Writes tensors in the order of the map, one write each, and waits until they are on the disk.
 *
 * @returns size and SHA-256 of what was written
 * @throws {RangeError} if the data of a tensor is not as long as its shape says
 * @throws {Error} what the file system reports, e.g. a full disk
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { readSafetensors, writeSafetensors } from "./safetensors.ts";
 *
 * const path = await Deno.makeTempFile({ suffix: ".safetensors" });
 * const data = Float32Array.of(1, 2);
 * await writeSafetensors(path, new Map([["a", { shape: [2], data }]]));
 * assert.deepEqual((await readSafetensors(path)).tensors.get("a")?.data, data);
 * ```
 */
export async function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, TensorData>,
  options: { metadata?: Record<string, string> } = {},
): Promise<FileSum> {
  const entries: [string, unknown][] = [];
  if (options.metadata) entries.push(["__metadata__", options.metadata]);
  let end = 0;
  for (const [name, { shape, data }] of tensors) {
    if (data.length !== elements(shape)) {
      throw new RangeError(
        `Cannot write ${name}: ${data.length} elements do not fill shape [${shape}]`,
      );
    }
    const dtype = data instanceof Int32Array ? "I32" : "F32";
    entries.push([name, { dtype, shape, data_offsets: [end, end += data.byteLength] }]);
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(entries)));
  const header = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(header.length - 8), true);
  header.set(json, 8);
  using file = await Deno.open(path, { write: true, create: true, truncate: true });
  const summing = new Summing();
  const write = async (bytes: Uint8Array) => {
    summing.add(bytes);
    await writeAll(file, bytes);
  };
  await write(header);
  for (const { data } of tensors.values()) {
    await write(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }
  await file.sync();
  return summing.sum();
}

/**
 * Reads a whole file.
 *
 * @throws {UserError} if the file is missing, cut off, not a safetensors file, or holds a type
 * that is not known here
 */
export async function readSafetensors(path: string): Promise<Safetensors> {
  using file = await openForReading(path);
  const { header, start, size } = await readHeader(file, path);
  const { __metadata__: metadata = {}, ...rest } = header;
  if (!isTexts(metadata)) throw corrupt(path, "its __metadata__ is not texts by name");
  const places = Object.entries(rest).map(([name, entry]) => place(path, name, entry));
  // An empty tensor begins where the next one does.
  places.sort((a, b) => a.begin - b.begin || a.end - b.end);
  const tensors = new Map<string, StoredTensor>();
  let expected = 0;
  for (const { name, dtype, shape, begin, end } of places) {
    if (begin !== expected) throw corrupt(path, `${name} does not follow the tensor before it`);
    expected = end;
    if (start + end > size) {
      throw corrupt(path, `it is ${size} bytes long, but ${name} ends at ${start + end}`);
    }
    const bytes = new Uint8Array(end - begin);
    await file.seek(start + begin, Deno.SeekMode.Start);
    if (!await readFull(file, bytes)) throw corrupt(path, `${name} is cut off`);
    tensors.set(name, { dtype, shape, data: convert(dtype, bytes.buffer) });
  }
  if (start + expected !== size) throw corrupt(path, `${size - start - expected} bytes left over`);
  return { tensors, metadata };
}

type Header = Record<string, unknown>;

async function openForReading(path: string): Promise<Deno.FsFile> {
  try {
    // Opening a pipe would wait for its writer.
    if (!(await Deno.stat(path)).isFile) throw corrupt(path, "it is not a file");
    return await Deno.open(path);
  } catch (error) {
    if (error instanceof UserError) throw error;
    const reason = error instanceof Deno.errors.NotFound ? "there is no such file" : String(error);
    throw new UserError(`Cannot read ${path}: ${reason}`);
  }
}

async function readHeader(
  file: Deno.FsFile,
  path: string,
): Promise<{ header: Header; start: number; size: number }> {
  const { size } = await file.stat();
  const first = new Uint8Array(8);
  if (!await readFull(file, first)) throw corrupt(path, `it is only ${size} bytes long`);
  const length = Number(new DataView(first.buffer).getBigUint64(0, true));
  if (length > Math.min(size - 8, maxHeaderBytes)) {
    throw corrupt(path, `its header claims ${length} bytes of ${size}`);
  }
  const bytes = new Uint8Array(length);
  if (!await readFull(file, bytes)) throw corrupt(path, "its header is cut off");
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw corrupt(path, "its header is not JSON");
  }
  if (typeof header !== "object" || header === null || Array.isArray(header)) {
    throw corrupt(path, "its header is not an object");
  }
  return { header: header as Header, start: 8 + length, size };
}

interface Place {
  name: string;
  dtype: TensorDtype;
  shape: number[];
  begin: number;
  end: number;
}

function place(path: string, name: string, entry: unknown): Place {
  const { dtype, shape, data_offsets: offsets } = (entry ?? {}) as Record<string, unknown>;
  if (typeof dtype !== "string" || !areSizes(shape) || !areSizes(offsets) || offsets.length !== 2) {
    throw corrupt(path, `the entry of ${name} is damaged`);
  }
  if (!Object.hasOwn(bytesPerElement, dtype)) {
    const known = Object.keys(bytesPerElement).join(", ");
    throw new UserError(`Cannot read ${path}: ${name} has type ${dtype}; known are ${known}`);
  }
  const [begin, end] = offsets;
  if (end - begin !== elements(shape) * bytesPerElement[dtype as TensorDtype]) {
    throw corrupt(path, `${name} of shape [${shape}] cannot have ${end - begin} bytes`);
  }
  return { name, dtype: dtype as TensorDtype, shape, begin, end };
}

function isTexts(value: unknown): value is Record<string, string> {
  return typeof value === "object" && value !== null && !Array.isArray(value) &&
    Object.values(value).every((text) => typeof text === "string");
}

function areSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0);
}

function convert(dtype: TensorDtype, bytes: ArrayBuffer): StoredTensor["data"] {
  switch (dtype) {
    case "F32":
      return new Float32Array(bytes);
    case "I32":
      return new Int32Array(bytes);
    case "F64":
      return Float32Array.from(new Float64Array(bytes));
    case "F16":
      return Float32Array.from(new Float16Array(bytes));
    case "BF16": {
      const bits = Uint32Array.from(new Uint16Array(bytes), (half) => half << 16);
      return new Float32Array(bits.buffer);
    }
  }
}

function elements(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

function corrupt(path: string, reason: string): UserError {
  return new UserError(`Cannot read ${path}: ${reason}; the file is damaged or of another kind`);
}

async function readFull(file: Deno.FsFile, into: Uint8Array): Promise<boolean> {
  for (let at = 0; at < into.length;) {
    const count = await file.read(into.subarray(at));
    if (count === null) return false;
    at += count;
  }
  return true;
}

async function writeAll(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
}
