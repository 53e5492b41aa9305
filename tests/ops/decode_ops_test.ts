/** The ops of decoding against their twins, in both families of kernels. */
import assert from "node:assert/strict";
import { absorbedAttention } from "../../src/ops/decode/absorbed_attention.ts";
import { absorbedTopk } from "../../src/ops/decode/absorbed_topk.ts";
import { absorbQueries } from "../../src/ops/decode/absorb_queries.ts";
import { cacheAppend } from "../../src/ops/decode/cache_append.ts";
import { cacheTopk } from "../../src/ops/decode/cache_topk.ts";
import { expandLatents } from "../../src/ops/decode/expand_latents.ts";
import { linear } from "../../src/ops/token/linear.ts";
import type { Tensor } from "../../src/ops/op.ts";
import { ropeAt } from "../../src/ops/decode/rope_at.ts";
import { type CheckInput, checkOp, randomNormal } from "../check_op.ts";
import { type RunInput, runOp, runTwin } from "../run_op.ts";

const FAMILIES = [{ software: true }, { software: false }, { software: true, subgroups: null }];

async function check(
  name: string,
  inputs: CheckInput[],
  apply: (inputs: Tensor[]) => Tensor,
): Promise<void> {
  for (const capabilities of FAMILIES) {
    await checkOp(`${name} ${JSON.stringify(capabilities)}`, {
      inputs: inputs.map((input) => ({ ...input, gradient: false })),
      apply: (x) => [apply(x)],
      capabilities,
    });
  }
}

const at = (position: number): CheckInput & RunInput => ({
  ...{ rows: 1, cols: 1, dtype: "i32", values: [position] },
});

/** A cache whose rows after `position` are NaN: nobody may look at them. */
function cached(rows: number, cols: number, position: number): CheckInput & RunInput {
  const values = randomNormal(rows * cols).fill(NaN, (position + 1) * cols);
  return { rows, cols, values };
}

for (const layout of ["interleaved", "halfSplit"] as const) {
  Deno.test(`ropeAt, ${layout}: rows at positions of their own`, async () => {
    for (const [heads, headDim, start, dims] of [[1, 2, 0, 2], [3, 7, 2, 4], [2, 12, 4, 8]]) {
      const spec = { heads, headDim, start, dims, layout, theta: 500 };
      await check(`ropeAt ${heads}x${headDim}`, [
        { rows: 3, cols: heads * headDim },
        { rows: 3, cols: 1, dtype: "i32", values: [41, 0, 7] },
      ], ([x, positions]) => ropeAt(x, positions, spec));
    }
  });
}

Deno.test("cacheAppend writes one row and keeps the others", async () => {
  for (const [rows, cols, position] of [[1, 1, 0], [5, 3, 0], [5, 8, 2], [67, 300, 66]]) {
    await check(
      `cacheAppend ${position} of ${rows}x${cols}`,
      [{ rows, cols }, { rows: 1, cols }, at(position)],
      ([cache, row, position]) => cacheAppend(cache, row, position),
    );
  }
});

const HEADS = [[1, 2, 1, 1, 5], [3, 6, 2, 5, 7], [2, 8, 4, 8, 16], [3, 70, 3, 66, 131], [
  4,
  32,
  16,
  32,
  64,
]];

for (const [heads, nope, rope, value, latent] of HEADS) {
  const dims = { heads, qkNopeHeadDim: nope, qkRopeHeadDim: rope, vHeadDim: value };
  const weight = { rows: heads * (nope + value), cols: latent };
  const label = `${heads} heads of ${nope}+${rope}, ${value}, latents of ${latent}`;
  Deno.test(`absorbQueries and expandLatents, ${label}`, async () => {
    await check(
      "absorbQueries",
      [{ rows: 2, cols: heads * (nope + rope) }, weight],
      ([q, w]) => absorbQueries(q, w, dims),
    );
    await check(
      "expandLatents",
      [{ rows: 1, cols: heads * latent }, weight],
      ([x, w]) => expandLatents(x, w, dims),
    );
  });

  for (
    const [capacity, position] of [[1, 0], [20, 0], [20, 19], [200, 63], [200, 64], [200, 150]]
  ) {
    Deno.test(`absorbedAttention at ${position} of ${capacity}, ${label}`, async () => {
      const inputs = [
        { rows: 1, cols: heads * latent },
        { rows: 1, cols: heads * (nope + rope) },
        cached(capacity, latent, position),
        cached(capacity, rope, position),
        at(position),
      ];
      const attend = (window?: number) => ([q, own, c, k, position, indices]: Tensor[]) =>
        absorbedAttention(q, own, c, k, position, indices ?? null, { heads, scale: 0.3, window });
      await check("all", inputs, attend());
      for (const window of [1, 9, 70]) await check(`window ${window}`, inputs, attend(window));
      for (const topk of [1, 9, 70]) {
        // Every second position, as far as that makes as many as there have to be.
        const count = Math.min(topk, position + 1);
        const values = Array.from({ length: topk }, (_, i) => {
          if (i >= count) return -1;
          return 2 * count <= position + 1 ? 2 * i + 1 : i;
        });
        const indices = { rows: 1, cols: topk, dtype: "i32" as const, values };
        await check(`${topk} selected`, [...inputs, indices], attend());
      }
    });
  }
}

