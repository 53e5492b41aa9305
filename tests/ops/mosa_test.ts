/** Mixture of sparse attention: against its twin, its selection, and what is causal in it. */
import assert from "node:assert/strict";
import { resolveConfig } from "../../src/config/config.ts";
import { mosaSelection } from "../../src/kernels/mosa/selection.ts";
import { groupedQueryAttention } from "../../src/model/grouped_query_attention.ts";
import { denseView } from "../../src/model/stage_view.ts";
import { mixtureOfSparseAttention } from "../../src/model/mosa.ts";
import { attention } from "../../src/ops/attention/attention.ts";
import {
  mosaAttention,
  type MosaAttentionDims,
  mosaAttentionOp,
} from "../../src/ops/attention/mosa_attention.ts";
import { matrixType, type Tensor } from "../../src/ops/op.ts";
import { rope } from "../../src/ops/token/rope.ts";
import { TfjsBackend } from "../../src/tfjs/backend.ts";
import {
  assertClose,
  type CheckInput,
  checkOp,
  type CheckOptions,
  randomNormal,
  testGpu,
} from "../check_op.ts";
import { layout, runKernels } from "../run_kernel.ts";

const dimsOf = (
  [batch, seqLen, heads, topk]: [number, number, number, number],
  [headDim, vHeadDim]: [number, number],
): MosaAttentionDims => ({ batch, seqLen, heads, headDim, vHeadDim, topk });

function inputsOf({ batch, seqLen, heads, headDim, vHeadDim }: MosaAttentionDims): CheckInput[] {
  const rows = batch * seqLen;
  const cols = [heads * headDim, heads * headDim, heads * vHeadDim, heads];
  return cols.map((cols) => ({ rows, cols }));
}

function check(
  name: string,
  dims: MosaAttentionDims,
  options: Partial<CheckOptions> = {},
): Promise<void> {
  // Without the i32 outputs: picks out of place would show in the others.
  const apply: CheckOptions["apply"] = (inputs) =>
    inputs[0].backend.apply(mosaAttentionOp, inputs, dims).slice(0, 3);
  return checkOp(name, { inputs: inputsOf(dims), apply, ...options });
}

/** Multiples of 1/2 with many ties, zeros of both signs among them. */
function coarse(count: number): Float32Array {
  return randomNormal(count).map((x) => x > 0 ? Math.floor(x * 2) / 2 : Math.ceil(x * 2) / 2);
}

for (const software of [true, false]) {
  const capabilities = { software };
  const kind = software ? "software" : "GPU";

  Deno.test(`mosaAttention, kernels for ${kind}`, async () => {
    await check("odd widths", dimsOf([2, 37, 3, 11], [5, 3]), { capabilities });
    await check("whole vec4s", dimsOf([1, 21, 2, 9], [8, 4]), { capabilities });
    await check("one pick", dimsOf([2, 7, 2, 1], [4, 4]), { capabilities });
  });

  Deno.test(`mosaAttention with tied scores, kernels for ${kind}`, async () => {
    const dims = dimsOf([2, 33, 2, 13], [4, 4]);
    const inputs = inputsOf(dims);
    inputs[3] = { ...inputs[3], values: coarse(inputs[3].rows * inputs[3].cols) };
    await check("ties", dims, { inputs, capabilities });
  });

  Deno.test(`mosaSelection picks exactly, kernels for ${kind}`, async () => {
    const gpu = await testGpu();
    // Sequences shorter and longer than a workgroup; counts that leave runs uneven.
    for (
      const [batch, seqLen, heads, picks] of [[2, 5, 3, 2], [1, 1000, 2, 129], [3, 257, 1, 257]]
    ) {
      const name = `${picks} of ${batch}x${seqLen}, ${heads} heads`;
      const count = batch * seqLen * heads;
      const zeros = new Float32Array(count).map((_, i) => i % 3 ? 0 : -0);
      for (const scores of [randomNormal(count), coarse(count), zeros]) {
        const [rows, picked] = [batch * seqLen, batch * picks];
        const args = {
          router: layout(rows, heads),
          indices: layout(picked, heads),
          slots: layout(rows, heads),
        };
        const kernel = mosaSelection({ ...args, seqLen, picks, software });
        const arrays = [
          scores,
          new Int32Array(picked * heads).fill(-9),
          new Int32Array(rows * heads).fill(-9),
        ];
        const { arrays: out } = await runKernels(gpu, arrays, [[kernel, 0, 1, 2]]);
        const want = select(scores, { batch, seqLen, heads, picks });
        assert.deepEqual(new Int32Array(out[1].buffer), want.indices, `${name}: indices`);
        assert.deepEqual(new Int32Array(out[2].buffer), want.slots, `${name}: slots`);
      }
    }
  });
}

