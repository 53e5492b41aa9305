/** Measurements of an indexer against their twin, metric by metric. */
import assert from "node:assert/strict";
import { columns } from "../../src/ops/token/columns.ts";
import {
  distanceBins,
  firstMeasured,
  INDEXER_METRICS,
  indexerMetrics,
  type IndexerMetricsAttributes,
  indexerMetricsOp,
  maskOverlap,
} from "../../src/ops/indexer/metrics.ts";
import { meanOf, meanOfOp } from "../../src/ops/indexer/mean_of.ts";
import { maskUnion, maskUnionOp } from "../../src/ops/select/mask.ts";
import { attentionMaps } from "../../src/ops/indexer/maps.ts";
import { type IndexerAttributes, mlaTeacher } from "../../src/ops/indexer/teacher.ts";
import { matrixType, type Tensor } from "../../src/ops/op.ts";
import { TfjsBackend } from "../../src/tfjs/backend.ts";
import { assertClose, checkOp, type CheckOptions } from "../check_op.ts";
import { runOp, runTwin } from "../run_op.ts";
import { indexerAttributes, indexerInputs, maskOf, randomSelection } from "./indexer_case.ts";

/** Each metric is an output, so that none hides behind a larger one. */
function checkMetrics(
  name: string,
  attributes: IndexerMetricsAttributes,
  capabilities: CheckOptions["capabilities"],
): Promise<void> {
  const selection = randomSelection(attributes, attributes.topk);
  const { indexer } = attributes;
  const given = indexerInputs({ ...attributes, indexer: indexer ?? odd.indexer });
  const inputs = [...given, maskOf(selection, attributes.seqLen)];
  return checkOp(name, {
    inputs: inputs.map((x) => ({ ...x, gradient: false })),
    apply: ([qI, kI, w, q, kv, kPe, lse, mask]) => {
      const teacher = { q, kv, kPe, lse };
      const scoring = indexer && { qI, kI, w };
      const { means, histogram } = indexerMetrics(scoring, teacher, mask, attributes);
      return [...INDEXER_METRICS.map((_, i) => columns(means, i, 1)), histogram];
    },
    cotangents: [],
    capabilities,
    tolerance: { forward: 1e-4 },
  });
}

const odd = indexerAttributes([2, 37], [3, 5, 2, 3], [3, 5]);
const even = indexerAttributes([2, 70], [2, 8, 4, 8], [2, 8]);
const narrow = indexerAttributes([3, 70], [1, 2, 2, 2], [2, 2], "none");

for (const software of [true, false]) {
  Deno.test(`indexerMetrics, kernels for ${software ? "software" : "GPU"}`, async () => {
    await checkMetrics("odd", { ...odd, topk: 5, localWindow: 4 }, { software });
    await checkMetrics("even", { ...even, topk: 8 }, { software });
    const chunks = { software, maxBindingBytes: 4 * 4000 };
    await checkMetrics("chunks", { ...narrow, topk: 8 }, chunks);
    await checkMetrics("attention's own", { ...odd, indexer: null, topk: 5 }, chunks);
  });
}

Deno.test("indexerMetrics of short sequences measures the rows there are", async () => {
  assert.equal(firstMeasured(37, 18), 36);
  assert.equal(firstMeasured(37, 19), 19);
  assert.equal(firstMeasured(37, 37), 0);
  await checkMetrics("from k", { ...odd, topk: 19 }, {});
  await checkMetrics("all", { ...odd, topk: 50 }, {});
});

