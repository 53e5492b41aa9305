import assert from "node:assert/strict";
import { type Form, matmul, type MatmulSpec } from "../../src/kernels/product/matmul.ts";
import {
  CANDIDATES,
  chooseParts,
  PRODUCT_TILES,
  rankTiles,
  type RatedTile,
  tileName,
} from "../../src/kernels/product/tiles.ts";
import type { Capabilities } from "../../src/kernels/wgsl/device.ts";
import { Gpu } from "../../src/webgpu/device/device.ts";
import { callOn, layout, runKernels } from "../run_kernel.ts";
import type { Kernel } from "../../src/kernels/wgsl/kernel.ts";
import type { Layout } from "../../src/kernels/wgsl/operand.ts";

const FORMS: Form[] = ["nt", "nn", "tn"];

/** Random numbers from a seed, so that a failure can be repeated. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 31 - 1;
  };
}

/** A layout inside a larger buffer, aligned for `vec4`s or not. */
function within(rows: number, cols: number, aligned: boolean): Layout {
  const stride = aligned ? Math.ceil(cols / 4) * 4 + 8 : cols + 3;
  return layout(rows, cols, aligned ? 12 : 5, stride);
}

/** An array with random numbers where the layout lies, and NaN around it. */
function fill(m: Layout, next: () => number): Float32Array {
  const out = new Float32Array(m.offset + m.rows * m.stride + 256).fill(NaN);
  for (let r = 0; r < m.rows; r++) {
    for (let c = 0; c < m.cols; c++) out[m.offset + r * m.stride + c] = next();
  }
  return out;
}

/** Gives memory for partial sums, and adds it to the matrices. */
function scratchIn(matrices: Layout[]): (rows: number, cols: number) => Layout {
  return (rows, cols) => {
    const parts = layout(rows, cols);
    matrices.push(parts);
    return parts;
  };
}

interface Case {
  form: Form;
  size: [m: number, n: number, k: number];
  aligned: boolean;
  add: "none" | "inPlace" | "separate";
}

/** Runs a product inside larger buffers, and compares it with plain loops in float64. */
async function check(
  gpu: Gpu,
  { form, size: [m, n, k], aligned, add }: Case,
  capabilities: Capabilities,
  tile?: MatmulSpec["tile"],
): Promise<Kernel[]> {
  const seed = Math.floor(Math.random() * 2 ** 31);
  const next = generator(seed);
  const a = form === "tn" ? within(k, m, aligned) : within(m, k, aligned);
  const b = form === "nt" ? within(n, k, aligned) : within(k, n, aligned);
  const c = within(m, n, aligned);
  const d = within(m, n, aligned);
  const matrices = [a, b, c, d];
  const kernels = matmul({
    form,
    a,
    b,
    c: { into: c, add: add === "none" ? null : add === "separate" ? d : c },
    scratch: scratchIn(matrices),
    capabilities,
    tile,
  });
  const before = fill(c, add === "inPlace" ? next : () => NaN);
  const arrays = [
    fill(a, next),
    fill(b, next),
    before,
    fill(d, next),
    ...matrices.slice(4).map((m) => fill(m, () => NaN)),
  ];
  const calls = kernels.map((kernel) => callOn(kernel, matrices));
  const [, , out] = (await runKernels(gpu, arrays, calls)).arrays;
  let difference = 0;
  // Of the terms, not of their sum: one that cancels to nearly nothing keeps its rounding.
  let norm = 0;
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      const at = c.offset + i * c.stride + j;
      let sum = 0;
      if (add === "inPlace") sum = before[at];
      if (add === "separate") sum = arrays[3][d.offset + i * d.stride + j];
      norm += sum ** 2;
      for (let x = 0; x < k; x++) {
        const left = form === "tn" ? x * a.stride + i : i * a.stride + x;
        const right = form === "nt" ? j * b.stride + x : x * b.stride + j;
        const term = arrays[0][a.offset + left] * arrays[1][b.offset + right];
        sum += term;
        norm += term ** 2;
      }
      difference += (out[at] - sum) ** 2;
    }
  }
  const what = `${form} ${m}x${n}x${k} ${aligned ? "aligned" : "odd"} ${add} seed ${seed}`;
  const error = Math.sqrt(difference / norm);
  assert.ok(error <= 1e-5, `${what}: relative error ${error}`);
  for (let at = 0; at < out.length; at++) {
    const col = (at - c.offset) % c.stride;
    const inside = at >= c.offset && at < c.offset + m * c.stride && col < n;
    if (!inside) assert.ok(Number.isNaN(out[at]), `${what}: wrote outside of c, at ${at}`);
  }
  return kernels;
}

