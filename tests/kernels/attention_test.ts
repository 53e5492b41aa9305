import assert from "node:assert/strict";
import {
  attentionDelta,
  attentionPass,
  type AttentionPlan,
  type AttentionSpec,
  type Named,
  planAttention,
  sumHeads,
} from "../../src/kernels/attention/attention.ts";
import type { AttentionTile } from "../../src/kernels/attention/plan.ts";
import {
  ATTENTION_TILES,
  type PassName,
  planKept,
  ROWS,
  rowShape,
} from "../../src/kernels/attention/tuning.ts";
import { Gpu } from "../../src/webgpu/device/device.ts";
import type { Sink } from "../../src/kernels/wgsl/sink.ts";
import { callOn, layout, runKernels } from "../run_kernel.ts";
import { referenceAttention } from "./attention_reference.ts";
import { type Layout } from "../../src/kernels/wgsl/operand.ts";

const gpu = await Gpu.open();

/** A matrix between two rows of NaN, in columns 4… of wider rows. */
function framed(rows: number, cols: number, values?: ArrayLike<number>): [Float32Array, Layout] {
  const stride = cols + 8;
  const at = layout(rows, cols, stride + 4, stride);
  const array = new Float32Array((rows + 2) * stride).fill(NaN);
  if (values) { for (let i = 0; i < rows * cols; i++) array[index(at, i)] = values[i]; }
  return [array, at];
}

function index(at: Layout, i: number): number {
  return at.offset + Math.floor(i / at.cols) * at.stride + i % at.cols;
}

function relative(name: string, array: Float32Array, at: Layout, expected: Float64Array): number {
  let error = 0;
  let norm = 0;
  const inside = new Set<number>();
  for (let i = 0; i < expected.length; i++) {
    inside.add(index(at, i));
    error += (array[index(at, i)] - expected[i]) ** 2;
    norm += expected[i] ** 2;
  }
  for (let i = 0; i < array.length; i++) {
    assert.ok(inside.has(i) || Number.isNaN(array[i]), `${name}: wrote outside, at ${i}`);
  }
  // Gradients may be all zero but for rounding (one token).
  return Math.sqrt(error / Math.max(norm, 1e-4 * expected.length));
}

/** Runs all kernels of attention and compares them with loops in float64. */
async function check(
  spec: AttentionSpec,
  plan: (name: PassName) => AttentionPlan,
  { sharpness = 1 } = {},
): Promise<void> {
  assert.ok(gpu, "no WebGPU adapter");
  const seed = Math.floor(Math.random() * 2 ** 31);
  const { dims, extent: { batch, seqLen } } = spec;
  const rows = batch * seqLen;
  let state = seed;
  const random = (cols: number, size = 1) =>
    Float32Array.from({ length: rows * cols }, () => {
      state = Math.imul(state, 1664525) + 1013904223 >>> 0;
      return (state / 2 ** 31 - 1) * size;
    });
  const { heads, kvHeads, nope, rope, value, packed } = dims;
  const inputs = [
    random(heads * (nope + rope), sharpness),
    ...packed
      ? [random(kvHeads * (nope + value))]
      : [random(kvHeads * nope, sharpness), random(kvHeads * value)],
    ...rope > 0 ? [random(rope)] : [],
  ];
  const gradO = random(heads * value);
  const expected = referenceAttention(spec, inputs, gradO);

  const arrays: Float32Array[] = [];
  const layouts: Layout[] = [];
  const place = (cols: number, values?: ArrayLike<number>) => {
    const [array, at] = framed(rows, cols, values);
    layouts.push(at);
    return arrays.push(array) - 1;
  };
  const ins = inputs.map((x) => place(x.length / rows, x));
  const o = place(heads * value);
  const lse = place(heads);
  const dO = place(heads * value, gradO);
  const delta = place(heads);
  const grads = inputs.map((x) => place(x.length / rows));
  const at = (i: number) => layouts[i];
  const to = (i: number) => ({ into: at(i), add: null });
  const names = ["q", ...packed ? ["kv"] : ["k", "v"], ...rope > 0 ? ["k_pe"] : []];
  const named = <T>(of: (i: number) => T) =>
    Object.fromEntries(names.map((name, i) => [name, of(i)]));
  const shares = rope > 0 ? place(kvHeads * rope) : -1;
  const into = grads.map((place, i) => names[i] === "k_pe" ? shares : place);
  const { q: gradQ, ...gradKv } = named((i) => to(into[i]));
  const pass = (name: PassName, read: Named, written: Record<string, Sink>) =>
    attentionPass(name, spec, plan(name), { read, written });
  const reads = named((i) => at(ins[i]));
  const saved = { grad_o: at(dO), lse: at(lse), delta: at(delta) };
  const kernels = [
    pass("forward", reads, { o: to(o), lse: to(lse) }),
    attentionDelta(spec, at(o), at(dO), at(delta)),
    pass("gradQ", { ...reads, ...saved }, { grad_q: gradQ }),
    pass(
      "gradKv",
      { ...reads, ...saved },
      Object.fromEntries(Object.entries(gradKv).map(([name, sink]) => [`grad_${name}`, sink])),
    ),
    ...rope > 0 ? [sumHeads(at(shares), to(grads[grads.length - 1]))] : [],
  ];
  const calls = kernels.map((kernel) => callOn(kernel, layouts));
  const { arrays: results } = await runKernels(gpu, arrays, calls);
  const context = `${JSON.stringify(spec)}, seed ${seed}`;
  const close = (name: string, i: number, reference: Float64Array, limit: number) => {
    const error = relative(`${name}, ${context}`, results[i], at(i), reference);
    assert.ok(error < limit, `${name} is off by ${error}: ${context}`);
  };
  close("o", o, expected.o, 1e-5);
  close("lse", lse, expected.lse, 1e-5);
  expected.grads.forEach((grad, i) => close(`gradient ${i}`, grads[i], grad, 1e-4));
}

