/**
 * What {@linkcode attention} and {@linkcode mlaAttention} have in common: recording the kernels
 * of both passes, batch by batch where matrices are larger than a binding, and the naive twin.
 *
 * @module
 */
import type * as tfc from "@tensorflow/tfjs-core";
import { addInto } from "../kernels/add.ts";
import {
  attentionDelta,
  attentionForward,
  attentionGradKv,
  attentionGradQ,
  type AttentionSpec,
  planAttention,
  sumHeads,
} from "../kernels/attention.ts";
import type { GradientRecorder, Matrix, Recorder, Tf, TfMatrix } from "./op.ts";

/** Records the kernels of `[o, lse]`. Inputs as in `src/kernels/attention.ts`. */
export function recordAttention(
  r: Recorder,
  whole: AttentionSpec,
  inputs: readonly Matrix[],
  outputs: readonly Matrix[],
): void {
  byBatch(r, whole, [...inputs, ...outputs], (spec, parts) => {
    const ins = parts.slice(0, inputs.length);
    const [o, lse] = parts.slice(inputs.length);
    const plan = planAttention("forward", spec, r.capabilities);
    r.dispatch(attentionForward(spec, plan, ins, o, lse), ...parts);
  });
}

/** Records the kernels of the gradients of the wanted inputs. */
export function recordAttentionGradient(
  r: GradientRecorder,
  whole: AttentionSpec,
  inputs: readonly Matrix[],
  [o, lse]: readonly Matrix[],
): void {
  const { dims } = whole;
  const gradO = r.gradient(0);
  const delta = r.temporary(o.rows, dims.heads);
  byBatch(r, whole, [o, gradO, delta], (spec, [o, gradO, delta]) => {
    r.dispatch(attentionDelta(spec, o, gradO, delta), o, gradO, delta);
  });
  const given = [...inputs, gradO, lse, delta];
  const split = (parts: readonly Matrix[]) => {
    const [gradO, lse, delta] = parts.slice(inputs.length);
    return { ins: parts.slice(0, inputs.length), saved: { gradO, lse, delta } };
  };
  if (r.wants(0)) {
    const { into, accumulate } = target(r, 0, inputs[0]);
    byBatch(r, whole, [...given, into], (spec, parts) => {
      const { ins, saved } = split(parts);
      const plan = planAttention("gradQ", spec, r.capabilities);
      const gradQ = parts[given.length];
      r.dispatch(attentionGradQ(spec, plan, ins, saved, gradQ, accumulate), ...parts);
    });
  }
  if (!inputs.some((_, i) => i > 0 && r.wants(i))) return;
  const targets = inputs.slice(1).map((m, i) => target(r, i + 1, m));
  const shared = dims.rope > 0 ? targets.pop()! : null;
  const shares = shared && r.temporary(o.rows, dims.kvHeads * dims.rope);
  const into = [...targets.map((t) => t.into), ...shares ? [shares] : []];
  byBatch(r, whole, [...given, ...into], (spec, parts) => {
    const { ins, saved } = split(parts);
    const plan = planAttention("gradKv", spec, r.capabilities);
    const grads = parts.slice(given.length);
    const adds = targets.map((t) => t.accumulate);
    r.dispatch(attentionGradKv(spec, plan, ins, saved, grads, adds), ...parts);
  });
  if (shared && shares) {
    r.byRows([shares, shared.into], (shares, into) => {
      r.dispatch(sumHeads(shares, into, shared.accumulate), shares, into);
    });
  }
}

/** Where the gradient of an input goes. The kernels add in place or not at all. */
function target(
  r: GradientRecorder,
  input: number,
  { rows, cols }: Matrix,
): { into: Matrix; accumulate: boolean } {
  if (!r.wants(input)) return { into: r.temporary(rows, cols), accumulate: false };
  const { into, add } = r.sink(input);
  if (add !== null && add !== into) {
    r.byRows([add, into], (add, into) => {
      r.dispatch(addInto({ a: add, into, add: "none" }), add, into);
    });
  }
  return { into, accumulate: add !== null };
}

/** Elements between possible starts of a bound window (256 bytes). */
const WINDOW = 64;

