import assert from "node:assert/strict";
import { join } from "node:path";
import { UserError } from "../src/errors.ts";
import { Rng } from "../src/rng.ts";
import { readSafetensors, type TensorData, writeSafetensors } from "../src/files/safetensors.ts";

const seed = Math.floor(Math.random() * 2 ** 32);

/** Runs `body` with a path for a file in a folder of its own. */
async function withFile(body: (path: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await body(join(folder, "x.safetensors"));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** A file of one tensor of raw bytes, put together without the writer. */
function rawFile(entry: object, data: Uint8Array, pad = 0): Uint8Array {
  return fileOf({ x: entry }, data, pad);
}

/** A file of raw bytes under a header. */
function fileOf(header: object, data: Uint8Array, pad = 0): Uint8Array {
  const json = new TextEncoder().encode(JSON.stringify(header) + " ".repeat(pad));
  const file = new Uint8Array(8 + json.length + data.length);
  new DataView(file.buffer).setUint32(0, json.length, true);
  file.set(json, 8);
  file.set(data, 8 + json.length);
  return file;
}

Deno.test("what is written is read back bit for bit", () =>
  withFile(async (path) => {
    const rng = new Rng(seed, "tensors");
    const floats = new Float32Array(3 * 5);
    rng.fillNormal(floats);
    floats.set([NaN, -Infinity, -0, 1e-42]);
    const ints = Int32Array.from({ length: 7 }, () => rng.uint32());
    const tensors = new Map<string, TensorData>([
      ["model.layers.0.weight", { shape: [3, 5], data: floats }],
      ["ids", { shape: [7], data: ints }],
      ["scalar", { shape: [], data: new Float32Array([rng.normal()]) }],
      ["empty", { shape: [0, 4], data: new Float32Array(0) }],
      // A view that does not begin at the start of its memory.
      ["part", { shape: [2, 2], data: floats.subarray(3, 7) }],
      ["Ä ∂", { shape: [1], data: new Float32Array([1]) }],
    ]);
    await writeSafetensors(path, tensors, { metadata: { format: "pt", note: 'a "b"' } });
    const read = await readSafetensors(path);
    assert.deepEqual(read.metadata, { format: "pt", note: 'a "b"' });
    assert.deepEqual([...read.tensors.keys()].sort(), [...tensors.keys()].sort());
    for (const [name, { shape, data }] of tensors) {
      const found = read.tensors.get(name)!;
      assert.equal(found.dtype, data instanceof Int32Array ? "I32" : "F32");
      assert.deepEqual(found.shape, shape);
      const bits = new Uint32Array(data.buffer, data.byteOffset, data.length);
      assert.deepEqual(
        new Uint32Array(found.data.buffer),
        new Uint32Array(bits),
        `${seed} ${name}`,
      );
    }
    const bytes = await Deno.readFile(path);
    assert.equal(new DataView(bytes.buffer).getUint32(0, true) % 8, 0);
  }));

Deno.test("half, bfloat16 and double are converted", () =>
  withFile(async (path) => {
    const values = [0, -1.5, 0.333251953125, 65504, -0.0001220703125];
    const doubles = new Float64Array(values);
    const halves = new Float16Array(values);
    const brains = Uint16Array.from(values, (v) => {
      return new Uint32Array(new Float32Array([v]).buffer)[0] >>> 16;
    });
    for (const [dtype, data] of [["F64", doubles], ["F16", halves], ["BF16", brains]] as const) {
      // With an odd header the data is not aligned.
      const entry = { dtype, shape: [5], data_offsets: [0, data.byteLength] };
      await Deno.writeFile(path, rawFile(entry, new Uint8Array(data.buffer), 3));
      const found = (await readSafetensors(path)).tensors.get("x")!;
      assert.equal(found.dtype, dtype);
      const tolerance = dtype === "BF16" ? 2 ** -7 : 0;
      found.data.forEach((v, i) => {
        assert(Math.abs(v - values[i]) <= tolerance * Math.abs(values[i]), `${dtype} ${v}`);
      });
    }
  }));

Deno.test("empty tensors may begin where others do, in any order", () =>
  withFile(async (path) => {
    // "a" is listed first and is not empty: the empty ones lie before, between and after.
    const entry = (begin: number, end: number) => ({
      dtype: "F32",
      shape: [(end - begin) / 4],
      data_offsets: [begin, end],
    });
    const header = {
      a: entry(0, 4),
      b: entry(0, 0),
      d: entry(4, 8),
      c: entry(4, 4),
      e: entry(8, 8),
    };
    const data = Float32Array.of(1, 2);
    await Deno.writeFile(path, fileOf(header, new Uint8Array(data.buffer)));
    const { tensors } = await readSafetensors(path);
    const read = Object.keys(header).map((name) => [...tensors.get(name)!.data]);
    assert.deepEqual(read, [[1], [], [2], [], []]);
  }));

Deno.test("damaged and foreign files are refused in one line", () =>
  withFile(async (path) => {
    const data = new Uint8Array(8);
    const good = { dtype: "F32", shape: [2], data_offsets: [0, 8] };
    const whole = rawFile(good, data);
    const cases: [string, Uint8Array, RegExp][] = [
      ["empty", new Uint8Array(0), /0 bytes/],
      ["text", new TextEncoder().encode("This is a plain text file"), /header claims/],
      ["cut in the data", whole.subarray(0, -1), /x ends at/],
      ["cut in the header", whole.subarray(0, 20), /header claims/],
      ["left over", new Uint8Array([...whole, 0]), /1 bytes left over/],
      ["no JSON", whole.map((b, i) => i === 9 ? 0x7b : b), /not JSON/],
      ["type", rawFile({ ...good, dtype: "I64" }, data), /type I64; known are/],
      ["size", rawFile({ ...good, shape: [3] }, data), /\[3\] cannot have 8 bytes/],
      ["shape", rawFile({ ...good, shape: [-2] }, data), /entry of x/],
      ["offsets", rawFile({ ...good, data_offsets: [8, 16] }, data), /does not follow/],
      ["entry", rawFile({ dtype: "F32" }, data), /entry of x/],
      ["metadata", fileOf({ __metadata__: { step: 3 }, x: good }, data), /__metadata__ is not/],
      ["overlap", fileOf({ x: good, y: good }, data), /y does not follow/],
    ];
    for (const [name, bytes, expected] of cases) {
      await Deno.writeFile(path, bytes);
      await assert.rejects(readSafetensors(path), (error: Error) => {
        assert(error instanceof UserError, `${name}: ${error}`);
        assert(error.message.includes(path) && !error.message.includes("\n"), name);
        assert.match(error.message, expected, name);
        return true;
      });
    }
    await Deno.writeFile(path, whole);
    assert.equal((await readSafetensors(path)).tensors.size, 1);
    await assert.rejects(readSafetensors(`${path}.none`), /Cannot read .*there is no such file/);
    await assert.rejects(readSafetensors("/dev/zero"), /zero: it is not a file/);
  }));

Deno.test("a shape that the data does not fill is refused", () =>
  withFile(async (path) => {
    const wrong = new Map([["w", { shape: [2, 3], data: new Float32Array(5) }]]);
    await assert.rejects(writeSafetensors(path, wrong), RangeError);
    await assert.rejects(Deno.stat(path), Deno.errors.NotFound);
  }));
