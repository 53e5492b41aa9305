/**
 * A transformer that has been trained step by step in four other engines (jax-js, TF.js, PyTorch,
 * jsgrad), with the same first weights and batches: LayerNorm without bias, learned positions,
 * tanh-GELU, untied head. Our losses must be theirs, digit by digit.
 *
 * @module
 */
import type { Batch } from "../data/dataset.ts";
import type { LossResult, ParameterSpec, StepHyper, StepInputs } from "../engine.ts";
import { add } from "../ops/token/add.ts";
import { attention } from "../ops/attention/attention.ts";
import { columns } from "../ops/token/columns.ts";
import { crossEntropy } from "../ops/token/cross_entropy.ts";
import { embedding } from "../ops/token/embedding.ts";
import { gelu } from "../ops/token/gelu.ts";
import { layerNorm } from "../ops/token/layer_norm.ts";
import { linear } from "../ops/token/linear.ts";
import type { Tensor } from "../ops/op.ts";

/** Sizes of the model and of a batch. */
export const vocabSize = 65, seqLen = 128, batchSize = 4;
const width = 128, heads = 4, inner = 4 * width;

/** Losses of the other engines before steps 0, 1, 2, 5 and 10. */
export const knownLosses: Record<number, number> = {
  0: 4.1935,
  1: 3.8278,
  2: 3.6572,
  5: 2.9787,
  10: 2.3623,
};

/** Name, `[in, out]` as drawn, whether it is a table (kept as drawn) or a product's weight. */
const WEIGHTS: [name: string, rows: number, cols: number, kind: "table" | "gain" | "weight"][] = [
  ["wte", vocabSize, width, "table"],
  ["wpe", seqLen, width, "table"],
  ["ln1", 1, width, "gain"],
  ["wq", width, width, "weight"],
  ["wk", width, width, "weight"],
  ["wv", width, width, "weight"],
  ["wo", width, width, "weight"],
  ["ln2", 1, width, "gain"],
  ["w1", width, inner, "weight"],
  ["w2", inner, width, "weight"],
  ["lnf", 1, width, "gain"],
  ["head", width, vocabSize, "weight"],
];

/** The parameters; a product's weight is `[out, in]`, as everywhere here. */
export const parameters: ParameterSpec[] = WEIGHTS.map(([name, rows, cols, kind]) => {
  const [r, c] = kind === "weight" ? [cols, rows] : [rows, cols];
  return { name, shape: [r, c], rows: r, cols: c, group: "backbone", decay: false };
});

/** The workload's generator (mulberry32). */
function generator(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The first weights: N(0, 0.02²), gains one. */
export function initial(): Map<string, Float32Array> {
  const uniform = generator(1337);
  return new Map(WEIGHTS.map(([name, rows, cols, kind]) => {
    const data = new Float32Array(rows * cols).fill(1);
    if (kind === "gain") return [name, data];
    for (let i = 0; i < data.length; i++) {
      const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
      const value = 0.02 * radius * Math.cos(2 * Math.PI * uniform());
      const at = kind === "weight" ? (i % cols) * rows + Math.floor(i / cols) : i;
      data[at] = value;
    }
    return [name, data];
  }));
}

/** Batches of a learnable stream: next = (3 · current + 7 + noise) mod 65. */
export function batches(count: number): Batch[] {
  const uniform = generator(42);
  const size = batchSize * seqLen;
  return Array.from({ length: count }, () => {
    const tokens = new Int32Array(size), targets = new Int32Array(size);
    for (let i = 0; i < size;) {
      let current = Math.floor(uniform() * vocabSize);
      for (const end = i + seqLen; i < end; i++) {
        tokens[i] = current;
        const noise = uniform() < 0.2 ? Math.floor(uniform() * 5) : 0;
        current = (3 * current + 7 + noise) % vocabSize;
        targets[i] = current;
      }
    }
    return { tokens, targets, count: size };
  });
}

/** Adam as in the other engines. */
export function hyper(update: number): StepHyper {
  const backbone = { lr: 1e-3, weightDecay: 0, clip: 0, update };
  return { beta1: 0.9, beta2: 0.999, eps: 1e-8, groups: { backbone } };
}

/** The model. */
export function loss(
  p: (name: string) => Tensor,
  { tokens, positions, targets, inverseCount, ...dims }: StepInputs,
): LossResult {
  const norm = (x: Tensor, name: string) => layerNorm(x, p(name), null, 1e-5);
  let x = add(embedding(tokens, p("wte")), embedding(positions, p("wpe")));
  const qkv = linear(norm(x, "ln1"), [p("wq"), p("wk"), p("wv")]);
  const [q, k, v] = [0, 1, 2].map((i) => columns(qkv, i * width, width));
  const { o } = attention(q, k, v, { ...dims, heads, kvHeads: heads });
  x = linear(o, p("wo"), x);
  x = linear(gelu(linear(norm(x, "ln2"), p("w1"))), p("w2"), x);
  const logits = linear(norm(x, "lnf"), p("head"));
  const { loss } = crossEntropy(logits, targets, inverseCount);
  return { losses: [{ tensor: loss, weight: 1 }], metrics: { loss }, logits };
}
