import type { AttentionSpec } from "../../kernels/attention/attention.ts";
import { mosaGather, mosaRouterGradient, mosaScatter } from "../../kernels/mosa/rows.ts";
import { mosaSelection } from "../../kernels/mosa/selection.ts";
import { mapValues } from "../../kernels/wgsl/operand.ts";
import { recordAttentionGradient, wantedSinks } from "./gradient.ts";
import { recordAttention, requireHeads, twinHeads, twinOfAttention } from "./passes.ts";
import {
  type GradientSink,
  type Matrix,
  matrixType,
  type Op,
  type Recorder,
  requireShapes,
  type Tensor,
  type TensorType,
  type TfMatrix,
} from "../op.ts";
import { byBatch } from "../by_batch.ts";
import { byRowsWithSink } from "../sink.ts";

/** Attributes of {@linkcode mosaAttention}. */
export interface MosaAttentionDims {
  batch: number;
  seqLen: number;
  heads: number;
  /** Width of a head of q and k. */
  headDim: number;
  /** Width of a head of v. */
  vHeadDim: number;
  /** Tokens that a head picks of each sequence; all of them if there are no more. */
  topk: number;
  /** Factor of the scores; default headDim^-0.5. */
  scale?: number;
}

/** Attention among the picks, which is causal attention over shorter sequences. */
function specOf(attributes: MosaAttentionDims): AttentionSpec {
  const { batch, seqLen, heads, headDim: nope, vHeadDim: value, topk } = attributes;
  return {
    dims: { heads, kvHeads: heads, nope, rope: 0, value, packed: false },
    extent: { batch, seqLen: Math.min(topk, seqLen) },
    scale: attributes.scale ?? nope ** -0.5,
  };
}

/** Throws unless inputs and attributes are those of an op of MoSA. */
export function requireMosa(
  op: string,
  inputs: readonly TensorType[],
  attributes: MosaAttentionDims,
): void {
  const { batch, seqLen, heads, headDim, vHeadDim, topk } = attributes;
  if (!Number.isInteger(topk) || topk < 1) {
    throw new RangeError(`Cannot apply ${op}: topk is ${topk}, not a whole number above 0`);
  }
  requireHeads(op, specOf(attributes));
  const rows = batch * seqLen;
  const [q, k, v, router] = inputs;
  requireShapes(
    inputs.length === 4 && inputs.every((x) => x.rows === rows && x.dtype === "f32") &&
      q.cols === heads * headDim && k.cols === q.cols && v.cols === heads * vHeadDim &&
      router.cols === heads,
    op,
    inputs,
    `q and k [${rows}, ${heads} * ${headDim}], v [${rows}, ${heads} * ${vHeadDim}], ` +
      `router [${rows}, ${heads}]`,
  );
}

/**
 * The op behind {@linkcode mosaAttention}. Outputs beside o, which pass no gradient, with
 * k = min(topk, seqLen): the attention of the picks [batch · k, heads · vHeadDim] and its lse
 * [batch · k, heads]; the picks' positions within their sequence, ascending, [batch · k, heads]
 * i32; and for each token and head which pick it is, or -1, [batch · seqLen, heads] i32.
 */
export const mosaAttentionOp: Op<MosaAttentionDims> = {
  name: "mosaAttention",
  savesOutputs: true,

  types(inputs, attributes) {
    requireMosa("mosaAttention", inputs, attributes);
    const { batch, seqLen, heads, vHeadDim } = attributes;
    const spec = specOf(attributes);
    const rows = batch * seqLen;
    const picked = batch * spec.extent.seqLen;
    return [
      matrixType(rows, heads * vHeadDim),
      matrixType(picked, heads * vHeadDim),
      matrixType(picked, heads),
      matrixType(picked, heads, "i32"),
      matrixType(rows, heads, "i32"),
    ];
  },

  twin(tf, [q, k, v, router], attributes) {
    const { batch, seqLen, heads } = attributes;
    const { extent, scale } = specOf(attributes);
    const perHead = (x: TfMatrix) => twinHeads(tf, x, { batch, seqLen }, heads);
    const perRow = (x: ReturnType<typeof perHead>): TfMatrix => {
      const [, , rows, width] = x.shape as [number, number, number, number];
      return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [batch * rows, heads * width]);
    };
    const picks = extent.seqLen;
    const best = tf.topk(tf.reshape(perHead(router), [batch, heads, seqLen]), picks).indices;
    const ascending = tf.neg(tf.topk(tf.neg(tf.cast(best, "float32")), picks).values);
    const indices = tf.cast(ascending, "int32");
    // [batch, heads, picks, seqLen]: 1 where a pick is a token.
    const hits = tf.oneHot(indices, seqLen, 1, 0, "float32");
    const gather = (x: TfMatrix) => tf.matMul(hits, perHead(x));

    const [picked, lse] = twinOfAttention(tf, gather(q), gather(k), gather(v), scale);
    const weighted = tf.mul(tf.sigmoid(gather(router)), twinHeads(tf, picked, extent, heads));
    const places = tf.tile(tf.reshape(tf.range(1, picks + 1), [1, 1, picks, 1]), [
      batch,
      heads,
      1,
      1,
    ]);
    const slots = tf.sub(tf.matMul(hits, places, true), 1);
    return [
      perRow(tf.matMul(hits, weighted, true)),
      picked,
      lse,
      perRow(tf.reshape(indices, [batch, heads, picks, 1])),
      tf.cast(perRow(slots), "int32"),
    ];
  },

  forward(r, [q, k, v, router], [o, picked, lse, indices, slots], attributes) {
    const { seqLen } = attributes;
    const spec = specOf(attributes);
    const picks = spec.extent.seqLen;
    const { software } = r.capabilities;
    byBatch(r, spec, { rows: { router, indices, slots } }, (_, { rows }) => {
      r.dispatch(mosaSelection({ ...rows, seqLen, picks, software }));
    });
    const gathered = mapValues({ q, k, v }, (x) => gather(r, x, indices, null, attributes));
    recordAttention(r, spec, gathered, { o: picked, lse });
    scatter(r, picked, slots, router, { into: o, add: null }, attributes);
  },

  backward(r, g, [q, k, v, router], [o, picked, lse, indices, slots], attributes) {
    const gradO = g.gradient(0);
    if (g.wants(3)) {
      byRowsWithSink(r, [o, gradO, router], g.sink(3), ([o, gradO, router], sink) => {
        r.dispatch(mosaRouterGradient({ o, gradO, router, out: sink }));
      });
    }
    const sinks = wantedSinks(g, ["q", "k", "v"]);
    if (!sinks.q && !sinks.k && !sinks.v) return;
    const gathered = mapValues({ q, k, v }, (x) => gather(r, x, indices, null, attributes));
    const gradPicked = gather(r, gradO, indices, router, attributes);
    const gradients = mapValues(gathered, (x) => r.temporary(x.rows, x.cols));
    recordAttentionGradient(r, specOf(attributes), {
      inputs: gathered,
      outputs: { o: picked, lse },
      gradO: gradPicked,
      sinks: mapValues(gradients, (into, name) => sinks[name] && { into, add: null }),
    });
    for (const [name, sink] of Object.entries(sinks)) {
      if (sink) scatter(r, gradients[name], slots, null, sink, attributes);
    }
  },
};

