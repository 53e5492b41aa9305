/**
 * The attention layer of MoSA, a baseline with content-based sparsity chosen by the heads.
 *
 * N = batch · seqLen tokens, H = numAttentionHeads: x `[N, hiddenSize]`; q, k, v
 * `[N, H · headDim]`; router `[N, H]`, each head's scores of the tokens.
 *
 * @module
 */
import { columns } from "../ops/token/columns.ts";
import { linear } from "../ops/token/linear.ts";
import { mosaAttention } from "../ops/attention/mosa_attention.ts";
import type { Tensor } from "../ops/op.ts";
import type { LayerContext, LayerResult } from "./layer.ts";

/**
 * Mixture of sparse attention on the normed block input, added to `residual`: multi-head
 * attention in which each head sees only the `indexTopk` tokens that it picks; see
 * {@linkcode mosaAttention}, also for why this is not causal at decoding. Positions are rotated
 * before the picks are gathered, so they are those of the sequence. Each head has a key head of
 * its own (`numKeyValueHeads` = `numAttentionHeads`).
 *
 * The weight `mosa_router` `[numAttentionHeads, hiddenSize]` scores the tokens; where it follows
 * `v_proj` in memory, one product makes queries, keys, values and scores.
 *
 * @param x `[N, hiddenSize]`, N = batch · seqLen
 */
export function mixtureOfSparseAttention(
  x: Tensor,
  residual: Tensor,
  layer: LayerContext,
): LayerResult {
  const { batch, seqLen, weight } = layer;
  const { numAttentionHeads: heads, headDim, indexTopk: topk, ...c } = layer.config;
  const layout = c.ropeInterleave ? "interleaved" : "halfSplit";
  const rotate = (x: Tensor) =>
    layer.rotate(x, { heads, headDim, start: 0, dims: headDim, layout, theta: c.ropeTheta });

  const cols = heads * headDim;
  const all = linear(x, ["q_proj", "k_proj", "v_proj", "mosa_router"].map((name) => weight(name)));
  const q = rotate(columns(all, 0, cols));
  const k = rotate(columns(all, cols, cols));
  const v = columns(all, 2 * cols, cols);
  const router = columns(all, 3 * cols, heads);
  const dims = { batch, seqLen, heads, headDim, vHeadDim: headDim, topk };
  const o = mosaAttention(q, k, v, router, dims);
  return { output: linear(o, weight("o_proj"), residual) };
}
