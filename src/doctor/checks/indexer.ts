/** The indexer: its selections, its loss and what is measured of it. */
import type { Indexer } from "../../kernels/indexer/indexer.ts";
import { attentionMaps } from "../../ops/indexer/maps.ts";
import { indexerLoss } from "../../ops/indexer/loss.ts";
import type { IndexerLossAttributes } from "../../ops/indexer/loss_attributes.ts";
import { meanOf } from "../../ops/indexer/mean_of.ts";
import { indexerMetrics, maskOverlap } from "../../ops/indexer/metrics.ts";
import { mlaTeacher } from "../../ops/indexer/teacher.ts";
import { mlaAttention } from "../../ops/attention/mla_attention.ts";
import { sparseMlaAttention } from "../../ops/attention/sparse_mla_attention.ts";
import type { Tensor } from "../../ops/op.ts";
import { indexTopk, type IndexTopkAttributes } from "../../ops/select/index.ts";
import { oracleTopk } from "../../ops/select/oracle.ts";
import { positionTopk } from "../../ops/select/positions.ts";
import { maskUnion, selectionMask } from "../../ops/select/mask.ts";
import type { CaseInput, OpCase } from "../cases/check_case.ts";
import type { Random } from "../cases/random.ts";
import { listsOf, masksOf, randomSelection } from "./selections.ts";

const [batch, seqLen, topk] = [2, 41, 9];
const indexer: Indexer = { heads: 3, dim: 8, activation: "relu", scale: 24 ** -0.5 };
const attention = { batch, seqLen, heads: 3, qkNopeHeadDim: 8, qkRopeHeadDim: 4, vHeadDim: 8 };
const teacher = mlaTeacher(attention);
const taught = { batch, seqLen, indexer, teacher };
const shape = `${batch}x${seqLen}, 3 heads of 8`;

const input = (cols: number): CaseInput => ({ rows: batch * seqLen, cols });
const frozen = (cols: number): CaseInput => ({ ...input(cols), gradient: false });
const indexerInputs = [24, 8, 3].map(input);
const teacherInputs = [36, 48, 4].map(frozen);

/** The teacher of q, kv and kPe. */
function teacherOf([q, kv, kPe]: readonly Tensor[]) {
  return { q, kv, kPe, lse: mlaAttention(q, kv, kPe, attention).lse };
}

export function indexerLossCases(random: Random): OpCase[] {
  const loss = (
    name: string,
    more: Partial<IndexerLossAttributes>,
    isSelected: boolean,
  ): OpCase => {
    const selection = randomSelection(random, { batch, seqLen }, topk);
    const attributes: IndexerLossAttributes = {
      ...{ ...taught, direction: "forward", weight: 0.7, gradient: true },
      ...more,
    };
    const lists = [masksOf(selection, seqLen), listsOf(selection, topk)];
    return {
      ...{ name: `indexerLoss, ${name}`, shape: isSelected ? `${shape}, ${topk} keys` : shape },
      inputs: [...indexerInputs, ...teacherInputs, ...isSelected ? lists : []],
      apply([qI, kI, w, q, kv, kPe, mask, indices]) {
        const chosen = mask ? { mask, indices } : null;
        return [indexerLoss(qI, kI, w, teacherOf([q, kv, kPe]), chosen, attributes)];
      },
      losses: { 0: attributes.weight },
    };
  };
  return [
    loss("all keys", {}, false),
    loss("one a head", { klHeads: "each" }, false),
    loss("masked", { form: "masked" }, true),
    loss("gathered", { form: "gathered" }, true),
    {
      ...loss("gathered, of attention's scores", { form: "gathered" }, true),
      // The lse and the scores of attention along the same lists.
      apply([qI, kI, w, q, kv, kPe, mask, indices]) {
        const form = "gathered";
        const { lse, scores } = sparseMlaAttention(q, kv, kPe, indices, mask, {
          ...attention,
          topk,
          form,
        });
        return [
          indexerLoss(qI, kI, w, { q, kv, kPe, lse }, { mask, indices, scores }, {
            ...{ ...taught, form, direction: "forward", weight: 0.7, gradient: true },
          }),
        ];
      },
    },
    loss("gathered, reverse", { form: "gathered", direction: "reverse" }, true),
  ];
}