/** A shape from counts and widths. */
function shape(
  [batch, seqLen, heads, kvHeads]: [number, number, number, number],
  [nope, rope, value]: [number, number, number],
  packed = rope > 0,
): AttentionSpec {
  return {
    dims: { heads, kvHeads, nope, rope, value, packed },
    extent: { batch, seqLen },
    scale: (nope + rope) ** -0.5,
  };
}

/** Equal widths and heads have equal code: compiling it takes most of the time. */
const MLA: [[number, number, number, number], [number, number, number]] = [
  [2, 83, 4, 4],
  [16, 8, 8],
];

const SHAPES: [string, AttentionSpec][] = [
  ["GQA of odd widths", shape([1, 33, 6, 2], [5, 0, 9])],
  ["MLA", shape(...MLA)],
  ["MLA with groups and separate values", shape([1, 35, 4, 2], [8, 4, 8], false)],
  ["one token", shape([3, 1, 4, 4], MLA[1])],
];

/** Small, so that short sequences have many tiles and heads several chunks. */
const SMALL_TILE: AttentionTile = { lanesX: 4, lanesY: 4, rows: 2, cols: 4, chunk: 5, unroll: 2 };

const COUNTS = { rows: 2, cols: 2 };

const PLANS: Record<string, AttentionPlan> = {
  rows: { rows: { ...COUNTS, lanes: 8, subgroup: false } },
  "rows of a subgroup": { rows: rowShape(COUNTS, gpu!.capabilities) },
  tiles: { tile: SMALL_TILE },
  "tiles of wide blocks": { tile: { ...SMALL_TILE, cols: 8 } },
};

for (const [family, plan] of Object.entries(PLANS)) {
  for (const [name, spec] of SHAPES) {
    Deno.test(`attention by ${family}: ${name}`, () => check(spec, () => plan));
  }
  Deno.test(`attention by ${family}: large scores do not overflow`, async () => {
    await check(shape([1, 43, 4, 4], MLA[1]), () => plan, { sharpness: 12 });
  });
  Deno.test(`attention by ${family}: sliding window`, async () => {
    for (const [seqLen, window] of [[93, 1], [93, 17], [93, 23], [70, 32], [20, 20], [20, 500]]) {
      await check({ ...shape([2, seqLen, 2, 2], [4, 4, 4]), window }, () => plan);
    }
  });
}

Deno.test("attention: more than 65 535 workgroups", () =>
  check(shape([33_000, 1, 2, 2], [2, 2, 2]), () => PLANS.rows));

Deno.test("attention by rows: every shape of the table", async () => {
  for (const { rows, cols } of ROWS) {
    const spec = shape([1, 70, 2, 2], [4, 0, 4]);
    await check(spec, () => ({ rows: rowShape({ rows, cols }, gpu!.capabilities) }));
  }
});

Deno.test("attention by tiles: every tile of the table", async () => {
  const spec = shape([1, 70, 2, 2], [4, 0, 4]);
  const lists = Object.values(ATTENTION_TILES).flatMap(({ narrow, wide }) => [narrow, wide]);
  const most = Math.max(...lists.map((tiles) => tiles.length));
  for (let i = 0; i < most; i++) {
    for (const width of ["narrow", "wide"] as const) {
      await check(spec, (name) => ({ tile: ATTENTION_TILES[name][width][i] ?? SMALL_TILE }));
    }
  }
});

Deno.test("attention keeps weights for gradients on GPUs, of heads that fit, in long sequences", () => {
  const device = { ...gpu!.capabilities, software: false, workgroupBytes: 32_768 };
  const long = { ...device, maxBindingBytes: 2 ** 30 };
  const spec = shape([2, 2048, 4, 2], [8, 4, 8]);
  assert.deepEqual(planKept(spec, long), [{ first: 0, count: 4 }]);
  // 136 blocks of 64 KiB for each of the two heads that share keys.
  const two = planKept(spec, { ...long, maxBindingBytes: 2 * 2 * 136 * 2 ** 16 });
  assert.deepEqual(two, [{ first: 0, count: 2 }, { first: 2, count: 2 }]);
  assert.equal(planKept(spec, { ...long, maxBindingBytes: 2 ** 24 }), null);
  assert.equal(planKept(spec, { ...long, software: true }), null);
  assert.equal(planKept(spec, { ...long, workgroupBytes: 2 ** 13 }), null);
  assert.equal(planKept({ ...spec, window: 100 }, long), null);
  const selection = { topk: 100 };
  assert.equal(planKept({ ...spec, selection: { ...selection, form: "gathered" } }, long), null);
  assert.ok(planKept({ ...spec, selection: { ...selection, form: "masked" } }, long));
  assert.equal(planKept(shape([2, 256, 4, 2], [8, 4, 8]), long), null);
});

Deno.test("attention falls back to rows where no tile fits the heads", () => {
  const limits = { workgroupBytes: 32_768, maxInvocations: 256, maxBindingBytes: 2 ** 27 };
  const device = { software: false, subgroups: null, ...limits };
  const fits = planAttention("gradKv", shape([1, 64, 2, 2], [128, 64, 128]), device);
  assert.ok("tile" in fits);
  const wide = shape([1, 64, 2, 2], [512, 64, 512]);
  assert.ok("rows" in planAttention("gradKv", wide, device));
  const selection = { form: "gathered", topk: 8 } as const;
  assert.ok("gather" in planAttention("forward", { ...wide, selection }, device));
  const less = { ...device, workgroupBytes: 16_384 };
  assert.ok("rows" in planAttention("gradKv", { ...wide, selection }, less));
});
