/**
 * How well the indexer stands in for dense attention.
 *
 * @module
 */
import { distanceBins, firstMeasured } from "../../ops/indexer/metrics.ts";
import { stageAt } from "../../config/stages.ts";
import { type Block, type Figure, type Section, signed } from "../page/figure.ts";
import { bars, heatMapFigure, overSteps, type PlotLine, SHARES } from "./plots.ts";
import { lastRow, layersWith, type ReportedRun, seriesOf } from "./run_data.ts";

/** More layers than this are lines and not bars. */
const MOST_GROUPED = 4;

/** Measurements of the indexer; no blocks for a run without one. */
export function indexerSection(run: ReportedRun): Section {
  const { rows, spans } = run;
  const line = (
    metric: string,
    name: string,
    color: string,
    dash?: PlotLine["dash"],
  ): PlotLine => ({
    ...seriesOf(rows, metric),
    ...{ name, color, dash, marks: !metric.startsWith("train/") },
  });
  const shares = (
    labels: Pick<Figure, "id" | "title" | "caption">,
    lines: readonly PlotLine[],
    y = "share",
  ) => overSteps({ ...labels, half: true }, { lines, spans, y, range: SHARES });
  const blocks: Block[] = [
    ...shares({
      id: "mass",
      title: "Captured attention mass",
      caption: "Share of dense attention's weight that falls on the selected keys, mean over " +
        "layers; the oracle picks the best keys there are, random is the floor.",
    }, [
      line("index/oracle_mass", "oracle", "@2", "dash"),
      line("index/captured_mass", "selected", "@0"),
      line("index/random_mass", "random", "@5", "dot"),
    ]),
    ...overSteps({
      id: "kl",
      title: "KL divergence",
      caption: "From dense attention to the indexer's softmax, in nats: over the keys of the " +
        "stage's loss (training) and over all keys (measured); 0 is a perfect copy.",
      half: true,
    }, {
      lines: [
        line("train/kl", "training", "@0"),
        line("index/dense_kl", "all keys, validation", "@1"),
      ],
      ...{ spans, y: "nats" },
    }),
    ...byLayer(run, {
      metric: "captured_mass",
      labels: {
        id: "mass-layers",
        title: "Captured mass by layer",
        caption: "Each column is a measurement, each row a layer; even columns late in training " +
          "mean that the indexer has settled.",
      },
      range: [0, 1],
    }),
    ...byLayer(run, {
      metric: "dense_kl",
      labels: {
        id: "kl-layers",
        title: "KL by layer",
        caption: "Over all keys, in nats; a row that stays strong is a layer whose attention the " +
          "indexer cannot express.",
      },
    }),
    ...shares({
      id: "agreement",
      title: "Agreement with the oracle",
      caption: "Overlap: share of the oracle's keys that are selected. Recall: captured mass " +
        "relative to the oracle's. Gold recall, of tasks: answers whose gold position is " +
        "selected. Neighbours: keys shared with the layer below.",
    }, [
      line("index/score_recall", "score recall", "@0"),
      line("index/set_overlap", "set overlap", "@1"),
      line("index/gold_recall_any", "gold recall, any layer", "@3"),
      line("index/gold_recall", "gold recall, mean", "@4"),
      line("index/neighbour_overlap", "neighbours", "@2"),
    ]),
    ...shares({
      id: "entropy",
      title: "Entropy",
      caption: "As a fraction of the largest possible: 1 is uniform, 0 a single key; the indexer " +
        "far below its teacher is a collapse.",
    }, [
      line("index/target_entropy", "dense attention", "@2", "dash"),
      line("index/index_entropy", "indexer", "@0"),
    ], "fraction"),
    ...shares({
      id: "shares",
      title: "What is selected",
      caption:
        "Dead scores: share of index scores that are exactly 0, where no head fires. Sink: " +
        "rows that keep the first token. Local: share of keys less than 16 back. Tied: share of " +
        "rows where keys of one score are in and out.",
    }, [
      line("index/dead_scores", "dead scores", "@4"),
      line("index/sink_share", "sink", "@3"),
      line("index/local_share", "local", "@0"),
      line("index/tied_rows", "tied rows", "@1"),
    ]),
    ...swapTest(run),
    ...distances(run),
  ];
  return { id: "indexer", title: "Indexer", blocks };
}

