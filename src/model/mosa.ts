/**
 * The attention layer of MoSA, a baseline with content-based sparsity chosen by the heads.
 *
 * N = batch · seqLen tokens, H = numAttentionHeads: x `[N, hiddenSize]`; q, k, v
 * `[N, H · headDim]`; router `[N, H - mosaDenseHeads]`, each head's scores of the tokens.
 *
 * @module
 */
import { columns, sideBySide } from "../ops/token/columns.ts";
import { attention } from "../ops/attention/attention.ts";
import { causalMosaAttention } from "../ops/attention/causal_mosa_attention.ts";
import { linear } from "../ops/token/linear.ts";
import { mosaAttention } from "../ops/attention/mosa_attention.ts";
import type { Tensor } from "../ops/op.ts";
import type { LayerContext, LayerResult } from "./layer.ts";

/**
 * Mixture of sparse attention on the normed block input, added to `residual`: multi-head
 * attention in which each head sees only the `indexTopk` tokens that it picks, beside
 * `mosaDenseHeads` that see all. Heads pick among the tokens so far, see
 * {@linkcode causalMosaAttention}; with `mosaCausal=false` as published, which looks ahead: not a
 * language model's loss; see {@linkcode mosaAttention}. Positions are rotated before the picks are
 * gathered, so they are those of the sequence. Each head has a key head of its own
 * (`numKeyValueHeads` = `numAttentionHeads`).
 *
 * The weight `mosa_router` `[numAttentionHeads - mosaDenseHeads, hiddenSize]` scores the tokens;
 * where it follows `v_proj` in memory, one product makes queries, keys, values and scores.
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

  const dense = c.mosaDenseHeads;
  const cols = heads * headDim;
  const all = linear(x, ["q_proj", "k_proj", "v_proj", "mosa_router"].map((name) => weight(name)));
  const q = rotate(columns(all, 0, cols));
  const k = rotate(columns(all, cols, cols));
  const v = columns(all, 2 * cols, cols);
  const router = columns(all, 3 * cols, heads - dense);
  const dims = { batch, seqLen, heads: heads - dense, headDim, vHeadDim: headDim, topk };
  const choose = c.mosaCausal ? causalMosaAttention : mosaAttention;
  const first = (x: Tensor) => columns(x, 0, dense * headDim);
  const rest = (x: Tensor) => columns(x, dense * headDim, cols - dense * headDim);
  const o = dense === 0 ? choose(q, k, v, router, dims) : sideBySide([
    attention(first(q), first(k), first(v), { batch, seqLen, heads: dense, kvHeads: dense }).o,
    choose(rest(q), rest(k), rest(v), router, dims),
  ]);
  return { output: linear(o, weight("o_proj"), residual) };
}