export function selectionCases(random: Random): OpCase[] {
  // Whole numbers, whose sums are exact: equal scores are equal everywhere.
  const coarse = (cols: number): CaseInput => ({
    ...frozen(cols),
    values: random.coarse(batch * seqLen * cols),
  });
  const sizes = { batch, seqLen, topk };
  const learned = (
    name: string,
    own: Partial<Indexer>,
    more: Pick<IndexTopkAttributes, "block" | "ties"> = {},
  ): OpCase => {
    const attributes = { ...sizes, indexer: { ...indexer, scale: 1, ...own }, ...more };
    return {
      ...{ name: `indexTopk${name}`, shape: `${shape}, ${topk} keys` },
      inputs: [coarse(24), coarse(8), coarse(3)],
      apply: ([qI, kI, w]) => [indexTopk(qI, kI, w, attributes)],
    };
  };
  const byPosition = (["random", "recency", "sinkRecency"] as const).map((kind): OpCase => ({
    ...{ name: `positionTopk, ${kind}; selectionMask`, shape: `${batch}x${seqLen}, ${topk} keys` },
    inputs: [frozen(1)],
    apply([x]) {
      const seed = kind === "random" ? 4_000_000_000 : undefined;
      const indices = positionTopk(x, { ...sizes, kind, seed, sinks: 3 });
      return [indices, selectionMask(indices, { seqLen })];
    },
  }));
  return [
    learned("", {}),
    learned(", no activation", { activation: "none" }),
    learned(", newest of ties", {}, { ties: "newest" }),
    learned(", largest of blocks", {}, { block: { size: 4, pool: "max" } }),
    learned(", mean of blocks", { activation: "none" }, { block: { size: 4, pool: "mean" } }),
    ...byPosition,
    {
      ...{ name: "oracleTopk", shape: `${shape}, ${topk} keys`, inputs: teacherInputs },
      apply(inputs) {
        const { q, kv, kPe, lse } = teacherOf(inputs);
        return [oracleTopk(q, kv, kPe, lse, { ...sizes, teacher })];
      },
    },
  ];
}

export function measurementCases(random: Random): OpCase[] {
  const [own, other] = [0, 1].map(() =>
    masksOf(randomSelection(random, { batch, seqLen }, topk), seqLen)
  );
  const inputs = [24, 8, 3].map(frozen).concat(teacherInputs);
  return [
    {
      ...{ name: "indexerMetrics", shape, inputs: [...inputs, own] },
      apply([qI, kI, w, q, kv, kPe, mask]) {
        const given = teacherOf([q, kv, kPe]);
        return Object.values(indexerMetrics({ qI, kI, w }, given, mask, { ...taught, topk }));
      },
      tolerance: { forward: 1e-4 },
    },
    {
      ...{ name: "indexerMetrics, no indexer", shape, inputs: [...teacherInputs, own] },
      apply([q, kv, kPe, mask]) {
        const of = { ...taught, indexer: null, topk };
        return Object.values(indexerMetrics(null, teacherOf([q, kv, kPe]), mask, of));
      },
      tolerance: { forward: 1e-4 },
    },
    {
      ...{ name: "maskOverlap", shape: `${batch}x${seqLen}, ${topk} keys`, inputs: [own, other] },
      apply: ([a, b]) => [maskOverlap(a, b, { batch, seqLen, topk })],
    },
    {
      ...{ name: "maskUnion", shape: `${batch}x${seqLen}, ${topk} keys`, inputs: [own, other] },
      apply: ([a, b]) => [maskUnion(a, b)],
    },
    {
      ...{ name: "meanOf", shape: "2 rows of 14" },
      inputs: [0, 1].map(() => ({ rows: 1, cols: 14, gradient: false })),
      apply: (rows) => [meanOf(rows)],
    },
    {
      ...{ name: "attentionMaps", shape, inputs },
      apply([qI, kI, w, q, kv, kPe]) {
        const { scores, attention } = attentionMaps({ qI, kI, w }, teacherOf([q, kv, kPe]), taught);
        return [scores, attention];
      },
      // Of the keys that a query sees: what is said of later ones is nobody's business.
      isCompared: (i) => i % seqLen <= Math.floor(i / seqLen) % seqLen,
    },
  ];
}
