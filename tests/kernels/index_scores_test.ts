import assert from "node:assert/strict";
import { indexScores } from "../../src/kernels/indexer/scores.ts";
import { Rng } from "../../src/rng.ts";
import { testGpu } from "../check_op.ts";
import { layout, runKernels } from "../run_kernel.ts";

/** Sequences, queries, position of the first; heads and channels; columns of memory around. */
type Case = [[number, number, number], [number, number], number];

const CASES: Case[] = [
  [[1, 1, 0], [1, 1], 0],
  [[2, 37, 0], [3, 7], 1],
  [[1, 67, 30], [2, 20], 4],
  [[3, 72, 0], [4, 16], 0],
  [[1, 9, 150], [2, 33], 3],
];

for (const software of [true, false]) {
  Deno.test(`indexScores by ${software ? "subgroups" : "tiles"}: equals loops`, async () => {
    const gpu = await testGpu();
    const seed = Math.floor(Math.random() * 2 ** 31);
    const rng = new Rng(seed, "index_scores");
    for (const [[batch, rows, firstRow], [heads, dim], margin] of CASES) {
      for (const activation of ["relu", "none"] as const) {
        const keys = firstRow + rows;
        const matrix = (rows: number, cols: number) => {
          const m = layout(rows, cols, margin, cols + 2 * margin);
          const values = new Float32Array(m.rows * m.stride + margin).fill(NaN);
          return { m, values, at: (r: number, c: number) => m.offset + r * m.stride + c };
        };
        const q = matrix(batch * rows, heads * dim);
        const k = matrix(batch * keys, dim);
        const w = matrix(batch * rows, heads);
        const scores = matrix(batch * rows, keys);
        for (const { m, values, at } of [q, k, w]) {
          for (let r = 0; r < m.rows; r++) {
            for (let c = 0; c < m.cols; c++) values[at(r, c)] = rng.normal();
          }
        }
        const scale = (heads * dim) ** -0.5;
        const kernel = indexScores({
          q: q.m,
          k: k.m,
          w: w.m,
          scores: scores.m,
          firstRow,
          indexer: { heads, dim, activation, scale },
          batch,
          capabilities: { ...gpu.capabilities, software },
        });
        const inputs = [q, k, w, scores].map((x) => x.values);
        const { arrays } = await runKernels(gpu, inputs, [[kernel, 0, 1, 2, 3]]);
        const got = arrays[3];
        const label = `${kernel.label}, seed ${seed}`;
        for (let r = 0; r < batch * rows; r++) {
          for (let s = 0; s < keys; s++) {
            const value = got[scores.at(r, s)];
            got[scores.at(r, s)] = NaN;
            if (s > firstRow + r % rows) {
              assert.equal(value, -Infinity, label);
              continue;
            }
            let sum = 0;
            for (let j = 0; j < heads; j++) {
              let dot = 0;
              for (let e = 0; e < dim; e++) {
                const key = Math.floor(r / rows) * keys + s;
                dot += q.values[q.at(r, j * dim + e)] * k.values[k.at(key, e)];
              }
              sum += w.values[w.at(r, j)] * (activation === "relu" ? Math.max(dot, 0) : dot);
            }
            assert.ok(Math.abs(value - scale * sum) < 2e-5, `${label}: row ${r}, key ${s}`);
          }
        }
        assert.ok(got.every(Number.isNaN), `${label}: wrote outside`);
      }
    }
  });
}

Deno.test("indexScores refuses what does not fit", async () => {
  const { capabilities } = await testGpu();
  const spec = { q: layout(4, 6), k: layout(4, 3), w: layout(4, 2), scores: layout(4, 4) };
  const indexer = { heads: 2, dim: 3, activation: "relu", scale: 1 } as const;
  indexScores({ ...spec, firstRow: 0, indexer, capabilities });
  assert.throws(
    () => indexScores({ ...spec, firstRow: 0, indexer: { ...indexer, dim: 2 }, capabilities }),
    /score 2 heads of 2 with q, k, w, scores of shapes 4x6, 4x3, 4x2, 4x4/,
  );
});