/** Odd sizes, single rows and columns, edges of tiles, sums long enough to be cut into parts. */
const SIZES: [number, number, number][] = [
  [1, 1, 1],
  [3, 5, 7],
  [64, 32, 16],
  [33, 65, 31],
  [130, 68, 36],
  [1, 40, 300],
  [20, 12, 700],
];

/** The cases: every form and size, aligned and not; the ways to add take turns. */
function cases(): Case[] {
  const ways = ["none", "inPlace", "separate"] as const;
  const out: Case[] = [];
  for (const form of FORMS) {
    for (const size of SIZES) {
      for (const aligned of [true, false]) {
        out.push({ form, size, aligned, add: ways[(out.length + FORMS.indexOf(form)) % 3] });
      }
    }
  }
  return out;
}

async function open(): Promise<Gpu> {
  const gpu = await Gpu.open();
  assert.ok(gpu, "No WebGPU adapter");
  return gpu;
}

for (const software of [true, false]) {
  Deno.test(`matmul, ${software ? "software adapter" : "GPU"}: every form, size and addition`, async () => {
    using gpu = await open();
    const capabilities = { ...gpu.capabilities, software };
    let inParts = 0;
    for (const c of cases()) {
      const kernels = await check(gpu, c, capabilities);
      if (kernels.length > 1) inParts++;
    }
    assert.ok(inParts > 0, "No product was computed in parts");
  });
}

/** The bits of a product, computed with a tile inside of larger buffers. */
async function bitsOf(
  gpu: Gpu,
  { form, size: [m, n, k], aligned }: Omit<Case, "add">,
  seed: number,
  tile: RatedTile,
): Promise<Uint32Array> {
  const next = generator(seed);
  const a = form === "tn" ? within(k, m, aligned) : within(m, k, aligned);
  const b = form === "nt" ? within(n, k, aligned) : within(k, n, aligned);
  const c = within(m, n, aligned);
  const capabilities = { ...gpu.capabilities, software: false };
  const matrices = [a, b, c];
  const scratch = scratchIn(matrices);
  const kernels = matmul({ form, a, b, c: { into: c, add: null }, scratch, capabilities, tile });
  const values = matrices.slice(2).map((m) => fill(m, () => NaN));
  const arrays = [fill(a, next), fill(b, next), ...values];
  const calls = kernels.map((kernel) => callOn(kernel, matrices));
  const out = (await runKernels(gpu, arrays, calls)).arrays[2];
  return new Uint32Array(out.buffer);
}

Deno.test("matmul: every tile gives the same bits", async () => {
  using gpu = await open();
  const seed = Math.floor(Math.random() * 2 ** 31);
  const shapes: Omit<Case, "add" | "form">[] = [
    { size: [132, 72, 44], aligned: true },
    { size: [37, 41, 699], aligned: false },
    // Whole tiles of any depth.
    { size: [68, 72, 64], aligned: true },
  ];
  assert.ok(chooseParts([37, 41, 699], 5) > 1, "the second is to be computed in parts");
  const reference = PRODUCT_TILES[PRODUCT_TILES.length - 1];
  for (const [f, form] of FORMS.entries()) {
    const wanted = [];
    for (const shape of shapes) wanted.push(await bitsOf(gpu, { form, ...shape }, seed, reference));
    for (const [i, tile] of CANDIDATES.entries()) {
      // Software adapters need a second to compile a large tile: those that are never chosen, but
      // for tuning the table, take turns at the forms, and all take turns at the shapes.
      if (tile === reference || (!PRODUCT_TILES.includes(tile) && i % FORMS.length !== f)) continue;
      const turn = (i + f) % shapes.length;
      const got = await bitsOf(gpu, { form, ...shapes[turn] }, seed, tile);
      assert.deepEqual(got, wanted[turn], `${form}, tile ${tileName(tile)}, seed ${seed}`);
    }
  }
});

