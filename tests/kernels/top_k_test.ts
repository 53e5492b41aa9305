import assert from "node:assert/strict";
import { type TieRule, topK } from "../../src/kernels/select/top_k.ts";
import { Rng } from "../../src/rng.ts";
import { testGpu } from "../check_op.ts";
import { layout, runKernels } from "../run_kernel.ts";
import { type Layout } from "../../src/kernels/wgsl/operand.ts";

/** What to select from. */
interface Case {
  batch?: number;
  rows: number;
  firstRow: number;
  k: number;
  /** Columns of memory before and after the scores. */
  margin?: number;
  /** Which of equal scores is taken first. */
  ties?: TieRule;
}

const RULES: readonly TieRule[] = ["oldest", "newest"];

/** Distributions of scores. */
const SCORES: Record<string, (rng: Rng) => number> = {
  "ties and zeros of both signs": (rng) => [-2, -1, -0, 0, 0, 1, 2][rng.below(7)],
  "one value": () => -1.5,
  "normal": (rng) => rng.normal(),
  "all magnitudes": (rng) => rng.normal() * 10 ** (rng.below(70) - 35),
  "infinities": (rng) => [-Infinity, Infinity, 1, -1, 1e-40, -1e-40][rng.below(6)],
};

/** Positions of the k largest of these scores, ascending, then -1. */
function sorted(scores: Float32Array, k: number, ties: TieRule = "oldest"): number[] {
  const tied = (a: number, b: number) => ties === "oldest" ? a - b : b - a;
  const order = Array.from(scores.keys())
    .sort((a, b) => scores[a] === scores[b] ? tied(a, b) : scores[a] < scores[b] ? 1 : -1)
    .slice(0, k);
  return [...order.sort((a, b) => a - b), ...Array(k - order.length).fill(-1)];
}

/** Runs the kernel; everything that is not to be read is larger than the scores. */
async function select(c: Case, software: boolean, value: () => number) {
  const gpu = await testGpu();
  const { batch = 1, rows, firstRow, k, margin = 0, ties } = c;
  const keys = firstRow + rows;
  const scores: Layout = layout(batch * rows, keys, margin, keys + 2 * margin);
  const indices: Layout = layout(batch * rows, k, margin, k + 2 * margin);
  const values = new Float32Array(scores.rows * scores.stride + margin).fill(1e38);
  for (let row = 0; row < scores.rows; row++) {
    for (let s = 0; s <= firstRow + row % rows; s++) {
      values[margin + row * scores.stride + s] = value();
    }
  }
  const out = new Int32Array(indices.rows * indices.stride + margin).fill(-7);
  const capabilities = { ...gpu.capabilities, software };
  const kernel = topK({ scores, indices, firstRow, batch, ties, capabilities });
  const { arrays } = await runKernels(gpu, [values, out], [[kernel, 0, 1]]);
  const got = new Int32Array(arrays[1].buffer);
  const row = (i: number) => {
    const start = margin + i * indices.stride;
    return [...got.subarray(start, start + k)];
  };
  return { values, scores, row, got };
}

async function check(c: Case, software: boolean, name: string): Promise<void> {
  const seed = Math.floor(Math.random() * 2 ** 31);
  const rng = new Rng(seed, name);
  const { values, scores, row, got } = await select(c, software, () => SCORES[name](rng));
  const { rows, firstRow, k, margin = 0, ties } = c;
  for (let i = 0; i < scores.rows; i++) {
    const start = margin + i * scores.stride;
    const want = sorted(values.subarray(start, start + firstRow + i % rows + 1), k, ties);
    assert.deepEqual(row(i), want, `${name}, ${ties}, row ${i}, seed ${seed}`);
  }
  const untouched = got.filter((x) => x === -7).length;
  assert.equal(untouched, got.length - scores.rows * k, "wrote outside of the indices");
}