Deno.test("indexerMetrics of a perfect selection and of an unknowing indexer", async () => {
  const backend = await TfjsBackend.open("wasm");
  const { batch, seqLen } = even;
  const inputs = indexerInputs(even);
  const last = randomSelection(even, seqLen).map((keys) =>
    keys.filter((s) => s > 0 || keys.length === 1)
  );
  const mask = maskOf(last, seqLen);
  const tensors = [...inputs, mask].map((x, i) =>
    backend.tensor(i === 2 ? new Float32Array(x.rows * x.cols) : x.values!, x.rows, x.cols, x.dtype)
  );
  const [qI, kI, w, q, kv, kPe, lse, bits] = tensors;
  const attributes = { ...even, topk: seqLen - 1 };
  const { means, histogram } = indexerMetrics({ qI, kI, w }, { q, kv, kPe, lse }, bits, attributes);
  const value = Object.fromEntries(
    INDEXER_METRICS.map((name, i) => [name, backend.read(means)[i]]),
  );
  assert.equal(value.dead_scores, 1);
  assert.equal(value.sink_share, 0);
  assert(Math.abs(value.index_entropy - 1) < 1e-5, `${value.index_entropy}`);
  assert(value.captured_mass <= value.oracle_mass + 1e-6 && value.oracle_mass <= 1 + 1e-6);
  assert(Math.abs(value.kl - (1 - value.target_entropy) * Math.log(seqLen)) < 1e-4);
  const shares = [...backend.read(histogram)];
  assert.equal(shares.length, distanceBins(seqLen));
  assert(Math.abs(shares.reduce((a, b) => a + b) - 1) < 1e-5);
  assert(Math.abs(shares[1] - 1 / (seqLen - 1)) < 1e-6, `${batch} sequences: ${shares}`);
});

Deno.test("indexerMetrics counts rows in which a key is in and one of its score is not", async () => {
  const [batch, seqLen, topk] = [2, 8, 2];
  const dims = { heads: 1, qkNopeHeadDim: 1, qkRopeHeadDim: 1, vHeadDim: 1 };
  const matrix = (cols: number, values = new Array(16 * cols).fill(0)) => ({
    ...{ rows: 16, cols, values },
  });
  const ones = matrix(1, new Array(16).fill(1));
  // With two keys rows from 4 on are measured: of the first sequence row 4 takes one score of 1 and
  // leaves another, from row 5 on there are two of 3; all rows of the second choose among zeros.
  const keys = [3, 0, 1, 1, 0, 3, 2, -1, -1, -2, -3, 1, -1, -5, -1, -1];
  const weights = matrix(1, keys.map((_, i) => i < 8 ? 1 : -1));
  // Attention weighs keys alike, or in the order of these numbers.
  const ordered = matrix(2, keys.flatMap((_, i) => [i % 8, 0]));
  const cases: [number | "native", typeof ordered, number, number][] = [
    [0, ordered, topk, 5 / 8],
    // With three keys rows 6 and 7 are measured, of which the second sequence's choose.
    [0, ordered, 3, 1 / 2],
    [0, ordered, seqLen, 0],
    ["native", ordered, topk, 0],
    ["native", matrix(2), topk, 1],
  ];
  for (const [kind, kv, topk, want] of cases) {
    const mask = maskOf(randomSelection({ batch, seqLen }, topk), seqLen);
    const query = matrix(2, keys.flatMap(() => [1, 0]));
    const inputs = [ones, matrix(1, keys), weights, query, kv, matrix(1), ones]
      .concat({ ...mask, values: Array.from(mask.values!) } as typeof ordered);
    const indexer = { heads: 1, dim: 1, activation: "relu", scale: 1 } as const;
    const apply = ([qI, kI, w, q, kv, kPe, lse, bits]: Tensor[]) => {
      const scoring = kind === "native" ? null : { qI, kI, w };
      const { means } = indexerMetrics(scoring, { q, kv, kPe, lse }, bits, {
        ...{ batch, seqLen, topk, teacher: mlaTeacher(dims) },
        indexer: scoring && indexer,
      });
      return [columns(means, INDEXER_METRICS.indexOf("tied_rows"), 1)];
    };
    const [[twin], ...kernels] = [
      await runTwin(inputs, apply),
      await runOp(inputs, apply, { software: true }),
      await runOp(inputs, apply, { software: false }),
    ];
    assert.deepEqual([Array.from(twin), ...kernels.map(([x]) => [...x])], Array(3).fill([want]));
  }
});