/** The picked rows of `x`, [batch · picks, x.cols]; with `router`, times its sigmoid. */
function gather(
  r: Recorder,
  x: Matrix,
  indices: Matrix,
  router: Matrix | null,
  attributes: MosaAttentionDims,
): Matrix {
  const out = r.temporary(indices.rows, x.cols);
  const { seqLen } = attributes;
  const rows = { x, indices, out, ...router && { router } };
  byBatch(r, specOf(attributes), { rows }, ({ extent }, { rows }) => {
    r.dispatch(mosaGather({ router: null, ...rows }, { seqLen, picks: extent.seqLen }));
  });
  return out;
}

/** Puts rows of picks back to where their tokens are, and zeros elsewhere. */
function scatter(
  r: Recorder,
  x: Matrix,
  slots: Matrix,
  router: Matrix | null,
  sink: GradientSink,
  attributes: MosaAttentionDims,
): void {
  const { seqLen } = attributes;
  const rows = { x, slots, ...router && { router } };
  const isOther = sink.add !== null && sink.add !== sink.into;
  const out = { into: sink.into, ...isOther && { add: sink.add } };
  byBatch(r, specOf(attributes), { rows, out }, ({ extent }, { rows, out }) => {
    const own = { into: out.into, add: sink.add && (out.add ?? out.into) };
    const picks = extent.seqLen;
    r.dispatch(mosaScatter({ router: null, ...rows, out: own }, { seqLen, picks }));
  });
}

/**
 * Mixture of sparse attention, MoSA (Piękos et al., 2025, arXiv:2505.00315): expert-choice routing
 * of tokens to heads. Head h picks the `topk` tokens of a sequence with the largest scores
 * r[t, h] = sigmoid(router[t, h]); of equal scores the earlier token wins. A picked token attends
 * to the picked tokens s ≤ t:
 *
 * o_h[t] = r[t, h] · Σ_s P_h[t, s] v_h[s], P_h[t, ·] = softmax(scale · q_h[t] · k_h[·]),
 *
 * and the head gives 0 to all other tokens. The router learns through the factor r only; the
 * selection itself passes no gradient. Scores are compared before the sigmoid, whose f32 values
 * saturate. Costs O(topk² + seqLen) per head.
 *
 * Looks ahead, so that its loss is not a language model's: a head picks from the whole sequence, and
 * tokens still to come decide whether an earlier one is among the picks, and with it its output.
 * Only the attention among the picks is causal. A decoder that sees one token after the other
 * cannot make the same choice, and losses measured over whole sequences are to be read with that
 * in mind.
 *
 * @param q [batch · seqLen, heads · headDim], rotated by the tokens' own positions where wanted
 * @param k [batch · seqLen, heads · headDim], likewise
 * @param v [batch · seqLen, heads · vHeadDim]
 * @param router [batch · seqLen, heads], logits
 * @returns `o` [batch · seqLen, heads · vHeadDim]
 * @throws {RangeError} if shapes and widths do not fit, or topk is not a whole number above 0
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { mosaAttention } from "./mosa_attention.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const q = backend.tensor([0, 0, 0], 3, 1), v = backend.tensor([4, 8, 12], 3, 1);
 * // One head picks 2 of 3 tokens: the first, and the last, which attends to both.
 * const router = backend.tensor([0, -5, 0], 3, 1);
 * const dims = { batch: 1, seqLen: 3, heads: 1, headDim: 1, vHeadDim: 1, topk: 2 };
 * assert.deepEqual([...backend.read(mosaAttention(q, q, v, router, dims))], [2, 0, 4]);
 * ```
 */
export function mosaAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  router: Tensor,
  dims: MosaAttentionDims,
): Tensor {
  return q.backend.apply(mosaAttentionOp, [q, k, v, router], dims)[0];
}
