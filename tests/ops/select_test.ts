/** Selections: kernels, in both families and in one or many chunks, against twins, exactly. */
import assert from "node:assert/strict";
import type { TieRule } from "../../src/kernels/select/top_k.ts";
import type { Indexer } from "../../src/kernels/indexer/indexer.ts";
import { mlaTeacher } from "../../src/ops/indexer/teacher.ts";
import { oracleTopk } from "../../src/ops/select/oracle.ts";
import { mlaAttention } from "../../src/ops/attention/mla_attention.ts";
import type { Tensor } from "../../src/ops/op.ts";
import type { Capabilities } from "../../src/kernels/wgsl/device.ts";
import { indexTopk, type IndexTopkAttributes } from "../../src/ops/select/index.ts";
import { positionTopk, type PositionTopkAttributes } from "../../src/ops/select/positions.ts";
import { selectionMask } from "../../src/ops/select/mask.ts";
import type { SelectionContext } from "../../src/ops/select/selectors/selector.ts";
import { selectors } from "../../src/ops/select/selectors/selectors.ts";
import { Rng } from "../../src/rng.ts";
import { type RunInput, runOp, runTwin } from "../run_op.ts";

const FAMILIES: Record<string, Partial<Capabilities>> = {
  software: { software: true },
  "software without subgroups": { software: true, subgroups: null },
  GPU: { software: false },
};

const RULES: readonly TieRule[] = ["oldest", "newest"];

/** Calls `body` with a generator, and names its seed if it fails. */
async function seeded(body: (rng: Rng) => Promise<void>): Promise<void> {
  const seed = Math.floor(Math.random() * 2 ** 31);
  try {
    await body(new Rng(seed, "select_test"));
  } catch (error) {
    throw new Error(`Seed ${seed}`, { cause: error });
  }
}

/** Whole numbers from -2 to 2, with zeros of both signs: exact products, and many ties. */
function coarse(rng: Rng, rows: number, cols: number): RunInput {
  const values = Array.from({ length: rows * cols }, () => {
    const x = rng.below(5) - 2;
    return x === 0 && rng.below(2) ? -0 : x;
  });
  return { rows, cols, values };
}

function normal(rng: Rng, rows: number, cols: number): RunInput {
  return { rows, cols, values: Array.from({ length: rows * cols }, () => rng.normal()) };
}

type Sizes = { batch: number; seqLen: number; topk: number };

/** Every row: min(k, t + 1) different positions up to t, ascending, then -1. */
function checkContract(name: string, indices: ArrayLike<number>, { batch, seqLen, topk }: Sizes) {
  assert.equal(indices.length, batch * seqLen * topk);
  for (let row = 0; row < batch * seqLen; row++) {
    const own = Array.from(indices).slice(row * topk, (row + 1) * topk);
    const t = row % seqLen;
    const count = Math.min(topk, t + 1);
    for (let i = 0; i < topk; i++) {
      const fits = i < count ? own[i] > (i ? own[i - 1] : -1) && own[i] <= t : own[i] === -1;
      assert.ok(fits, `${name}: row ${row} is ${own}`);
    }
  }
}

/** Kernels of both families equal the float64 twin; returns what they select. */
async function checkSelection(
  name: string,
  inputs: RunInput[],
  apply: (inputs: Tensor[]) => Tensor,
  sizes: Sizes,
  capabilities: Partial<Capabilities> = {},
): Promise<ArrayLike<number>> {
  const [want] = await runTwin(inputs, (x) => [apply(x)]);
  checkContract(`${name}, twin`, want, sizes);
  for (const [family, changes] of Object.entries(FAMILIES)) {
    const [got] = await runOp(inputs, (x) => [apply(x)], { ...changes, ...capabilities });
    assert.deepEqual([...got], Array.from(want), `${name}, ${family}`);
  }
  return want;
}