const CASES: Case[] = [
  { rows: 1, firstRow: 0, k: 1 },
  { batch: 3, rows: 37, firstRow: 0, k: 1 },
  { batch: 2, rows: 66, firstRow: 0, k: 20, margin: 3 },
  { rows: 12, firstRow: 84, k: 40, margin: 4 },
  { rows: 40, firstRow: 0, k: 64 },
  { rows: 3, firstRow: 1000, k: 500 },
];

for (const software of [true, false]) {
  const family = software ? "subgroups" : "radix select";
  for (const name of Object.keys(SCORES)) {
    Deno.test(`topK by ${family}, ${name}: equals sorting`, async () => {
      for (const c of CASES) {
        for (const ties of RULES) await check({ ...c, ties }, software, name);
      }
    });
  }

  Deno.test(`topK by ${family}: of equal scores the oldest, or the newest`, async () => {
    const scores = [3, 1, -0, 2, 5, 2, 0, 2, 2, 0];
    const wanted: [TieRule | undefined, number, number[]][] = [
      [undefined, 4, [0, 3, 4, 5]],
      ["oldest", 4, [0, 3, 4, 5]],
      ["newest", 4, [0, 4, 7, 8]],
      ["newest", 6, [0, 3, 4, 5, 7, 8]],
      // Of zeros of either sign.
      ["oldest", 8, [0, 1, 2, 3, 4, 5, 7, 8]],
      ["newest", 8, [0, 1, 3, 4, 5, 7, 8, 9]],
      ["newest", 9, [0, 1, 3, 4, 5, 6, 7, 8, 9]],
    ];
    for (const [ties, k, want] of wanted) {
      const values = scores.values();
      const { row } = await select(
        { rows: 1, firstRow: 9, k, ties },
        software,
        () => values.next().value!,
      );
      assert.deepEqual(row(0), want, `${ties} ${k}`);
    }
  });

  Deno.test(`topK by ${family}: NaN leaves rows of different, visible keys`, async () => {
    const odd = new Float32Array(new Uint32Array([0x7fc00000, 0xffc00000, 0xffffffff]).buffer);
    const rng = new Rng(Math.floor(Math.random() * 2 ** 31), "nan");
    const rows = 80;
    const value = () => rng.below(2) ? odd[rng.below(3)] : rng.normal();
    const { row } = await select({ rows, firstRow: 0, k: 9 }, software, value);
    for (let t = 0; t < rows; t++) {
      const chosen = row(t).filter((s) => s >= 0 && s <= t);
      assert.equal(new Set(chosen).size, Math.min(9, t + 1), `row ${t}: ${row(t)}`);
    }
  });
}

Deno.test("topK of long rows: equals sorting", async () => {
  for (const name of ["ties and zeros of both signs", "normal"]) {
    // Keys in registers, then read anew in each pass; most keys, and nearly all of them.
    for (const ties of RULES) {
      await check({ rows: 2, firstRow: 4998, k: 777, ties }, true, name);
      await check({ rows: 2, firstRow: 9998, k: 2048, ties }, false, name);
    }
  }
  await check({ rows: 2, firstRow: 65_534, k: 65_535 }, false, "normal");
  for (const ties of RULES) {
    await check({ rows: 1, firstRow: 65_535, k: 60_000, ties }, false, "one value");
  }
});

Deno.test("topK refuses what does not fit", async () => {
  const { capabilities } = await testGpu();
  const indices = layout(4, 2);
  const spec = { scores: layout(4, 4), indices, firstRow: 0, capabilities };
  const small = { ...capabilities, software: false, workgroupBytes: 8192 };
  assert.throws(() => topK({ ...spec, firstRow: 1 }), /rows 1 to 5 with scores 4x4/);
  assert.throws(() => topK({ ...spec, indices: layout(3, 2) }), /indices 3x2/);
  assert.throws(() => topK({ ...spec, capacity: 65_537 }), /65537 keys/);
  assert.throws(() => topK({ ...spec, capacity: 65_536, capabilities: small }), /workgroup memory/);
});