Deno.test("absorbedAttention bears scores that exponentials do not, in every part", async () => {
  const latents = randomNormal(130 * 4);
  // Whole numbers, so that scores of -300 to 300 are exact; the largest is in the last part.
  for (let s = 0; s < 130; s++) latents[4 * s] = s === 129 ? 3 : s % 6 - 3;
  await check(
    "large scores",
    [
      { rows: 1, cols: 4, values: [100, 0, 0, 0] },
      { rows: 1, cols: 1 },
      { rows: 130, cols: 4, values: latents },
      { rows: 130, cols: 1, values: new Float32Array(130) },
      at(129),
    ],
    ([q, own, c, k, position]) =>
      absorbedAttention(q, own, c, k, position, null, { heads: 1, scale: 1 }),
  );
});

Deno.test("cacheTopk selects what its twin selects, ties and all", async () => {
  const coarse = (rows: number, cols: number) => ({
    ...{
      rows,
      cols,
      values: Array.from({ length: rows * cols }, () => Math.round(Math.random() * 4) - 2),
    },
  });
  for (
    const [capacity, position, topk] of [[1, 0, 1], [37, 0, 7], [37, 20, 7], [300, 299, 100], [
      40,
      39,
      60,
    ], [1100, 1050, 64]]
  ) {
    for (const [heads, dim] of [[1, 3], [3, 8]]) {
      for (const activation of ["relu", "none"] as const) {
        const keys = coarse(capacity, dim);
        keys.values.fill(NaN, (position + 1) * dim);
        const inputs = [coarse(1, heads * dim), keys, coarse(1, heads), at(position)];
        const indexer = { heads, dim, activation, scale: 0.5 };
        for (const ties of ["oldest", "newest"] as const) {
          const apply = ([q, k, w, position]: Tensor[]) => [
            cacheTopk(q, k, w, position, { topk, indexer, ties }),
          ];
          const [want] = await runTwin(inputs, apply);
          const count = Math.min(topk, position + 1);
          assert.equal(Array.from(want).filter((s) => s >= 0).length, count);
          for (const capabilities of FAMILIES) {
            const [got] = await runOp(inputs, apply, capabilities);
            assert.deepEqual([...got], Array.from(want), `${ties} ${topk} of ${position} + 1`);
          }
        }
      }
    }
  }
});

Deno.test("cacheTopk and absorbedTopk: of equal scores the oldest, or the newest", async () => {
  const column = (values: number[]) => ({ rows: values.length, cols: 1, values });
  const keys = column([3, 1, 2, 2, 5, 2, 2, 1, 9]);
  const [one, none] = [column([1]), column(Array(9).fill(0))];
  const wanted = { oldest: [0, 2, 3, 4], newest: [0, 4, 5, 6] };
  for (const ties of ["oldest", "newest"] as const) {
    const indexer = { heads: 1, dim: 1, activation: "relu", scale: 1 } as const;
    const apply = ([one, keys, q, none, position]: Tensor[]) => [
      cacheTopk(one, keys, one, position, { topk: 4, indexer, ties }),
      absorbedTopk(one, q, keys, none, position, { topk: 4, heads: 1, scale: 1, ties }),
    ];
    const inputs = [one, keys, { rows: 1, cols: 2, values: [0, 1] }, none, at(7)];
    for (const rows of [await runTwin(inputs, apply), await runOp(inputs, apply)]) {
      assert.deepEqual(rows.map((row) => Array.from(row)), [wanted[ties], wanted[ties]]);
    }
  }
});