function indexerInputs(rng: Rng, { batch, seqLen, indexer }: IndexTopkAttributes): RunInput[] {
  const { heads, dim } = indexer;
  const rows = batch * seqLen;
  return [coarse(rng, rows, heads * dim), coarse(rng, rows, dim), coarse(rng, rows, heads)];
}

type Block = IndexTopkAttributes["block"];

const INDEX_CASES: [[number, number, number], [number, number], Partial<Indexer>?, Block?][] = [
  [[1, 1, 1], [1, 1]],
  [[2, 37, 7], [3, 5]],
  [[3, 40, 1], [1, 4]],
  [[1, 67, 67], [2, 8], { activation: "none" }],
  [[2, 20, 33], [4, 3]],
  [[1, 300, 100], [1, 2]],
  [[2, 37, 10], [2, 4], {}, { size: 4, pool: "max" }],
  // Scale 1 keeps all sums whole numbers: with another, equal means could round apart.
  [[1, 50, 16], [2, 4], { activation: "none", scale: 1 }, { size: 8, pool: "mean" }],
];

for (const [[batch, seqLen, topk], [heads, dim], own, block] of INDEX_CASES) {
  const label = `${topk} of ${batch}x${seqLen}${block ? `, ${block.pool} of ${block.size}` : ""}`;
  Deno.test(`indexTopk ${label}: kernels equal the twin`, () =>
    seeded(async (rng) => {
      const attributes: IndexTopkAttributes = {
        batch,
        seqLen,
        topk,
        indexer: { heads, dim, activation: "relu", scale: (heads * dim) ** -0.5, ...own },
        block,
      };
      const inputs = indexerInputs(rng, attributes);
      for (const ties of RULES) {
        const apply = ([q, k, w]: Tensor[]) => indexTopk(q, k, w, { ...attributes, ties });
        const want = await checkSelection(`${label}, ${ties}`, inputs, apply, attributes);
        const [wasm] = await runTwin(inputs, (x) => [apply(x)], "wasm");
        assert.deepEqual([...Array.from(wasm)], [...Array.from(want)], "twin on wasm");
        if (block) continue;
        assert.deepEqual([...Array.from(want)], sortedSelection(inputs, { ...attributes, ties }));
      }
    }));
}

/** The selection by sorting, in plain loops. */
function sortedSelection(
  [q, k, w]: RunInput[],
  { batch, seqLen, topk, ties, indexer: { heads, dim, activation } }: IndexTopkAttributes,
): number[] {
  const sign = ties === "newest" ? -1 : 1;
  const out: number[] = [];
  for (let row = 0; row < batch * seqLen; row++) {
    const first = row - row % seqLen;
    const scores = Array.from({ length: row - first + 1 }, (_, s) => {
      let sum = 0;
      for (let j = 0; j < heads; j++) {
        let dot = 0;
        for (let e = 0; e < dim; e++) {
          dot += q.values[(row * heads + j) * dim + e] * k.values[(first + s) * dim + e];
        }
        sum += w.values[row * heads + j] * (activation === "relu" ? Math.max(dot, 0) : dot);
      }
      return sum;
    });
    const best = [...scores.keys()]
      .sort((a, b) => scores[b] - scores[a] || sign * (a - b)).slice(0, topk);
    best.sort((a, b) => a - b);
    out.push(...best, ...Array(topk - best.length).fill(-1));
  }
  return out;
}

Deno.test("indexTopk: many chunks select what one chunk does", () =>
  seeded(async (rng) => {
    for (const block of [undefined, { size: 5, pool: "max" as const }]) {
      const attributes: IndexTopkAttributes = {
        batch: 3,
        seqLen: 45,
        topk: 9,
        ties: block ? "newest" : "oldest",
        indexer: { heads: 2, dim: 4, activation: "relu", scale: 1 },
        block,
      };
      const inputs = indexerInputs(rng, attributes);
      const apply = ([q, k, w]: Tensor[]) => indexTopk(q, k, w, attributes);
      // 11 rows of scores fit.
      const capabilities = { maxBindingBytes: 4 * 500 };
      await checkSelection("chunks", inputs, apply, attributes, capabilities);
    }
  }));

