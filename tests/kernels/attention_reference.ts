/** Causal attention, perhaps in a window, and its gradients as plain loops in float64: the truth of the kernel tests. */
import type { AttentionSpec } from "../../src/kernels/attention/attention.ts";

/** Results, row-major and packed; `grads` in the order of the inputs. */
export interface Reference {
  o: Float64Array;
  lse: Float64Array;
  grads: Float64Array[];
}

/** Inputs as `src/kernels/attention/attention.ts` takes them, packed. */
export function referenceAttention(
  { dims, extent: { batch, seqLen }, scale, window = seqLen }: AttentionSpec,
  inputs: readonly ArrayLike<number>[],
  gradO: ArrayLike<number>,
): Reference {
  const { heads, kvHeads, nope, rope, value, packed } = dims;
  const wide = nope + rope;
  const grads = inputs.map((x) => new Float64Array(x.length));
  const o = new Float64Array(batch * seqLen * heads * value);
  const lse = new Float64Array(batch * seqLen * heads);
  const kvWidth = packed ? nope + value : nope;
  // Index of the input and of the element that hold column d of a key, or of a value.
  const key = (row: number, g: number, d: number): [number, number] =>
    d < nope ? [1, (row * kvHeads + g) * kvWidth + d] : [inputs.length - 1, row * rope + d - nope];
  const valueAt = (row: number, g: number, d: number): [number, number] =>
    packed ? [1, (row * kvHeads + g) * kvWidth + nope + d] : [2, (row * kvHeads + g) * value + d];
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const g = Math.floor(h / (heads / kvHeads));
      for (let t = 0; t < seqLen; t++) {
        const row = b * seqLen + t;
        const q = (row * heads + h) * wide;
        const scores = Array.from({ length: t + 1 }, (_, s) => {
          if (t - s >= window) return -Infinity;
          let sum = 0;
          for (let d = 0; d < wide; d++) {
            const [i, at] = key(b * seqLen + s, g, d);
            sum += inputs[0][q + d] * inputs[i][at];
          }
          return sum * scale;
        });
        const top = Math.max(...scores);
        const total = scores.reduce((sum, x) => sum + Math.exp(x - top), 0);
        lse[row * heads + h] = top + Math.log(total);
        const p = scores.map((x) => Math.exp(x - top) / total);
        const out = (row * heads + h) * value;
        const dp = p.map((weight, s) => {
          let sum = 0;
          for (let d = 0; d < value; d++) {
            const [i, at] = valueAt(b * seqLen + s, g, d);
            o[out + d] += weight * inputs[i][at];
            sum += gradO[out + d] * inputs[i][at];
            grads[i][at] += weight * gradO[out + d];
          }
          return sum;
        });
        const delta = p.reduce((sum, weight, s) => sum + weight * dp[s], 0);
        p.forEach((weight, s) => {
          const ds = weight * (dp[s] - delta) * scale;
          for (let d = 0; d < wide; d++) {
            const [i, at] = key(b * seqLen + s, g, d);
            grads[0][q + d] += ds * inputs[i][at];
            grads[i][at] += ds * inputs[0][q + d];
          }
        });
      }
    }
  }
  return { o, lse, grads };
}
