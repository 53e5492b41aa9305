/**
 * Damaged weights, in one file and in several: refused with one line, or every value is the one
 * that stands in the bytes.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { readSafetensors, type StoredTensor } from "../../src/files/safetensors.ts";
import { Rng } from "../../src/rng.ts";
import { readWeights } from "../../src/runs/weight_files.ts";
import { type Findings, type Fuzzer, unclean } from "./fuzzer.ts";
import { mutateBytes, mutateJson, mutateText, pick } from "./mutate.ts";

export const safetensorsFuzzer: Fuzzer = { name: "safetensors", run: fuzz(checkOne) };

export const shardsFuzzer: Fuzzer = { name: "shards", run: fuzz(checkShards) };

type Header = Record<string, unknown>;

const SIZES = { F32: 4, I32: 4, F64: 8, F16: 2, BF16: 2 } as const;

type Dtype = keyof typeof SIZES;

/** Writes one damaged input into the folder and tells it, and what reads it. */
type Check = (rng: Rng, folder: string) => { input: string; read: () => Promise<void> };

function fuzz(check: Check): Fuzzer["run"] {
  return async ({ seed, until }) => {
    const rng = new Rng(seed, "safetensors");
    const root = await Deno.makeTempDir();
    const failures: Findings["failures"] = [];
    let cases = 0;
    for (; !until(); cases++) {
      const folder = join(root, String(cases % 2));
      await Deno.mkdir(folder);
      const { input, read } = check(rng, folder);
      const error = await unclean(read);
      if (error) failures.push({ input, error });
      await Deno.remove(folder, { recursive: true });
    }
    await Deno.remove(root, { recursive: true });
    return { cases, failures };
  };
}

function checkOne(rng: Rng, folder: string): ReturnType<Check> {
  const path = join(folder, "x.safetensors");
  const bytes = damaged(rng, randomFile(rng, ["a", "b", "c", "ünïcode", "__proto__"]));
  Deno.writeFileSync(path, bytes);
  const input = new TextDecoder("latin1").decode(bytes);
  return { input, read: async () => requireRight((await readSafetensors(path)).tensors, bytes) };
}

function checkShards(rng: Rng, folder: string): ReturnType<Check> {
  const shards = ["1", "2", "3"].slice(0, 1 + rng.below(3)).map((n) => `model-${n}.safetensors`);
  const weightMap: Record<string, string> = {};
  const files = new Map(shards.map((shard) => {
    const names = ["a", "b", "c"].slice(0, 1 + rng.below(3)).map((name) => `${shard}.${name}`);
    for (const name of names) weightMap[name] = shard;
    return [shard, randomFile(rng, names)];
  }));
  const victim = rng.below(2) === 0 ? pick(rng, shards) : null;
  if (victim) files.set(victim, damaged(rng, files.get(victim)!));
  if (rng.below(12) === 0) files.delete(pick(rng, shards));
  const index = { metadata: { total_size: 1 }, weight_map: weightMap };
  const text = victim ? new TextEncoder().encode(JSON.stringify(index)) : mutateText(rng, index);
  for (const [shard, bytes] of files) Deno.writeFileSync(join(folder, shard), bytes);
  Deno.writeFileSync(join(folder, "model.safetensors.index.json"), text);
  const decoder = new TextDecoder("latin1");
  return {
    input: [text, ...files.values()].map((bytes) => decoder.decode(bytes)).join("\n"),
    read: async () => {
      const { tensors } = await readWeights(folder);
      const found = JSON.parse(new TextDecoder().decode(text)).weight_map;
      assert.deepEqual([...tensors.keys()].sort(), Object.keys(found).sort());
      for (const shard of new Set<string>(Object.values(found))) {
        const own = [...tensors].filter(([name]) => found[name] === shard);
        requireRight(new Map(own), files.get(shard)!);
      }
    },
  };
}

/** A file of tensors of any type and small shapes, empty ones and scalars among them. */
function randomFile(rng: Rng, names: readonly string[]): Uint8Array<ArrayBuffer> {
  const header: [string, unknown][] = [];
  let at = 0;
  for (const name of names) {
    const dtype = pick(rng, Object.keys(SIZES) as Dtype[]);
    const shape = Array.from({ length: rng.below(4) }, () => rng.below(4));
    const end = at + shape.reduce((a, b) => a * b, 1) * SIZES[dtype];
    header.push([name, { dtype, shape, data_offsets: [at, end] }]);
    at = end;
  }
  if (rng.below(2) === 0) header.push(["__metadata__", { format: "pt" }]);
  const data = Uint8Array.from({ length: at }, () => rng.below(256));
  return withHeader(Object.fromEntries(header), data, rng.below(9));
}

function withHeader(header: unknown, data: Uint8Array, pad: number): Uint8Array<ArrayBuffer> {
  const json = new TextEncoder().encode(JSON.stringify(header) + " ".repeat(pad));
  const file = new Uint8Array(8 + json.length + data.length);
  new DataView(file.buffer).setBigUint64(0, BigInt(json.length), true);
  file.set(json, 8);
  file.set(data, 8 + json.length);
  return file;
}

/** Damage to any bytes, to the header's length, or to what the header says; at times none. */
function damaged(rng: Rng, file: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const kind = rng.below(8);
  if (kind === 0) return file;
  if (kind < 3) return mutateBytes(rng, file);
  if (kind === 3) return joined(mutateBytes(rng, file.subarray(0, 8)), file.subarray(8));
  const { header, data } = parts(file);
  return withHeader(mutateJson(rng, header), data, rng.below(9));
}

function parts(file: Uint8Array): { header: Header; data: Uint8Array } {
  const length = Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length)));
  return { header, data: file.subarray(8 + length) };
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(a.length + b.length);
  out.set(a);
  out.set(b, a.length);
  return out;
}

/** Compares all tensors with the bytes that the header gives each, read one by one. */
function requireRight(
  tensors: ReadonlyMap<string, StoredTensor>,
  file: Uint8Array,
): void {
  const { header, data } = parts(file);
  const names = Object.keys(header).filter((name) => name !== "__metadata__");
  assert.deepEqual([...tensors.keys()].sort(), names.sort());
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  for (const [name, tensor] of tensors) {
    const { dtype, shape, data_offsets } = header[name] as {
      dtype: Dtype;
      shape: number[];
      data_offsets: [number, number];
    };
    assert.equal(tensor.dtype, dtype, name);
    assert.deepEqual(tensor.shape, shape, name);
    const [begin, end] = data_offsets;
    assert.equal(tensor.data.length, (end - begin) / SIZES[dtype], name);
    assert.equal(tensor.data.length, shape.reduce((a, b) => a * b, 1), name);
    tensor.data.forEach((value, i) => {
      const wanted = element(view, dtype, begin + i * SIZES[dtype]);
      assert.ok(Object.is(value, wanted), `${name}[${i}] is ${value}, not ${wanted}`);
    });
  }
}

function element(view: DataView, dtype: Dtype, at: number): number {
  switch (dtype) {
    case "F32":
      return view.getFloat32(at, true);
    case "I32":
      return view.getInt32(at, true);
    case "F64":
      return Math.fround(view.getFloat64(at, true));
    case "F16":
      return view.getFloat16(at, true);
    case "BF16": {
      const word = new DataView(new ArrayBuffer(4));
      word.setUint16(0, view.getUint16(at, true));
      return word.getFloat32(0);
    }
  }
}
