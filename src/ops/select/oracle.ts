import { queryWidth } from "../../kernels/attention/heads.ts";
import type { Teacher } from "../../kernels/indexer/indexer.ts";
import { twinHeads } from "../attention/passes.ts";
import { recordTarget } from "../indexer/teacher.ts";
import { matrixType, type Op, requireShapes, type Tensor } from "../op.ts";
import { recordTopk, requireSizes, type TopkAttributes, twinTopk } from "./chunks.ts";

/** Attributes of {@linkcode oracleTopk}. */
export interface OracleTopkAttributes extends TopkAttributes {
  /** The attention that selects. */
  teacher: Teacher;
}

/** Keys with the most attention; see {@linkcode oracleTopk}. */
export const oracleTopkOp: Op<OracleTopkAttributes> = {
  name: "oracleTopk",
  stopsGradient: true,
  types(inputs, attributes) {
    const { batch, seqLen, topk, teacher: { dims } } = attributes;
    const { heads, nope, rope, value } = dims;
    requireSizes("oracleTopk", { batch, seqLen, topk, heads, nope, rope, value });
    const rows = batch * seqLen;
    const cols = [heads * queryWidth(dims), heads * (nope + value), rope, heads];
    requireShapes(
      inputs.length === 4 &&
        inputs.every((x, i) => x.rows === rows && x.cols === cols[i] && x.dtype === "f32"),
      "oracleTopk",
      inputs,
      ["q", "kv", "kPe", "lse"].map((name, i) => `${name} [${rows}, ${cols[i]}]`).join(", "),
    );
    return [matrixType(rows, topk, "i32")];
  },
  twin(tf, [q, kv, kPe, lse], attributes) {
    const { dims: { heads, nope }, scale } = attributes.teacher;
    const own = tf.slice(twinHeads(tf, kv, attributes, heads), [0, 0, 0, 0], [-1, -1, -1, nope]);
    const shared = tf.tile(twinHeads(tf, kPe, attributes, 1), [1, heads, 1, 1]);
    const keys = tf.concat([own, shared], 3);
    const products = tf.matMul(twinHeads(tf, q, attributes, heads), keys, false, true);
    const logs = tf.sub(tf.mul(products, scale), twinHeads(tf, lse, attributes, heads));
    return [twinTopk(tf, tf.mean(tf.exp(logs), 1), attributes)];
  },
  forward(r, inputs, [indices], attributes) {
    recordTopk(r, attributes, inputs, indices, (chunk, target) => {
      recordTarget(r, inputs, attributes.teacher, chunk, target);
      return target;
    });
  },
};

/**
 * Selects, for each query, the `topk` keys to which dense attention gives the most weight, summed
 * over its heads: the best that one selection for all heads can keep. Of equal weights the lower
 * position wins, or with `ties: "newest"` the higher one. No gradient passes.
 *
 * @param q as in `mlaAttention`
 * @param kv as in `mlaAttention`
 * @param kPe as in `mlaAttention`
 * @param lse [batch · seqLen, heads], from `mlaAttention`
 * @returns i32 [batch · seqLen, topk]: min(topk, t + 1) positions, ascending, then -1
 * @throws {RangeError} if shapes and sizes do not fit
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { TfjsBackend } from "../../tfjs/backend.ts";
 * import { mlaAttention } from "../attention/mla_attention.ts";
 * import { mlaTeacher } from "../indexer/teacher.ts";
 * import { oracleTopk } from "./oracle.ts";
 *
 * const backend = await TfjsBackend.open("wasm");
 * const heads = { heads: 1, qkNopeHeadDim: 1, qkRopeHeadDim: 1, vHeadDim: 1 };
 * const sizes = { batch: 1, seqLen: 3, topk: 1 };
 * const q = backend.tensor([1, 0, 1, 0, 1, 0], 3, 2);
 * const kv = backend.tensor([2, 0, 3, 0, 1, 0], 3, 2);
 * const kPe = backend.tensor([0, 0, 0], 3, 1);
 * const { lse } = mlaAttention(q, kv, kPe, { ...sizes, ...heads });
 * const attributes = { ...sizes, teacher: mlaTeacher(heads) };
 * assert.deepEqual([...backend.read(oracleTopk(q, kv, kPe, lse, attributes))], [0, 1, 1]);
 * ```
 */
export function oracleTopk(
  q: Tensor,
  kv: Tensor,
  kPe: Tensor,
  lse: Tensor,
  attributes: OracleTopkAttributes,
): Tensor {
  return q.backend.apply(oracleTopkOp, [q, kv, kPe, lse], attributes)[0];
}