Deno.test("matmul: the parts of a sum follow from the shape, not from the device or the tile", () => {
  const capabilities: Capabilities = {
    software: false,
    maxBindingBytes: 2 ** 31,
    workgroupBytes: 49_152,
    maxInvocations: 1024,
    subgroups: null,
  };
  const weak = { maxBindingBytes: 2 ** 27, workgroupBytes: 16_384, maxInvocations: 256 };
  for (const [m, n, k] of [[384, 128, 8192], [8192, 256, 1536], [4096, 4096, 4096]]) {
    const c = { into: layout(m, n), add: null };
    const spec = { form: "tn" as const, a: layout(k, m), b: layout(k, n), c, scratch: layout };
    const parts = [
      matmul({ ...spec, capabilities }),
      matmul({ ...spec, capabilities: { ...capabilities, ...weak } }),
      ...CANDIDATES.map((tile) => matmul({ ...spec, capabilities, tile })),
    ].map((kernels) => kernels[0].operands[2].rows / m);
    assert.equal(new Set(parts).size, 1, `${parts}`);
  }
});

Deno.test("matmul: more tiles than a grid dimension holds", async () => {
  using gpu = await open();
  const m = 32 * 65_536 + 3;
  const a = layout(m, 1);
  const [kernel] = matmul({
    form: "nt",
    a,
    b: layout(1, 1),
    c: { into: layout(m, 1), add: null },
    scratch: layout,
    capabilities: gpu.capabilities,
  });
  assert.ok(kernel.grid.every((size) => size <= 65_535), `${kernel.grid}`);
  const x = Float32Array.from({ length: m }, (_, i) => i % 1000);
  const out = new Float32Array(m).fill(NaN);
  const { arrays } = await runKernels(gpu, [x, Float32Array.of(3), out], [[kernel, 0, 1, 2]]);
  assert.deepEqual(arrays[2], x.map((value) => 3 * value));
});

Deno.test("matmul refuses shapes that do not fit", async () => {
  using gpu = await open();
  const [a, b, into] = [layout(4, 3), layout(3, 5), layout(4, 5)];
  const common = { a, b, scratch: layout, capabilities: gpu.capabilities };
  const multiply = (form: Form, into: Layout, add: Layout | null = null) =>
    matmul({ ...common, form, c: { into, add } });
  multiply("nn", into);
  const message = /^RangeError: Cannot multiply/;
  assert.throws(() => multiply("nt", into), message);
  assert.throws(() => multiply("nn", layout(5, 4)), message);
  assert.throws(() => multiply("nn", into, layout(4, 4)), message);
});

Deno.test("products fill the device: large tiles for large ones, parts for long sums", () => {
  const choose = (m: number, n: number, k: number) => {
    const parts = chooseParts([m, n, k], Math.floor(k / 128));
    const [tile] = rankTiles(PRODUCT_TILES, [m, n, k], parts);
    return { count: Math.ceil(m / tile.rows) * Math.ceil(n / tile.cols) * parts, parts, tile };
  };
  assert.equal(choose(4096, 4096, 4096).parts, 1);
  assert.equal(choose(4096, 4096, 4096).tile.rows, 128);
  assert.ok(choose(384, 128, 8192).count >= 100);
  assert.ok(choose(384, 128, 8192).parts > 1);
});