/** Calls `body` with all sequences, or with as many at a time as fit into one binding each. */
function byBatch(
  { capabilities }: Recorder,
  spec: AttentionSpec,
  matrices: readonly Matrix[],
  body: (spec: AttentionSpec, parts: Matrix[]) => void,
): void {
  const { batch, seqLen } = spec.extent;
  const limit = capabilities.maxBindingBytes / 4;
  const whole = matrices.every((m) => m.offset + (m.rows - 1) * m.stride + m.cols <= limit);
  const widest = Math.max(...matrices.map((m) => m.stride));
  const most = whole ? batch : Math.floor((limit - WINDOW) / (widest * seqLen));
  if (most < 1) {
    throw new RangeError(
      `Cannot run attention over ${seqLen} tokens of ${widest * 4} bytes: a binding holds ` +
        `${capabilities.maxBindingBytes} bytes; lower seqLen or the model's width`,
    );
  }
  for (let start = 0; start < batch; start += most) {
    const count = Math.min(most, batch - start);
    const parts = matrices.map((m) => rowsFrom(m, start * seqLen, count * seqLen));
    body({ ...spec, extent: { batch: count, seqLen } }, parts);
  }
}

/** Rows `start … start + rows` of a matrix, with the window moved along. */
function rowsFrom(m: Matrix, start: number, rows: number): Matrix {
  const first = m.base + m.offset + start * m.stride;
  const base = start === 0 ? m.base : Math.floor(first / WINDOW) * WINDOW;
  return { ...m, base, offset: first - base, rows };
}

/**
 * The twin: causal softmax attention with the whole matrix of scores. `q` and `k` are
 * [batch, heads, seqLen, width], `v` likewise.
 *
 * @returns `o` [batch · seqLen, heads · value] and `lse` [batch · seqLen, heads]
 */
export function twinOfAttention(
  tf: Tf,
  q: tfc.Tensor,
  k: tfc.Tensor,
  v: tfc.Tensor,
  scale: number,
): [TfMatrix, TfMatrix] {
  const seqLen = q.shape[2]!;
  const hidden = tf.tensor2d(
    Float32Array.from(
      { length: seqLen * seqLen },
      (_, i) => i % seqLen > Math.floor(i / seqLen) ? -1e9 : 0,
    ),
    [seqLen, seqLen],
  );
  const scores = tf.add(tf.mul(tf.matMul(q, k, false, true), scale), hidden);
  const logs = tf.logSoftmax(scores);
  const o = tf.matMul(tf.exp(logs), v);
  // Every query sees key 0, so that any score less its logarithm of the softmax gives lse.
  const first = (x: tfc.Tensor) => tf.slice(x, [0, 0, 0, 0], [-1, -1, -1, 1]);
  const lse = tf.sub(first(scores), first(logs));
  return [twinRows(tf, o), twinRows(tf, lse)];
}

/** The reverse of {@linkcode twinHeads}. */
function twinRows(tf: Tf, x: tfc.Tensor): TfMatrix {
  const [batch, heads, seqLen, width] = x.shape as [number, number, number, number];
  return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [batch * seqLen, heads * width]);
}

/** Heads of a matrix: [batch · seqLen, heads · width] as [batch, heads, seqLen, width]. */
export function twinHeads(
  tf: Tf,
  x: TfMatrix,
  { batch, seqLen }: AttentionSpec["extent"],
  heads: number,
): tfc.Tensor {
  const width = x.shape[1] / heads;
  return tf.transpose(tf.reshape(x, [batch, seqLen, heads, width]), [0, 2, 1, 3]);
}

/** Throws unless the attributes describe heads and sequences. */
export function requireHeads(op: string, { dims, extent, scale }: AttentionSpec): void {
  const { heads, kvHeads, nope, rope, value } = dims;
  const counts = { heads, kvHeads, nope, value, batch: extent.batch, seqLen: extent.seqLen };
  for (const [name, count] of Object.entries({ ...counts, rope: rope + 1 })) {
    if (!Number.isInteger(count) || count < 1) {
      throw new RangeError(`Cannot apply ${op}: ${name} is ${count}, not a whole number above 0`);
    }
  }
  if (heads % kvHeads !== 0) {
    throw new RangeError(
      `Cannot apply ${op}: ${heads} query heads cannot share ${kvHeads} key heads evenly`,
    );
  }
  if (!(scale > 0 && Number.isFinite(scale))) {
    throw new RangeError(`Cannot apply ${op}: scale is ${scale}, not a number above 0`);
  }
}
