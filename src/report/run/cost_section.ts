/**
 * What a model costs, and what that says about the promises made for sparse latent attention.
 *
 * @module
 */
import { medianStepMs } from "../../ablate/run_costs.ts";
import type { RunConfig } from "../../config/config.ts";
import { headWidths, indexWidth, mainStage, selectsByIndex } from "../../costs/contexts.ts";
import {
  cachePerToken,
  countParameters,
  FLOP_PARTS,
  flopParts,
  forwardFlopsPerToken,
  teacherFlopsPerToken,
  trainingFlopsPerToken,
} from "../../costs/costs.ts";
import type { Stage } from "../../config/stage_fields.ts";
import { grouped, withUnit } from "../../text/units.ts";
import { type Block, bytes, percent, type Section, signed, type Table } from "../page/figure.ts";
import { overSteps, stackedBars } from "./plots.ts";
import { lastRow, type ReportedRun, seriesOf } from "./run_data.ts";

/** Time, operations and cache of a run's stages. */
export function costSection(run: ReportedRun): Section {
  const { rows, spans, config } = run;
  const { stages } = config;
  const parts = partsOf(config)
    .filter(({ values }) => values.some((value) => value > 0));
  const blocks: Block[] = [
    ...overSteps({
      id: "time",
      title: "Time a step",
      caption:
        "Milliseconds of a training step, without evaluations; stages differ because their " +
        "attention does.",
      half: true,
    }, {
      lines: [{ ...seriesOf(rows, "time/step_ms"), name: "step", color: "@0" }],
      ...{ spans, y: "ms", isLog: true },
    }),
    stackedBars({
      id: "flops",
      title: "Operations of the forward pass",
      caption: `FLOP a token of a sequence of ${config.seqLen}, by stage and part; computed from ` +
        "the configuration, not measured.",
      half: true,
      height: 340,
    }, { names: stages.map(({ name }) => name), parts, x: "FLOP a token" }),
    ...kernelTimes(run),
    costTable(run),
    ...(config.attention === "mla" ? [claimsTable(run)] : []),
  ];
  return { id: "costs", title: "Costs", blocks };
}

/** Parts of the forward pass with their FLOP a token in each stage. */
function partsOf(config: RunConfig): { name: string; values: number[] }[] {
  const byStage = config.stages.map((stage) => flopParts(forwardFlopsPerToken(config, stage)));
  return FLOP_PARTS.map((name) => ({ name, values: byStage.map((parts) => parts[name]) }));
}

/** GPU time of kernel groups, where a profiled step has logged it. */
function kernelTimes({ rows, spans }: ReportedRun): Block[] {
  const names = new Set<string>();
  for (const row of rows) {
    for (const key of Object.keys(row)) if (key.startsWith("time/gpu/")) names.add(key);
  }
  const profiled = spans.flatMap(({ stage, start, end }) => {
    const row = rows.findLast(({ step, ...row }) =>
      step > start && step <= end && [...names].some((name) => typeof row[name] === "number")
    );
    return row ? [{ stage, row }] : [];
  });
  if (!profiled.length) return [];
  return [stackedBars({
    id: "kernels",
    title: "GPU time by kernel group",
    caption: "Milliseconds on the GPU of one profiled training step of each stage.",
  }, {
    names: profiled.map(({ stage }) => stage.name),
    parts: [...names].map((name) => ({
      name: name.slice("time/gpu/".length, -"_ms".length),
      values: profiled.map(({ row }) => row[name] ?? 0),
    })),
    x: "ms a step",
  })];
}