Deno.test("indexTopk: later tokens don't change a row's selection", () =>
  seeded(async (rng) => {
    const attributes: IndexTopkAttributes = {
      batch: 1,
      seqLen: 48,
      topk: 12,
      indexer: { heads: 2, dim: 4, activation: "relu", scale: 1 },
    };
    const inputs = indexerInputs(rng, attributes);
    const t = 1 + rng.below(46);
    const changed = inputs.map((input) => {
      const values = Array.from(input.values);
      for (let i = (t + 1) * input.cols; i < values.length; i++) values[i] = 3 * rng.normal();
      return { ...input, values };
    });
    for (const block of [undefined, { size: 8, pool: "mean" as const }]) {
      for (const changes of Object.values(FAMILIES)) {
        const run = async (inputs: RunInput[]) => {
          const apply = ([q, k, w]: Tensor[]) => [indexTopk(q, k, w, { ...attributes, block })];
          return (await runOp(inputs, apply, changes))[0].slice(0, (t + 1) * 12);
        };
        assert.deepEqual(await run(changed), await run(inputs), `rows 0 to ${t}`);
      }
    }
  }));

const POSITION_CASES: PositionTopkAttributes[] = [
  { batch: 2, seqLen: 33, topk: 5, kind: "random", seed: 4_000_000_000 },
  { batch: 1, seqLen: 40, topk: 64, kind: "random", seed: 7 },
  { batch: 3, seqLen: 21, topk: 6, kind: "recency" },
  { batch: 2, seqLen: 30, topk: 7, kind: "sinkRecency", sinks: 3 },
  { batch: 1, seqLen: 9, topk: 2, kind: "sinkRecency", sinks: 2 },
  { batch: 1, seqLen: 9, topk: 12, kind: "sinkRecency", sinks: 4 },
];

for (const attributes of POSITION_CASES) {
  const { batch, seqLen, topk, kind } = attributes;
  Deno.test(`positionTopk ${kind} ${topk} of ${batch}x${seqLen}: kernels equal the twin`, () =>
    seeded(async (rng) => {
      const inputs = [normal(rng, batch * seqLen, 3)];
      // 11 or more rows of scores, or indices, fit.
      const capabilities = { maxBindingBytes: 4 * Math.max(500, seqLen * topk + 64) };
      const apply = ([x]: Tensor[]) => positionTopk(x, attributes);
      const indices = await checkSelection(kind, inputs, apply, attributes, capabilities);
      const last = Array.from(indices).slice(-topk).filter((s) => s >= 0);
      if (kind === "recency") assert.deepEqual(last, Array.from({ length: 6 }, (_, i) => 15 + i));
      if (kind === "sinkRecency" && topk === 7) assert.deepEqual(last, [0, 1, 2, 26, 27, 28, 29]);
    }));
}

Deno.test("positionTopk random: seeds differ, keys are equally likely", async () => {
  const sizes = { batch: 1, seqLen: 64, topk: 8 };
  const x = { rows: 64, cols: 1, values: new Float32Array(64) };
  const hits = new Float64Array(64);
  const seen = new Set<string>();
  const seeds = Array.from({ length: 40 }, () => Math.floor(Math.random() * 2 ** 32));
  const runs = await runOp(
    [x],
    ([x]) => seeds.map((seed) => positionTopk(x, { ...sizes, kind: "random", seed })),
  );
  for (const run of runs) {
    seen.add(String(run));
    for (const s of run.slice(-8)) hits[s]++;
  }
  assert.equal(seen.size, new Set(seeds).size);
  // Each key is expected 5 times; the variance of the hits of 40 draws is 4.375.
  const spread = hits.reduce((sum, n) => sum + (n - 5) ** 2, 0) / 64;
  assert.ok(spread > 1.5 && spread < 9, `variance ${spread}, seeds ${seeds}`);
});

