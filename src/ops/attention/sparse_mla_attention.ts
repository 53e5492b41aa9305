import type { AttentionSpec, SelectionForm } from "../../kernels/attention/attention.ts";
import { maskWords } from "../../kernels/select/lists.ts";
import { recordAttentionGradient, wantedSinks } from "./gradient.ts";
import { recordAttention } from "./passes.ts";
import { formOf } from "./selection.ts";
import { twinSelection } from "./twin.ts";
import { type MlaAttentionDims, mlaSpec, mlaTwin, mlaTypes } from "./mla_attention.ts";
import { matrixType, type Op, requireShapes, type Tensor, type TfMatrix } from "../op.ts";

/** Attributes of {@linkcode sparseMlaAttention}. */
export interface SparseMlaAttentionDims extends Omit<MlaAttentionDims, "window"> {
  /** Most keys of a query. */
  topk: number;
  /**
   * `"masked"` computes all causal pairs, tile by tile, and leaves out tiles with nothing selected
   * where it does not keep weights for the gradients;
   * `"gathered"` visits only the selected pairs. `"auto"`, the default, takes what is faster.
   */
  form?: SelectionForm | "auto";
}

function specOf(attributes: SparseMlaAttentionDims): AttentionSpec {
  const { seqLen, topk, form } = attributes;
  return {
    ...mlaSpec(attributes),
    window: undefined,
    selection: { form: formOf(form, seqLen, topk), topk },
  };
}

function isGathered({ selection }: AttentionSpec): boolean {
  return selection?.form === "gathered";
}

/** Attention of MLA to selected keys; see {@linkcode sparseMlaAttention}. */
export const sparseMlaAttentionOp: Op<SparseMlaAttentionDims> = {
  name: "sparseMlaAttention",
  savesOutputs: true,
  types(inputs, attributes) {
    const { batch, seqLen, topk } = attributes;
    const spec = specOf(attributes);
    const types = mlaTypes("sparseMlaAttention", inputs, spec);
    const rows = batch * seqLen;
    const [, , , indices, mask] = inputs;
    requireShapes(
      inputs.length === 5 && [indices, mask].every((x) => x.rows === rows && x.dtype === "i32") &&
        indices.cols === topk && mask.cols === maskWords(seqLen),
      "sparseMlaAttention",
      inputs,
      `i32 indices [${rows}, ${topk}] and mask [${rows}, ${maskWords(seqLen)}] after q, kv, kPe`,
    );
    return isGathered(spec) ? [...types, matrixType(rows, spec.dims.heads * topk)] : types;
  },
  twin(tf, [q, kv, kPe, indices], attributes) {
    const spec = specOf(attributes);
    const selected = twinSelection(tf, indices, spec.extent);
    const outputs = mlaTwin(tf, [q, kv, kPe], spec, { selected });
    // Twins compute scores for themselves: nothing reads these.
    const { extent: { batch, seqLen }, dims: { heads } } = spec;
    const scores = (): TfMatrix => tf.zeros([batch * seqLen, heads * attributes.topk]);
    return isGathered(spec) ? [...outputs, scores()] : outputs;
  },
  forward(r, [q, kv, kPe, indices, mask], [o, lse, scores], attributes) {
    const inputs = { q, kv, k_pe: kPe };
    recordAttention(r, specOf(attributes), inputs, { o, lse, scores }, { indices, mask });
  },
  backward(r, g, [q, kv, kPe, indices, mask], [o, lse], attributes) {
    recordAttentionGradient(r, specOf(attributes), {
      inputs: { q, kv, k_pe: kPe },
      outputs: { o, lse },
      gradO: g.gradient(0),
      sinks: wantedSinks(g, ["q", "kv", "k_pe"]),
      selected: { indices, mask },
    });
  },
};

/**
 * Attention of multi-head latent attention, in MHA mode, to selected keys: the core of DeepSeek
 * Sparse Attention (DeepSeek-V3.2, arXiv:2512.02556, eq. 2). As `mlaAttention`, with the softmax
 * of query t over the keys s ≤ t that are selected for it, the same for all heads. The output of a
 * query with no selected key is 0, and its `lse` 1e30.
 *
 * @param q [batch · seqLen, heads · (qkNopeHeadDim + qkRopeHeadDim)], rope part rotated
 * @param kv [batch · seqLen, heads · (qkNopeHeadDim + vHeadDim)]: per head [key | value]
 * @param kPe [batch · seqLen, qkRopeHeadDim], rotated
 * @param indices [batch · seqLen, topk] i32: the selected keys' positions within the sequence,
 * ascending, then -1
 * @param mask [batch · seqLen, ⌈seqLen / 32⌉] i32, the same selection: bit s mod 32 of word ⌊s / 32⌋
 * @returns `o` [batch · seqLen, heads · vHeadDim] and `lse` [batch · seqLen, heads], the natural
 * logarithm of Σ_s exp(score) over the selected keys; `lse` passes no gradient. If gathered also
 * `scores` [batch · seqLen, heads · topk], which are for `indexerLoss` over the same selection alone:
 * not every device writes them
 * @throws {RangeError} if shapes and widths do not fit
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { sparseMlaAttention } from "./sparse_mla_attention.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const q = backend.tensor([0, 0, 0, 0, 0, 0], 3, 2), kPe = backend.tensor([1, 1, 1], 3, 1);
 * const kv = backend.tensor([1, 2, 1, 4, 1, 8], 3, 2);
 * const indices = backend.tensor([0, -1, 0, 1, 0, 2], 3, 2, "i32");
 * const mask = backend.tensor([0b001, 0b011, 0b101], 3, 1, "i32");
 * const dims = { heads: 1, qkNopeHeadDim: 1, qkRopeHeadDim: 1, vHeadDim: 1, topk: 2 };
 * const { o } = sparseMlaAttention(q, kv, kPe, indices, mask, { batch: 1, seqLen: 3, ...dims });
 * assert.deepEqual([...backend.read(o)], [2, 3, 5]);
 * ```
 */
export function sparseMlaAttention(
  q: Tensor,
  kv: Tensor,
  kPe: Tensor,
  indices: Tensor,
  mask: Tensor,
  dims: SparseMlaAttentionDims,
): { o: Tensor; lse: Tensor; scores?: Tensor } {
  const [o, lse, scores] = q.backend.apply(sparseMlaAttentionOp, [q, kv, kPe, indices, mask], dims);
  return { o, lse, scores };
}