Deno.test("absorbedTopk selects what attention weighs most, ties and all", async () => {
  /** A few whole numbers, so that equal keys are equal bit by bit. */
  const coarse = (rows: number, cols: number) => ({
    ...{ rows, cols },
    values: Array.from({ length: rows * cols }, () => Math.round(Math.random() * 4) - 2),
  });
  const sizes = [[1, 0, 1], [37, 20, 7], [300, 299, 100], [40, 39, 60], [1100, 1050, 64]];
  for (const [capacity, position, topk] of sizes) {
    for (const [heads, nope, rope, latent] of [[1, 2, 1, 3], [3, 8, 4, 8]]) {
      const [c, k] = [latent, rope].map((cols) => coarse(capacity, cols));
      for (const { values, cols } of [c, k]) values.fill(NaN, (position + 1) * cols);
      const q = [coarse(1, heads * latent), coarse(1, heads * (nope + rope))];
      const apply = ([qLatent, q, c, k, position]: Tensor[]) => [
        absorbedTopk(qLatent, q, c, k, position, { topk, heads, scale: 0.3 }),
      ];
      const inputs = [...q, c, k, at(position)];
      const [want] = await runTwin(inputs, apply);
      const shares = meanAttention(inputs.map(({ values }) => values), { heads, scale: 0.3 });
      for (const capabilities of FAMILIES) {
        const [got] = await runOp(inputs, apply, capabilities);
        const count = Math.min(topk, position + 1);
        assert.equal([...got].findLastIndex((s) => s >= 0), count - 1);
        assert.deepEqual([...got.slice(0, count)], [...got.slice(0, count)].sort((a, b) => a - b));
        // Sums of several heads are rounded: keys that weigh alike may stand for each other.
        const weights = (list: ArrayLike<number>) =>
          Array.from(list).filter((s) => s >= 0).map((s) => shares[s]).sort((a, b) => b - a);
        const [own, wanted] = [weights(got), weights(want)];
        wanted.forEach((x, i) =>
          assert(Math.abs(own[i] - x) <= 1e-5 * x, `${topk} of ${position}`)
        );
      }
    }
  }
});

/** Softmax of the scores of each head, in the mean over them, in float64. */
function meanAttention(
  [qLatent, q, latents, ropeKeys, position]: ArrayLike<number>[],
  { heads, scale }: { heads: number; scale: number },
): number[] {
  const [latent, width] = [qLatent.length / heads, q.length / heads];
  const rope = latent * ropeKeys.length / latents.length;
  const shares = new Array(position[0] + 1).fill(0);
  for (let head = 0; head < heads; head++) {
    const weights = shares.map((_, s) => {
      let score = 0;
      for (let i = 0; i < latent; i++) {
        score += qLatent[head * latent + i] * latents[s * latent + i];
      }
      for (let i = 0; i < rope; i++) {
        score += q[(head + 1) * width - rope + i] * ropeKeys[s * rope + i];
      }
      return Math.exp(score * scale);
    });
    const sum = weights.reduce((a, b) => a + b);
    weights.forEach((weight, s) => shares[s] += weight / sum / heads);
  }
  return shares;
}

Deno.test("linear on a single row", async () => {
  for (const [out, cols] of [[1, 1], [5, 3], [33, 40], [300, 260], [7, 1100]]) {
    const weights = [{ rows: out, cols }, { rows: 2, cols }];
    const x = { rows: 1, cols };
    await check(`linear ${out}x${cols}`, [x, ...weights], ([x, ...w]) => linear(x, w));
    const residual = { rows: 1, cols: out + 2 };
    await check(
      `linear ${out}x${cols} with a residual`,
      [x, ...weights, residual],
      ([x, a, b, residual]) => linear(x, [a, b], residual),
    );
  }
});

Deno.test("decoding ops refuse what does not fit", async () => {
  const matrix = (rows: number, cols: number): CheckInput => ({ rows, cols });
  const refused: [CheckInput[], (x: Tensor[]) => Tensor][] = [
    [[matrix(4, 3), matrix(2, 3), at(0)], ([c, x, t]) => cacheAppend(c, x, t)],
    [[matrix(4, 3), matrix(1, 3), matrix(1, 1)], ([c, x, t]) => cacheAppend(c, x, t)],
    [
      [matrix(1, 6), matrix(5, 2), matrix(1, 2), at(0)],
      ([q, k, w, t]) =>
        cacheTopk(q, k, w, t, {
          topk: 2,
          indexer: { heads: 2, dim: 2, activation: "relu", scale: 1 },
        }),
    ],
    [
      [matrix(1, 4), matrix(1, 6), matrix(5, 2), matrix(4, 2), at(0)],
      ([a, q, c, k, t]) => absorbedAttention(a, q, c, k, t, null, { heads: 2, scale: 1 }),
    ],
    [
      [matrix(2, 4), matrix(2, 1)],
      ([x, t]) =>
        ropeAt(x, t, { heads: 1, headDim: 4, start: 0, dims: 4, layout: "halfSplit", theta: 10 }),
    ],
  ];
  for (const [inputs, apply] of refused) {
    await assert.rejects(checkOp("refused", { inputs, apply: (x) => [apply(x)] }), RangeError);
  }
});