function byLayer(
  { rows, config }: ReportedRun,
  { metric, labels, range }: {
    metric: string;
    labels: Pick<Figure, "id" | "title" | "caption">;
    range?: readonly [number, number];
  },
): Figure[] {
  const layers = layersWith(rows, "index", metric);
  const measured = rows.filter((row) => layers.some((l) => row[`index/${l}/${metric}`] != null));
  if (!measured.length) return [];
  const stages = new Set(measured.map(({ step }) => stageAt(config.stages, step).name));
  const digits = measured.length > 14 ? 2 : 3;
  const text = (value: number | null | undefined) =>
    value == null ? "" : range ? value.toFixed(digits) : value.toPrecision(2);
  return [heatMapFigure(labels, {
    columns: measured.map(({ step }) => `${step}`),
    rows: layers.map(String),
    values: layers.map((l) => measured.map((row) => row[`index/${l}/${metric}`] ?? null)),
    // With more of them the numbers would not fit into the cells.
    texts: measured.length > 24 || config.numHiddenLayers > 16
      ? undefined
      : layers.map((l) => measured.map((row) => text(row[`index/${l}/${metric}`]))),
    name: metric === "dense_kl" ? "KL" : "mass",
    xTitle: `step (${[...stages].join(", ")})`,
    yTitle: "layer",
    range,
  })];
}

function swapTest({ rows }: ReportedRun): Figure[] {
  const row = lastRow(rows, "swap/dense");
  if (!row) return [];
  const isKnown = ([, value]: [string, number | null]) => value !== null;
  const names = Object.entries(row).filter(isKnown).map(([key]) => key)
    .filter((key) => key.startsWith("swap/") && key !== "swap/dense");
  const values = names.map((name) => row[name]! - row["swap/dense"]!);
  return [bars({
    id: "swap",
    title: `Swap test, step ${row.step}`,
    caption:
      "Validation loss of the same weights under other selectors, as a difference to dense " +
      `attention (${row["swap/dense"]!.toFixed(4)} nats); the indexer should be near 0.`,
    half: true,
    height: 340,
  }, {
    names: names.map((name) => name.slice("swap/".length)),
    values,
    texts: values.map((value) => signed(value)),
    x: "nats a token, to dense",
  })];
}

function distances({ rows, config }: ReportedRun): Figure[] {
  const row = lastRow(rows, "index/0/distance/0");
  if (!row) return [];
  const layers = Array.from({ length: config.numHiddenLayers }, (_, layer) => layer)
    .filter((layer) => `index/${layer}/distance/0` in row);
  const bins = Array.from({ length: distanceBins(config.seqLen) }, (_, bin) => bin);
  const names = bins.map((bin) =>
    bin < 2 ? `${bin}` : `${2 ** (bin - 1)}–${Math.min(2 ** bin, config.seqLen) - 1}`
  );
  const isGrouped = layers.length <= MOST_GROUPED;
  const topk = Math.min(stageAt(config.stages, row.step).indexTopk, config.seqLen);
  const data = layers.map((layer, i) => {
    const color = `@r${layers.length > 1 ? i / (layers.length - 1) : 0.5}`;
    return {
      type: isGrouped ? "bar" : "scatter",
      mode: "lines+markers",
      name: `layer ${layer}`,
      x: names,
      y: bins.map((bin) => row[`index/${layer}/distance/${bin}`] ?? null),
      marker: { color },
      line: { color, width: 2 },
    };
  });
  const random = {
    type: "scatter",
    mode: "lines+markers",
    name: "random choice",
    x: names,
    y: randomDistances(config.seqLen, topk),
    line: { color: "@1", width: 2, dash: "dot" },
    marker: { color: "@1", size: 5 },
  };
  return [{
    kind: "figure",
    id: "distance",
    title: `Distance of the selected keys, step ${row.step}`,
    caption: "Share of the selected keys by how far back they stand, by layer; above the dotted " +
      "line a distance is preferred to chance.",
    data: [...data, random],
    layout: {
      hovermode: "x unified",
      bargap: 0.3,
      xaxis: { type: "category", title: { text: "tokens back" } },
      yaxis: { title: { text: "share of keys" }, rangemode: "tozero" },
    },
  }];
}

/** Shares of distances if each of the measured queries picked its keys blindly. */
function randomDistances(seqLen: number, topk: number): number[] {
  const shares = new Array<number>(distanceBins(seqLen)).fill(0);
  const first = firstMeasured(seqLen, topk);
  for (let t = first; t < seqLen; t++) {
    for (let bin = 0; bin < shares.length; bin++) {
      const from = bin === 0 ? 0 : 2 ** (bin - 1);
      const count = Math.min(bin === 0 ? 1 : 2 ** bin, t + 1) - from;
      if (count > 0) shares[bin] += count / (t + 1) / (seqLen - first);
    }
  }
  return shares;
}