Deno.test("oracleTopk: kernels equal the twin", () =>
  seeded(async (rng) => {
    const sizes = { batch: 2, seqLen: 35, topk: 6 };
    const dims = { heads: 3, qkNopeHeadDim: 5, qkRopeHeadDim: 2, vHeadDim: 4 };
    const inputs = [[21, 0], [27, 0], [2, 0]].map(([cols]) => normal(rng, 70, cols));
    const apply = ([q, kv, kPe]: Tensor[]) => {
      const { lse } = mlaAttention(q, kv, kPe, { ...sizes, ...dims });
      return oracleTopk(q, kv, kPe, lse, { ...sizes, teacher: mlaTeacher(dims) });
    };
    await checkSelection("oracle", inputs, apply, sizes);
  }));

Deno.test("oracleTopk: of equal weights the oldest, or the newest", () =>
  seeded(async (rng) => {
    // One head and whole numbers: equal scores have equal weights, bit by bit.
    const sizes = { batch: 2, seqLen: 35, topk: 6 };
    const dims = { heads: 1, qkNopeHeadDim: 3, qkRopeHeadDim: 2, vHeadDim: 4 };
    const inputs = [5, 7, 2].map((cols) => coarse(rng, 70, cols));
    const found = [];
    for (const ties of RULES) {
      const apply = ([q, kv, kPe]: Tensor[]) => {
        const { lse } = mlaAttention(q, kv, kPe, { ...sizes, ...dims });
        return oracleTopk(q, kv, kPe, lse, { ...sizes, teacher: mlaTeacher(dims), ties });
      };
      found.push(await checkSelection(`oracle, ${ties}`, inputs, apply, sizes));
    }
    assert.notDeepEqual(found[0], found[1]);
  }));

Deno.test("block by equal scores: the oldest blocks, or the newest, whole where there is room", async () => {
  // Blocks of 3 keys score 1, 4, 1, 4, 1; two keys are seen of the last.
  const [batch, seqLen, topk] = [1, 14, 8];
  const scores = [1, 0, 0, 0, 4, 0, 1, 1, 0, 4, 4, 0, 0, 1];
  const column = (values: number[]) => ({ rows: seqLen, cols: 1, values });
  const ones = column(Array(seqLen).fill(1));
  const wanted = {
    oldest: [0, 1, 3, 4, 5, 9, 10, 11],
    newest: [3, 4, 5, 9, 10, 11, 12, 13],
  };
  for (const ties of RULES) {
    const apply = ([q, k, w]: Tensor[]) =>
      indexTopk(q, k, w, {
        ...{ batch, seqLen, topk, ties, block: { size: 3, pool: "max" } },
        indexer: { heads: 1, dim: 1, activation: "none", scale: 1 },
      });
    const inputs = [ones, column(scores), ones];
    const rows = await checkSelection(ties, inputs, apply, { batch, seqLen, topk });
    assert.deepEqual(Array.from(rows).slice(-topk), wanted[ties]);
  }
});

Deno.test("selectionMask: kernel equals the twin", () =>
  seeded(async (rng) => {
    for (const [batch, seqLen, topk] of [[1, 1, 1], [2, 70, 9], [1, 64, 64], [3, 33, 50]]) {
      const inputs = [normal(rng, batch * seqLen, 1)];
      const seed = rng.uint32();
      const apply = ([x]: Tensor[]) => {
        const indices = positionTopk(x, { batch, seqLen, topk, kind: "random", seed });
        return [indices, selectionMask(indices, { seqLen })];
      };
      const [indices, mask] = await runOp(inputs, apply);
      assert.deepEqual([...mask], Array.from((await runTwin(inputs, apply))[1]));
      const words = Math.ceil(seqLen / 32);
      const listed = Array.from({ length: batch * seqLen }, (_, row) =>
        Array.from({ length: 32 * words }, (_, s) =>
          s)
          .filter((s) => mask[row * words + (s >> 5)] >> (s & 31) & 1));
      const rows = listed.map((_, row) =>
        [...indices.slice(row * topk, (row + 1) * topk)].filter((s) =>
          s >= 0
        )
      );
      assert.deepEqual(listed, rows);
    }
  }));