function costTable({ rows, spans, config }: ReportedRun): Table {
  const { stages, seqLen } = config;
  const tokens = config.batchSize * seqLen * config.accumulate;
  const forward = stages.map((stage) => forwardFlopsPerToken(config, stage));
  const training = stages.map((stage) => trainingFlopsPerToken(config, stage) * tokens);
  const teacher = stages.map((stage) => teacherFlopsPerToken(config, stage));
  const caches = stages.map((stage) => cachePerToken(config, stage));
  const milliseconds = spans.map((span) => medianStepMs(rows, span));
  const partRows = partsOf(config)
    .map(({ name, values }) => [`forward FLOP a token: ${name}`, ...values.map(withUnit)]);
  const { total, indexer } = countParameters(config);
  return {
    kind: "table",
    caption: `${withUnit(total)} parameters${
      indexer ? `, ${withUnit(indexer)} of them the indexers'` : ""
    }. Cache in float32, all layers; "read" is for generating the token at position ${
      seqLen.toLocaleString("en-US")
    }. Time and FLOP/s are measured (median), the rest follows from the configuration.`,
    header: ["", ...stages.map(({ name }) => name)],
    rows: [
      ...partRows,
      ["forward FLOP a token", ...forward.map((f) => withUnit(f.total))],
      ["teacher FLOP a token, training", ...teacher.map(withUnit)],
      ["training FLOP a step", ...training.map(withUnit)],
      ["ms a step", ...milliseconds.map((ms) => ms === null ? "–" : ms.toPrecision(4))],
      [
        "FLOP/s",
        ...milliseconds.map((ms, i) => ms === null ? "–" : withUnit(training[i] / ms * 1000)),
      ],
      ["cache stored a token", ...caches.map((cache) => bytes(cache.bytes))],
      ["cache read a token", ...caches.map((cache) => bytes(cache.readBytes))],
    ],
  };
}

/** What is often promised beside what holds, with the numbers of a run of MLA. */
export function claimsTable({ rows, config, name }: ReportedRun): Table {
  const stage = mainStage(config);
  const last = (metric: string) => lastRow(rows, metric)?.[metric] ?? null;
  return {
    kind: "table",
    isText: true,
    caption: "Promises that are made for sparse attention over compressed latents, and what holds.",
    header: ["Claim", "What holds", `Run ${name}`],
    rows: claimRows(config, stage, {
      learned: last("swap/learned"),
      dense: last("swap/dense"),
      captured: last("index/captured_mass"),
    }),
  };
}

/** Claims beside the truth; measured values are null where a run has none. */
function claimRows(
  config: RunConfig,
  stage: Stage,
  { learned, dense, captured }: Record<"learned" | "dense" | "captured", number | null>,
): string[][] {
  const { seqLen, numAttentionHeads: heads } = config;
  const { qk, v } = headWidths(config);
  const cache = cachePerToken(config, stage);
  const whole = cachePerToken(config, { ...stage, attention: "dense", indexTopk: seqLen });
  const all = heads * (qk + v);
  const selects = selectsByIndex(config, stage);
  const flops = forwardFlopsPerToken(config, stage);
  const denseFlops = forwardFlopsPerToken(config, { ...stage, attention: "dense", kl: "none" });
  const attention = flops.core + flops.indexScores;
  const [pair, indexPair] = [2 * all, 2 * indexWidth(config)];
  const compression =
    `${whole.elementsPerLayer} elements a token and layer instead of ${all} for ` +
    `keys and values of all heads (${(all / whole.elementsPerLayer).toFixed(1)} times fewer)`;
  const rows = [[
    "The sparse latent cache saves memory twice",
    "Compression shrinks the stored cache. Selection does not: any later token may select any " +
    "latent, and the indexer's keys are stored besides. What shrinks is what is read.",
    `Stored: ${compression}` +
    (selects
      ? `; with the indexer ${grouped(cache.elementsPerLayer)} (${
        percent(cache.elementsPerLayer / whole.elementsPerLayer - 1)
      } more). Read at position ${seqLen}: ${
        percent(cache.readPerLayer / whole.readPerLayer)
      } of dense attention`
      : "; nothing is selected by an indexer"),
  ]];
  if (selects) {
    rows.push([
      "O(n²) becomes O(n·k)",
      "Only core attention does. The indexer scores every pair, so the total stays O(n²) with a " +
      "small constant.",
      `A pair of tokens costs ${indexPair} FLOP in the indexer, ${pair} in attention. Scores and ` +
      `attention at ${seqLen} tokens: ${percent(attention / denseFlops.core)} of dense ` +
      `attention, ${percent(flops.indexScores / attention)} of that in the indexer`,
    ]);
  }
  rows.push([
    "RoPE preserves positions through compression",
    "The latent is not rotated. Positions are carried by a separate key beside it, which is " +
    "cached too.",
    `${config.kvLoraRank} latent dimensions without, ${config.qkRopeHeadDim} key dimensions ` +
    "with rotation",
  ]);
  if (learned !== null && dense !== null && captured !== null) {
    rows.push([
      "Quality is kept",
      "As far as the indexer finds what attention needs; compare with a dense twin that was " +
      "trained as long (recipe=dsa_twin), since training goes on meanwhile.",
      `Same weights, ${stage.indexTopk} selected keys against all: ${signed(learned - dense)} ` +
      `nats; ${percent(captured)} of the attention captured`,
    ]);
  }
  return rows;
}