/** The selection by sorting. */
function select(
  scores: Float32Array,
  { batch, seqLen, heads, picks }: Record<"batch" | "seqLen" | "heads" | "picks", number>,
): { indices: Int32Array; slots: Int32Array } {
  const indices = new Int32Array(batch * picks * heads);
  const slots = new Int32Array(batch * seqLen * heads).fill(-1);
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const score = (t: number) => scores[(b * seqLen + t) * heads + h];
      const order = [...Array(seqLen).keys()].sort((s, t) => score(t) - score(s) || s - t);
      order.slice(0, picks).sort((s, t) => s - t).forEach((t, j) => {
        indices[(b * picks + j) * heads + h] = t;
        slots[(b * seqLen + t) * heads + h] = j;
      });
    }
  }
  return { indices, slots };
}

Deno.test("mosaAttention with a scale of its own, and one input trained at a time", async () => {
  const dims = { ...dimsOf([1, 12, 2, 5], [4, 4]), scale: 1.5 };
  for (const wanted of [0, 1, 2, 3]) {
    const inputs = inputsOf(dims).map((x, i) => ({ ...x, gradient: i === wanted }));
    await check(`gradient ${wanted} only`, dims, { inputs });
  }
});

Deno.test("mosaAttention splits its batch where a binding is too small", async () => {
  // 5 sequences of 16 rows of 48 columns are 15 360 bytes.
  const dims = dimsOf([5, 16, 4, 6], [12, 8]);
  await check("in parts", dims, { capabilities: { maxBindingBytes: 8_000 } });
  await assert.rejects(
    check("too wide", dims, { capabilities: { maxBindingBytes: 3_000 } }),
    { name: "RangeError", message: /^Cannot run attention over 16 tokens of 192 bytes/ },
  );
});

/** The output of the twin on these values, which the kernels must be equal to. */
async function run(dims: MosaAttentionDims, values: Float32Array[]): Promise<Float32Array> {
  const inputs = inputsOf(dims).map((x, i) => ({ ...x, values: values[i] }));
  await check("kernels", dims, { inputs });
  const backend = await TfjsBackend.open("wasm");
  const [q, k, v, router] = inputs.map((x) => backend.tensor(x.values, x.rows, x.cols));
  return backend.read(mosaAttention(q, k, v, router, dims)) as Float32Array;
}

const valuesFor = (dims: MosaAttentionDims) =>
  inputsOf(dims).map(({ rows, cols }) => randomNormal(rows * cols));

Deno.test("mosaAttention with all tokens picked is gated attention", async () => {
  for (const topk of [9, 50]) {
    const dims = dimsOf([2, 9, 3, topk], [6, 4]);
    const values = valuesFor(dims);
    const backend = await TfjsBackend.open("wasm");
    const [q, k, v] = inputsOf(dims).map(({ rows, cols }, i) =>
      backend.tensor(values[i], rows, cols)
    ) as Tensor[];
    const { o } = attention(q, k, v, { batch: 2, seqLen: 9, heads: 3, kvHeads: 3 });
    const gated = (backend.read(o) as Float32Array).map((x, i) =>
      x / (1 + Math.exp(-values[3][Math.floor(i / 4)]))
    );
    assertClose(`topk ${topk}`, await run(dims, values), gated, 1e-6);
  }
});

Deno.test("mosaAttention gives exactly 0 where a head has not picked", async () => {
  const dims = dimsOf([1, 20, 2, 6], [4, 4]);
  const values = valuesFor(dims);
  const { slots } = select(values[3], { batch: 1, seqLen: 20, heads: 2, picks: 6 });
  const o = await run(dims, values);
  for (let i = 0; i < o.length; i++) {
    const picked = slots[Math.floor(i / 4)] >= 0;
    assert.equal(o[i] !== 0, picked, `element ${i}`);
  }
});