Deno.test("every selector keeps the contract", () =>
  seeded(async (rng) => {
    const sizes = { batch: 2, seqLen: 26, topk: 7 };
    const dims = { heads: 2, qkNopeHeadDim: 4, qkRopeHeadDim: 2, vHeadDim: 4 };
    const inputs = [8, 4, 2, 12, 16, 2].map((cols) => normal(rng, 52, cols));
    const context = ([qI, kI, w, q, kv, kPe]: Tensor[]): SelectionContext => ({
      ...sizes,
      ties: "newest",
      like: qI,
      indexer: () => ({ qI, kI, w, indexer: { heads: 2, dim: 4, activation: "relu", scale: 1 } }),
      attention() {
        const { lse } = mlaAttention(q, kv, kPe, { ...sizes, ...dims });
        return { q, kv, kPe, lse, teacher: mlaTeacher(dims) };
      },
      seed: 3,
      sinks: 2,
      block: { size: 4, pool: "max" },
    });
    for (const [name, selector] of Object.entries(selectors)) {
      if (name === "dense") continue;
      const apply = (tensors: Tensor[]) => [selector.select(context(tensors))!];
      checkContract(name, (await runOp(inputs, apply))[0], sizes);
    }
  }));

Deno.test("selections refuse what does not fit", async () => {
  const sizes = { batch: 1, seqLen: 4, topk: 2 };
  const indexer: Indexer = { heads: 2, dim: 3, activation: "relu", scale: 1 };
  const index = { ...sizes, indexer };
  const teacher = mlaTeacher({ heads: 2, qkNopeHeadDim: 2, qkRopeHeadDim: 1, vHeadDim: 1 });
  const matrix = (cols: number) => ({ rows: 4, cols, values: new Float32Array(4 * cols) });
  const inputs = [matrix(6), matrix(3), matrix(2)];
  const tries: [(x: Tensor[]) => Tensor, RegExp][] = [
    [([q, k]) => indexTopk(q, k, k, index), /indexTopk to 4x6, 4x3, 4x3: expected .*w \[4, 2\]/],
    [([q, k, w]) => indexTopk(q, k, w, { ...index, topk: 0 }), /topk is 0/],
    [
      ([q, k, w]) => indexTopk(q, k, w, { ...index, indexer: { ...indexer, scale: NaN } }),
      /scale is NaN/,
    ],
    [
      ([q, k, w]) => indexTopk(q, k, w, { ...index, indexer: { ...indexer, dim: 6 } }),
      /kI \[4, 6\]/,
    ],
    [
      ([q, k, w]) => indexTopk(q, k, w, { ...index, block: { size: 1.5, pool: "max" } }),
      /blockSize is 1.5/,
    ],
    [([q]) => positionTopk(q, { ...sizes, seqLen: 70_000, kind: "recency" }), /seqLen is 70000/],
    [([q]) => positionTopk(q, { ...sizes, kind: "random", seed: -1 }), /seed is -1/],
    [([q]) => positionTopk(q, { ...sizes, kind: "sinkRecency", sinks: 3 }), /sinks is 3/],
    [([q]) => selectionMask(q, { seqLen: 4 }), /i32 indices/],
    [
      ([q, k, w]) => oracleTopk(q, k, k, w, { ...sizes, teacher }),
      /kv \[4, 6\]/,
    ],
  ];
  for (const [apply, message] of tries) {
    await assert.rejects(runOp(inputs, (x) => [apply(x)]), (error: Error) => {
      assert.ok(error instanceof RangeError);
      assert.match(error.message, message);
      return true;
    });
  }
});
