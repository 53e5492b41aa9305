/** Causal mixture of sparse attention: against its twin, and what it may not see. */
import assert from "node:assert/strict";
import { resolveConfig } from "../../src/config/config.ts";
import { groupedQueryAttention } from "../../src/model/grouped_query_attention.ts";
import { mixtureOfSparseAttention } from "../../src/model/mosa.ts";
import { denseView } from "../../src/model/stage_view.ts";
import type { Tensor } from "../../src/ops/op.ts";
import { rope } from "../../src/ops/token/rope.ts";
import { attention } from "../../src/ops/attention/attention.ts";
import {
  causalMosaAttention,
  causalMosaAttentionOp,
  type CausalMosaDims,
} from "../../src/ops/attention/causal_mosa_attention.ts";
import { mosaAttention } from "../../src/ops/attention/mosa_attention.ts";
import { TfjsBackend } from "../../src/tfjs/backend.ts";
import {
  assertClose,
  type CheckInput,
  checkOp,
  type CheckOptions,
  randomNormal,
} from "../check_op.ts";

const DIMS: CausalMosaDims = { batch: 2, seqLen: 37, heads: 3, headDim: 5, vHeadDim: 3, topk: 4 };

function inputsOf({ batch, seqLen, heads, headDim, vHeadDim }: CausalMosaDims): CheckInput[] {
  const cols = [heads * headDim, heads * headDim, heads * vHeadDim, heads];
  return cols.map((cols) => ({ rows: batch * seqLen, cols }));
}

function check(dims: CausalMosaDims, options: Partial<CheckOptions> = {}): Promise<void> {
  // Without the terms: wrong ones would show in the others.
  const apply: CheckOptions["apply"] = (inputs) =>
    inputs[0].backend.apply(causalMosaAttentionOp, inputs, dims).slice(0, 3);
  return checkOp("causalMosaAttention", { inputs: inputsOf(dims), apply, ...options });
}

for (const software of [true, false]) {
  for (const form of ["masked", "gathered"] as const) {
    Deno.test(`causalMosaAttention, ${form}, kernels for ${software ? "software" : "GPU"}`, async () => {
      const capabilities = { software };
      await check({ ...DIMS, form }, { capabilities });
      const ties = inputsOf(DIMS);
      const coarse = randomNormal(ties[3].rows * ties[3].cols).map(Math.round);
      ties[3] = { ...ties[3], values: coarse };
      await check({ ...DIMS, form }, { capabilities, inputs: ties });
    });
  }
}

const random = (dims: CausalMosaDims) =>
  inputsOf(dims).map(({ rows, cols }) => randomNormal(rows * cols));

/** The twin's output for these values. */
async function run(op: typeof causalMosaAttention, dims: CausalMosaDims, values: Float32Array[]) {
  const backend = await TfjsBackend.open("wasm");
  const [q, k, v, router] = inputsOf(dims).map(({ rows, cols }, i) =>
    backend.tensor(values[i], rows, cols)
  );
  return backend.read(op(q, k, v, router, dims)) as Float32Array;
}

Deno.test("no output of causal MoSA depends on a later token", async () => {
  const dims = { ...DIMS, batch: 1, seqLen: 20 };
  const values = random(dims);
  const before = await run(causalMosaAttention, dims, values);
  for (const t of [1, 7, 19]) {
    const changed = values.map((x) => x.map((y, i) => i < t * x.length / 20 ? y : y + 3));
    const after = await run(causalMosaAttention, dims, changed);
    assert.deepEqual(after.subarray(0, t * 9), before.subarray(0, t * 9), `before token ${t}`);
  }
});

Deno.test("causal MoSA that keeps all tokens is gated attention", async () => {
  const dims = { ...DIMS, batch: 1, seqLen: 9, topk: 50 };
  const values = random(dims);
  const backend = await TfjsBackend.open("wasm");
  const [q, k, v] = [15, 15, 9].map((cols, i) => backend.tensor(values[i], 9, cols));
  const { o } = attention(q, k, v, { batch: 1, seqLen: 9, heads: 3, kvHeads: 3 });
  const gated = (backend.read(o) as Float32Array).map((x, i) =>
    x / (1 + Math.exp(-values[3][Math.floor(i / 3)]))
  );
  assertClose("gated", await run(causalMosaAttention, dims, values), gated, 1e-6);
});

Deno.test("the last token of causal MoSA is that of heads that see the whole sequence", async () => {
  const dims = { ...DIMS, batch: 1, seqLen: 12 };
  const values = random(dims);
  values[3].fill(2, 11 * 3);
  const [causal, ahead] = [
    await run(causalMosaAttention, dims, values),
    await run(mosaAttention, dims, values),
  ];
  assert(causal.subarray(11 * 9).every((x) => x !== 0));
  assertClose("last", causal.subarray(11 * 9), ahead.subarray(11 * 9), 1e-6);
});

Deno.test("the causal MoSA layer: dense heads are those of MHA, chosen ones its half at a router of zeros", async () => {
  const config = resolveConfig({ attention: "mha", hiddenSize: 12, numAttentionHeads: 3 });
  const backend = await TfjsBackend.open("wasm");
  const matrix = (rows: number, cols: number) =>
    backend.tensor(randomNormal(rows * cols), rows, cols);
  const weights = new Map<string, Tensor>(
    ["q_proj", "k_proj", "v_proj"].map((name) => [name, matrix(12, 12)]),
  );
  const eye = Float32Array.from({ length: 144 }, (_, i) => Number(i % 13 === 0));
  weights.set("o_proj", backend.tensor(eye, 12, 12));
  weights.set("mosa_router", backend.tensor(new Float32Array(2 * 12), 2, 12));
  const [x, zero] = [matrix(7, 12), backend.tensor(new Float32Array(7 * 12), 7, 12)];
  const output = (layer: typeof groupedQueryAttention) =>
    backend.read(
      layer(x, zero, {
        config: { ...config, indexTopk: 7, mosaCausal: true, mosaDenseHeads: 1 },
        ...{ stage: denseView, index: 0, batch: 1, seqLen: 7, shared: null },
        weight: (name) => weights.get(name)!,
        rotate: (x, spec) => rope(x, { ...spec, seqLen: 7 }),
      }).output,
    );
  const want = output(groupedQueryAttention).map((y, i) => i % 12 < 4 ? y : y / 2);
  assertClose("heads", output(mixtureOfSparseAttention), want, 1e-6);
});

Deno.test("causalMosaAttention in parts of its batch, and one input trained at a time", async () => {
  const dims = { ...DIMS, batch: 5, seqLen: 16 };
  // 5 sequences of 16 rows of 15 columns are 4 800 bytes.
  await check(dims, { capabilities: { maxBindingBytes: 2_600 } });
  for (const wanted of [0, 1, 2, 3]) {
    const inputs = inputsOf(DIMS).map((x, i) => ({ ...x, gradient: i === wanted }));
    await check({ ...DIMS, scale: 1.5 }, { inputs });
  }
});
