import type { AttentionSpec, SelectionForm } from "../../kernels/attention/attention.ts";
import { mosaGate, mosaRouterGradient } from "../../kernels/mosa/rows.ts";
import { mosaLists, mosaTerms } from "../../kernels/mosa/terms.ts";
import { maskWords } from "../../kernels/select/lists.ts";
import { selectionMaskKernel } from "../../kernels/select/mask.ts";
import { mapValues } from "../../kernels/wgsl/operand.ts";
import { byBatch } from "../by_batch.ts";
import { columnsOf } from "../matrix.ts";
import {
  type GradientSink,
  type Matrix,
  matrixType,
  type Op,
  type Recorder,
  type Tensor,
  type Tf,
  type TfMatrix,
} from "../op.ts";
import { byRowsWithSink } from "../sink.ts";
import { recordAttentionGradient, wantedSinks } from "./gradient.ts";
import { type MosaAttentionDims, requireMosa } from "./mosa_attention.ts";
import { recordAttention, twinHeads, twinOfAttention } from "./passes.ts";
import { formOf, type SelectedKeys } from "./selection.ts";

/** Attributes of {@linkcode causalMosaAttention}. */
export interface CausalMosaDims extends MosaAttentionDims {
  /** How kernels read what a head keeps; default: as is fastest for the length. */
  form?: SelectionForm;
}

/** Attention of one head to what it keeps. */
function specOf(attributes: CausalMosaDims): AttentionSpec {
  const { batch, seqLen, headDim: nope, vHeadDim: value } = attributes;
  const topk = Math.min(attributes.topk, seqLen);
  return {
    dims: { heads: 1, kvHeads: 1, nope, rope: 0, value, packed: false },
    extent: { batch, seqLen },
    scale: attributes.scale ?? nope ** -0.5,
    selection: { form: formOf(attributes.form, seqLen, topk), topk },
  };
}

/**
 * The op behind {@linkcode causalMosaAttention}. Outputs beside o, which pass no gradient:
 * attention before it is weighted, of o's shape, its lse [batch · seqLen, heads], and the first
 * position at which a head no longer keeps a token, [batch · seqLen, heads] i32.
 */
export const causalMosaAttentionOp: Op<CausalMosaDims> = {
  name: "causalMosaAttention",
  savesOutputs: true,

  types(inputs, attributes) {
    requireMosa("causalMosaAttention", inputs, attributes);
    const [, , v, router] = inputs;
    return [
      matrixType(v.rows, v.cols),
      matrixType(v.rows, v.cols),
      matrixType(v.rows, router.cols),
      matrixType(v.rows, router.cols, "i32"),
    ];
  },

  twin(tf, [q, k, v, router], attributes) {
    const { batch, seqLen, heads, vHeadDim } = attributes;
    const perHead = (x: TfMatrix) => twinHeads(tf, x, { batch, seqLen }, heads);
    const { selected, until } = twinTerms(tf, router, attributes);
    const { scale } = specOf(attributes);
    const [attended, lse] = twinOfAttention(tf, perHead(q), perHead(k), perHead(v), scale, {
      selected,
    });
    const rows = batch * seqLen;
    const byHead = tf.reshape(attended, [rows, heads, vHeadDim]);
    const weighted = tf.mul(tf.reshape(tf.sigmoid(router), [rows, heads, 1]), byHead);
    return [tf.reshape(weighted, [rows, heads * vHeadDim]), attended, lse, until];
  },

  forward(r, [q, k, v, router], [o, attended, lse, until], attributes) {
    const spec = specOf(attributes);
    const { seqLen } = attributes;
    byBatch(r, spec, { rows: { router, until } }, (_, { rows }) => {
      r.dispatch(mosaTerms(rows, { seqLen, picks: spec.selection!.topk }));
    });
    for (let head = 0; head < attributes.heads; head++) {
      const selected = recordKept(r, spec, columnsOf(until, head, 1));
      const outputs = headOf({ o: attended, lse }, head, attributes);
      recordAttention(r, spec, headOf({ q, k, v }, head, attributes), outputs, selected);
    }
    recordGate(r, attended, router, o);
  },

  backward(r, g, [q, k, v, router], [o, attended, lse, until], attributes) {
    const gradO = g.gradient(0);
    if (g.wants(3)) {
      byRowsWithSink(r, [o, gradO, router], g.sink(3), ([o, gradO, router], sink) => {
        r.dispatch(mosaRouterGradient({ o, gradO, router, out: sink }));
      });
    }
    const sinks = wantedSinks(g, ["q", "k", "v"]);
    if (!sinks.q && !sinks.k && !sinks.v) return;
    const gradAttended = r.temporary(o.rows, o.cols);
    recordGate(r, gradO, router, gradAttended);
    const spec = specOf(attributes);
    for (let head = 0; head < attributes.heads; head++) {
      // Made once more: what is kept of lists of all heads would be as large as attention's pairs.
      const selected = recordKept(r, spec, columnsOf(until, head, 1));
      recordAttentionGradient(r, spec, {
        inputs: headOf({ q, k, v }, head, attributes),
        outputs: headOf({ o: attended, lse }, head, attributes),
        gradO: headOf({ gradAttended }, head, attributes).gradAttended,
        sinks: mapValues(sinks, (sink) => sink && sinkOf(sink, head, attributes)),
        selected,
      });
    }
  },
};

