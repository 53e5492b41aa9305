/** The ops that decode token by token. */
import type { Indexer } from "../../kernels/indexer/indexer.ts";
import type { TieRule } from "../../kernels/select/top_k.ts";
import { absorbedAttention } from "../../ops/decode/absorbed_attention.ts";
import { absorbedTopk } from "../../ops/decode/absorbed_topk.ts";
import { absorbQueries } from "../../ops/decode/absorb_queries.ts";
import { cacheAppend } from "../../ops/decode/cache_append.ts";
import { cacheTopk } from "../../ops/decode/cache_topk.ts";
import { expandLatents } from "../../ops/decode/expand_latents.ts";
import { ropeAt } from "../../ops/decode/rope_at.ts";
import type { CaseInput, OpCase } from "../cases/check_case.ts";
import type { Random } from "../cases/random.ts";

const dims = { heads: 3, qkNopeHeadDim: 8, qkRopeHeadDim: 4, vHeadDim: 6 };
const [heads, latent, capacity, position, topk] = [3, 20, 150, 99, 9];
const indexer: Indexer = { heads, dim: 8, activation: "relu", scale: 0.5 };

const frozen = (rows: number, cols: number, values?: ArrayLike<number>): CaseInput => ({
  ...{ rows, cols, values, gradient: false },
});
const whole = (values: ArrayLike<number>, rows = 1): CaseInput => ({
  ...{ rows, cols: values.length / rows, values, dtype: "i32" },
});

export function decodingCases(random: Random): OpCase[] {
  /** A cache whose rows after the position are NaN: nobody may look at them. */
  const cached = (cols: number, values = random.normal(capacity * cols)) =>
    frozen(capacity, cols, values.fill(NaN, (position + 1) * cols));
  const at = whole([position]);
  const weight = frozen(heads * (8 + 6), latent);
  const attended = [
    frozen(1, heads * latent),
    frozen(1, heads * 12),
    cached(latent),
    cached(4),
    at,
  ];
  const chosen = whole(Array.from({ length: topk }, (_, i) => 11 * i));
  const attend = (name: string, window?: number, ...more: CaseInput[]): OpCase => ({
    ...{ name: `absorbedAttention, ${name}`, shape: `${position + 1} of ${capacity}x${latent}` },
    inputs: [...attended, ...more],
    apply: ([q, own, c, k, position, indices = null]) => [
      absorbedAttention(q, own, c, k, position, indices, { heads, scale: 0.3, window }),
    ],
  });
  const select = (name: string, ties?: TieRule): OpCase => ({
    ...{ name: `cacheTopk${name}`, shape: `${topk} of ${position + 1}` },
    inputs: [
      frozen(1, 24, random.coarse(24)),
      cached(8, random.coarse(capacity * 8)),
      frozen(1, 3, random.coarse(3)),
      at,
    ],
    apply: ([q, k, w, position]) => [cacheTopk(q, k, w, position, { topk, indexer, ties })],
  });
  return [
    attend("all keys"),
    attend("window", 70),
    attend("selected keys", undefined, chosen),
    {
      ...{ name: "absorbQueries", shape: `2x36, latents of ${latent}` },
      inputs: [frozen(2, 36), weight],
      apply: ([q, w]) => [absorbQueries(q, w, dims)],
    },
    {
      ...{ name: "expandLatents", shape: `1x60, latents of ${latent}` },
      inputs: [frozen(1, heads * latent), weight],
      apply: ([x, w]) => [expandLatents(x, w, dims)],
    },
    {
      ...{ name: "cacheAppend", shape: `${position} of ${capacity}x20` },
      inputs: [frozen(capacity, 20), frozen(1, 20), at],
      apply: ([cache, row, position]) => [cacheAppend(cache, row, position)],
    },
    select(""),
    select(", newest of ties", "newest"),
    {
      ...{ name: "absorbedTopk", shape: `${topk} of ${position + 1}` },
      inputs: attended,
      apply: ([q, own, c, k, position]) => [
        absorbedTopk(q, own, c, k, position, { topk, heads, scale: 0.3 }),
      ],
    },
    {
      ...{ name: "ropeAt", shape: "3x24" },
      inputs: [frozen(3, 24), whole([41, 0, 7], 3)],
      apply: ([x, positions]) => [
        ropeAt(x, positions, {
          ...{ heads: 2, headDim: 12, start: 4, dims: 8, layout: "interleaved", theta: 500 },
        }),
      ],
    },
  ];
}