Deno.test("indexerMetrics: of equal attention the oracle takes the oldest, or the newest", async () => {
  const [seqLen, topk] = [9, 3];
  const dims = { heads: 1, qkNopeHeadDim: 1, qkRopeHeadDim: 1, vHeadDim: 1 };
  const zeros = (cols: number) => ({ rows: 9, cols, values: new Float32Array(9 * cols) });
  // Rows from 6 on are measured: the oldest three are none of the newest.
  const newest = Array.from({ length: seqLen }, (_, t) => [t - 2, t - 1, t].filter((s) => s >= 0));
  const mask = maskOf(newest, seqLen);
  const inputs = [...[2, 2, 1, 1].map(zeros), { ...mask, values: Int32Array.from(mask.values!) }];
  for (const [ties, want] of [["oldest", 0], ["newest", 1]] as const) {
    const apply = ([q, kv, kPe, lse, bits]: Tensor[]) => {
      const { means } = indexerMetrics(null, { q, kv, kPe, lse }, bits, {
        ...{ batch: 1, seqLen, topk, teacher: mlaTeacher(dims), indexer: null, ties },
      });
      return [columns(means, INDEXER_METRICS.indexOf("set_overlap"), 1)];
    };
    for (const [share] of [await runTwin(inputs, apply), await runOp(inputs, apply)]) {
      assert.deepEqual(Array.from(share), [want], ties);
    }
  }
});

Deno.test("attentionMaps: without an indexer attention stands for its scores", async () => {
  const { seqLen } = odd;
  // Of the keys that a query sees.
  const seen = (map: ArrayLike<number>) =>
    Array.from(map).filter((_, i) => i % seqLen <= Math.floor(i / seqLen) % seqLen);
  const inputs = indexerInputs(odd).map((x) => ({ ...x, values: x.values! }));
  const maps = (indexer: IndexerAttributes["indexer"] | null) => ([qI, kI, w, ...of]: Tensor[]) => {
    const [q, kv, kPe, lse] = of;
    const scoring = indexer && { qI, kI, w };
    const shown = attentionMaps(scoring, { q, kv, kPe, lse }, { ...odd, indexer });
    return [shown.scores, shown.attention];
  };
  for (const indexer of [odd.indexer, null]) {
    const want = (await runTwin(inputs, maps(indexer))).map(seen);
    for (const software of [true, false]) {
      const got = (await runOp(inputs, maps(indexer), { software })).map(seen);
      for (const i of [0, 1]) assertClose(`map ${i}`, got[i], want[i], 1e-5);
      assert.equal(got[0].every((x, i) => x === got[1][i]), indexer === null);
    }
  }
});

Deno.test("meanOf", async () => {
  for (const [count, cols] of [[2, 14], [3, 1], [70, 5]]) {
    await checkOp(`${count} rows of ${cols}`, {
      inputs: Array.from({ length: count }, () => ({ rows: 1, cols, gradient: false })),
      apply: (rows) => [meanOf(rows)],
      cotangents: [],
    });
  }
  const types = [matrixType(1, 3), matrixType(1, 4)];
  assert.throws(() => meanOfOp.types(types, null), /meanOf to 1x3, 1x4: .*rows \[1, 3\]/);
});

Deno.test("maskUnion", async () => {
  const extent = { batch: 3, seqLen: 70 };
  await checkOp("three masks", {
    inputs: [0, 1, 2].map(() => maskOf(randomSelection(extent, 9), 70)),
    apply: (masks) => [masks.reduce((a, b) => maskUnion(a, b))],
    cotangents: [],
  });
  const types = [matrixType(2, 3, "i32"), matrixType(2, 3)];
  assert.throws(() => maskUnionOp.types(types, null), /maskUnion to 2x3, 2x3: .*i32 masks/);
});

Deno.test("maskOverlap", async () => {
  for (const [batch, seqLen, topk] of [[2, 37, 5], [3, 70, 40], [1, 9, 20]]) {
    const extent = { batch, seqLen };
    const masks = [0, 1].map(() => maskOf(randomSelection(extent, topk), seqLen));
    await checkOp(`maskOverlap ${batch}x${seqLen}`, {
      inputs: masks,
      apply: ([a, b]) => [maskOverlap(a, b, { batch, seqLen, topk })],
      cotangents: [],
    });
  }
});

Deno.test("indexerMetrics names what does not fit", () => {
  const types = [...indexerInputs(odd), maskOf(randomSelection(odd, 4), 37)]
    .map(({ rows, cols, dtype }) => matrixType(rows, cols, dtype));
  assert.throws(() => indexerMetricsOp.types(types.slice(0, 7), { ...odd, topk: 4 }), /mask/);
  assert.throws(() => indexerMetricsOp.types(types, { ...odd, topk: 0 }), /topk is 0/);
});