/** Columns of one head of matrices that have those of all heads. */
function headOf<Name extends string>(
  matrices: Readonly<Record<Name, Matrix>>,
  head: number,
  { heads }: CausalMosaDims,
): Record<Name, Matrix> {
  return mapValues(matrices, (m) => {
    const width = m.cols / heads;
    return columnsOf(m, head * width, width);
  }) as Record<Name, Matrix>;
}

function sinkOf({ into, add }: GradientSink, head: number, dims: CausalMosaDims): GradientSink {
  const { into: own } = headOf({ into }, head, dims);
  if (add === null) return { into: own, add };
  return { into: own, add: add === into ? own : headOf({ add }, head, dims).add };
}

/** Records what the tokens of a head attend to, of the head's column of terms. */
function recordKept(
  r: Recorder,
  { extent: { batch, seqLen }, selection }: AttentionSpec,
  until: Matrix,
): SelectedKeys {
  const rows = batch * seqLen;
  const picks = selection!.topk;
  const indices = r.temporary(rows, picks, "i32");
  const mask = r.temporary(rows, maskWords(seqLen), "i32");
  const extent = { extent: { batch, seqLen } };
  byBatch(
    r,
    extent,
    { rows: { until, indices, mask } },
    (_, { rows: { until, indices, mask } }) => {
      r.dispatch(mosaLists({ until, indices }, { seqLen, picks }));
      r.dispatch(selectionMaskKernel({ indices, mask }));
    },
  );
  return { indices, mask };
}

function recordGate(r: Recorder, x: Matrix, router: Matrix, out: Matrix): void {
  r.byRows([x, router, out], (x, router, out) => r.dispatch(mosaGate({ x, router, out })));
}

/** What the heads keep, in two ways: `selected` [batch, heads, seqLen, seqLen] of 0 and 1. */
function twinTerms(
  tf: Tf,
  router: TfMatrix,
  { batch, seqLen, heads, topk }: CausalMosaDims,
) {
  const scores = twinHeads(tf, router, { batch, seqLen }, heads);
  const others = tf.reshape(scores, [batch, heads, 1, seqLen]);
  const square = (is: (row: number, col: number) => boolean) =>
    tf.tensor2d(
      Float32Array.from(
        { length: seqLen * seqLen },
        (_, i) => Number(is(Math.floor(i / seqLen), i % seqLen)),
      ),
      [seqLen, seqLen],
    );
  const repeated = (x: ReturnType<typeof square>) =>
    tf.tile(tf.reshape(x, [1, 1, seqLen, seqLen]), [batch, heads, 1, 1]);
  // better[s, u]: token u is better than s; beaten[s, t]: how many of those up to t are.
  const reaches = (a: typeof scores, b: typeof scores) => tf.cast(tf.greaterEqual(a, b), "float32");
  const better = tf.add(
    tf.mul(reaches(others, scores), square((s, u) => u < s)),
    tf.mul(tf.sub(1, reaches(scores, others)), square((s, u) => u > s)),
  );
  const beaten = tf.matMul(better, repeated(square((u, t) => u <= t)));
  const kept = tf.mul(tf.sub(1, reaches(beaten, tf.scalar(topk))), square((s, t) => s <= t));
  const own = tf.sum(tf.mul(kept, square((s, t) => s === t)), 3, true);
  const until = tf.add(tf.sum(kept, 3, true), tf.reshape(tf.range(0, seqLen), [1, 1, seqLen, 1]));
  const rows = tf.reshape(tf.transpose(until, [0, 2, 1, 3]), [batch * seqLen, heads]);
  return {
    selected: tf.mul(tf.transpose(kept, [0, 1, 3, 2]), own),
    until: tf.cast(rows, "int32") as TfMatrix,
  };
}

/**
 * Mixture of sparse attention (MoSA; Piękos et al., 2025, arXiv:2505.00315) made causal, which is
 * not the paper's: expert choice within a budget, as of a decoder that reads token by token and
 * keeps `topk` tokens a head. At t head h keeps the tokens of 0 … t with the largest scores
 * router[·, h]; of equal scores the earlier wins. If t itself is among them, it attends to them:
 *
 * o_h[t] = sigmoid(router[t, h]) · Σ_s P_h[t, s] v_h[s], P_h[t, ·] = softmax(scale · q_h[t] · k_h[·]),
 *
 * else the head gives it 0. A token that was pushed out stays so: of a decoder's cache it is gone.
 * At the last token of a sequence the head keeps the same tokens as {@linkcode mosaAttention}, whose
 * heads choose with the whole sequence in view. The router learns through the factor only.
 *
 * Costs O(seqLen · topk) products a head, or, where `form` says so or `topk` is no small part of
 * seqLen, those of dense attention.
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
 * import { causalMosaAttention } from "./causal_mosa_attention.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const q = backend.tensor([0, 0, 0], 3, 1), v = backend.tensor([4, 8, 12], 3, 1);
 * // One head keeps one token: the first, until the last is better; the second never is.
 * const router = backend.tensor([0, -5, 10], 3, 1);
 * const dims = { batch: 1, seqLen: 3, heads: 1, headDim: 1, vHeadDim: 1, topk: 1 };
 * const o = backend.read(causalMosaAttention(q, q, v, router, dims));
 * assert.deepEqual([...o].map(Math.round), [2, 0, 12]);
 * ```
 */
export function causalMosaAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  router: Tensor,
  dims: CausalMosaDims,
): Tensor {
  return q.backend.apply(causalMosaAttentionOp, [q, k, v, router], dims)[0];
}