Deno.test("MoSA is causal among the picks", async () => {
  const dims = dimsOf([1, 12, 2, 12], [4, 4]);
  const values = valuesFor(dims);
  const before = await run(dims, values);
  const changed = values.map((x) => x.slice());
  // Token 7 of q, k and v: the selection, which here takes all tokens, stays as it is.
  for (const x of changed.slice(0, 3)) x.fill(3, 7 * 8, 8 * 8);
  const after = await run(dims, changed);
  assert.deepEqual(after.subarray(0, 7 * 8), before.subarray(0, 7 * 8));
  assert.notDeepEqual(after.subarray(7 * 8), before.subarray(7 * 8));
});

Deno.test("MoSA is not causal in what is picked: a later token's score changes earlier rows", async () => {
  const dims = dimsOf([1, 12, 1, 3], [4, 4]);
  const values = valuesFor(dims);
  const scores = values[3];
  // The head picks tokens 1, 2 and 5 …
  scores.fill(-1);
  scores[1] = 0.5;
  scores[2] = 2;
  scores[5] = 1;
  const before = await run(dims, values);
  assert(before.subarray(4, 8).every((x) => x !== 0));
  // … until token 11 outdoes token 1, which loses its output, and token 2 loses it as a key.
  scores[11] = 3;
  const after = await run(dims, values);
  assert.deepEqual(after.subarray(4, 8), new Float32Array(4));
  assert.notDeepEqual(after.subarray(8, 12), before.subarray(8, 12));
});

Deno.test("the MoSA layer with a router of zeros halves multi-head attention", async () => {
  const config = resolveConfig({ attention: "mha", hiddenSize: 12, numAttentionHeads: 3 });
  const { headDim } = config;
  const backend = await TfjsBackend.open("wasm");
  const matrix = (rows: number, cols: number) =>
    backend.tensor(randomNormal(rows * cols), rows, cols);
  const weights = new Map<string, Tensor>(
    ["q_proj", "k_proj", "v_proj", "o_proj"].map((name) => [name, matrix(12, 3 * headDim)]),
  );
  weights.set("mosa_router", backend.tensor(new Float32Array(3 * 12), 3, 12));
  const [x, zero] = [matrix(2 * 7, 12), backend.tensor(new Float32Array(2 * 7 * 12), 2 * 7, 12)];
  const output = (layer: typeof groupedQueryAttention, indexTopk: number, residual = zero) =>
    backend.read(
      layer(x, residual, {
        config: { ...config, indexTopk, mosaCausal: false, mosaDenseHeads: 0 },
        stage: denseView,
        index: 0,
        batch: 2,
        seqLen: 7,
        shared: null,
        weight: (name) => weights.get(name)!,
        rotate: (x, spec) => rope(x, { ...spec, seqLen: 7 }),
      }).output,
    );
  const half = output(groupedQueryAttention, 7).map((y) => y / 2);
  assertClose("all picked", output(mixtureOfSparseAttention, 7), half, 1e-6);
  // All scores are equal, so that heads pick the first tokens, which see only each other.
  const few = output(mixtureOfSparseAttention, 3);
  assertClose("first picked", few.subarray(0, 3 * 12), half.subarray(0, 3 * 12), 1e-6);
  assert(few.subarray(3 * 12, 7 * 12).every((y) => y === 0));
  const added = output(mixtureOfSparseAttention, 3, x);
  assertClose("residual", added, (backend.read(x) as Float32Array).map((x, i) => x + few[i]), 1e-6);
});

Deno.test("mosaAttention names what does not fit", () => {
  const dims = dimsOf([2, 3, 4, 2], [6, 5]);
  const types = (cols: number[], more: Partial<MosaAttentionDims> = {}) =>
    mosaAttentionOp.types(cols.map((c) => matrixType(6, c)), { ...dims, ...more });
  assert.deepEqual(types([24, 24, 20, 4])[0], matrixType(6, 20));
  assert.throws(() => types([24, 24, 20, 3]), /^RangeError: Cannot apply mosaAttention to 6x24, /);
  assert.throws(() => types([24, 12, 20, 4]), /expected q and k \[6, 4 \* 6\], v \[6, 4 \* 5\]/);
  assert.throws(() => types([24, 24, 20, 4], { topk: 0 }), /topk is 0, not a whole number above 0/);
  assert.throws(() => types([24, 24, 20, 4], { batch: 0 }), /batch is 0/);
});
