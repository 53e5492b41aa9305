import type { AttentionSpec } from "../../kernels/attention/attention.ts";
import { recordAttentionGradient, wantedSinks } from "./gradient.ts";
import { recordAttention, requireHeads, twinHeads, twinOfAttention } from "./passes.ts";
import { matrixType, type Op, requireShapes, type Tensor } from "../op.ts";

/** Attributes of {@linkcode attention}. */
export interface AttentionDims {
  batch: number;
  seqLen: number;
  /** Query heads. */
  heads: number;
  /** Key and value heads; divides `heads`. */
  kvHeads: number;
  /** Factor of the scores; default (width of a head of q)^-0.5. */
  scale?: number;
  /** Sliding window: a query sees itself and the window - 1 keys before. Default: all before. */
  window?: number;
}

/** Attention of the op's attributes and the widths of its key and value heads. */
function specOf(
  { batch, seqLen, heads, kvHeads, scale, window }: AttentionDims,
  keyCols: number,
  valueCols: number,
): AttentionSpec {
  const nope = keyCols / kvHeads;
  const dims = { heads, kvHeads, nope, rope: 0, value: valueCols / kvHeads, packed: false };
  return { dims, extent: { batch, seqLen }, scale: scale ?? nope ** -0.5, window };
}

/** Causal attention; see {@linkcode attention}. */
export const attentionOp: Op<AttentionDims> = {
  name: "attention",
  savesOutputs: true,
  types(inputs, attributes) {
    const [q, k, v] = inputs;
    const { batch, seqLen, heads, kvHeads } = attributes;
    const rows = batch * seqLen;
    requireShapes(
      inputs.length === 3 && inputs.every((x) => x.rows === rows && x.dtype === "f32") &&
        k.cols % kvHeads === 0 && v.cols % kvHeads === 0 && q.cols * kvHeads === k.cols * heads,
      "attention",
      inputs,
      `q [${rows}, ${heads} * width], k [${rows}, ${kvHeads} * width], v [${rows}, ${kvHeads} * any]`,
    );
    const spec = specOf(attributes, k.cols, v.cols);
    requireHeads("attention", spec);
    return [matrixType(rows, heads * spec.dims.value), matrixType(rows, heads)];
  },
  twin(tf, [q, k, v], attributes) {
    const { heads, kvHeads } = attributes;
    const { extent, scale, window } = specOf(attributes, k.shape[1], v.shape[1]);
    const { batch, seqLen } = extent;
    // [batch, kvHeads, seqLen, width] with each head repeated for its group of query heads.
    const repeat = (x: typeof k) => {
      const width = x.shape[1] / kvHeads;
      const perHead = tf.reshape(twinHeads(tf, x, extent, kvHeads), [
        batch,
        kvHeads,
        1,
        seqLen * width,
      ]);
      const repeated = tf.tile(perHead, [1, 1, heads / kvHeads, 1]);
      return tf.reshape(repeated, [batch, heads, seqLen, width]);
    };
    const own = twinHeads(tf, q, extent, heads);
    return twinOfAttention(tf, own, repeat(k), repeat(v), scale, { window });
  },
  forward(r, [q, k, v], [o, lse], attributes) {
    recordAttention(r, specOf(attributes, k.cols, v.cols), { q, k, v }, { o, lse });
  },
  backward(r, g, [q, k, v], [o, lse], attributes) {
    recordAttentionGradient(r, specOf(attributes, k.cols, v.cols), {
      inputs: { q, k, v },
      outputs: { o, lse },
      gradO: g.gradient(0),
      sinks: wantedSinks(g, ["q", "k", "v"]),
    });
  },
};

/**
 * Causal multi-head attention (Vaswani et al., 2017, arXiv:1706.03762, eq. 1), or grouped-query
 * attention (Ainslie et al., 2023, arXiv:2305.13245) where there are fewer key heads than query
 * heads: head h of the token at t is Σ_{s ≤ t} P_h[t, s] v_g[s], with
 * P_h[t, ·] = softmax(scale · q_h[t] · k_g[·]) and g = floor(h / (heads / kvHeads)). With `window`
 * only keys with t - s < window count (sliding window attention; Beltagy et al., 2020,
 * arXiv:2004.05150).
 *
 * @param q [batch · seqLen, heads · width]
 * @param k [batch · seqLen, kvHeads · width]
 * @param v [batch · seqLen, kvHeads · value width]
 * @returns `o` [batch · seqLen, heads · value width] and `lse` [batch · seqLen, heads], the natural
 * logarithm of Σ_s exp(score); `lse` passes no gradient
 * @throws {RangeError} if shapes and head counts do not fit
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { attention } from "./attention.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const q = backend.tensor([0, 0], 2, 1), k = backend.tensor([1, 2], 2, 1);
 * const v = backend.tensor([2, 4], 2, 1);
 * const dims = { batch: 1, seqLen: 2, heads: 1, kvHeads: 1 };
 * assert.deepEqual([...backend.read(attention(q, k, v, dims).o)], [2, 3]);
 * assert.deepEqual([...backend.read(attention(q, k, v, { ...dims, window: 1 }).o)], [2, 4]);
 * ```
 */
export function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  dims: AttentionDims,
): { o: Tensor; lse: Tensor } {
  const [o, lse] = q.backend.apply(attentionOp, [q, k, v], dims);
  return { o, lse };
}
