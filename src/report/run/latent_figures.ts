/**
 * How much information the latents hold.
 *
 * @module
 */
import { densityTable, describeDensity } from "../../eval/density_table.ts";
import type { SavedDensity } from "../../eval/density_file.ts";
import type { Block, Figure, Section } from "../page/figure.ts";
import { overSteps, type PlotLine } from "./plots.ts";
import { lastRow, layersWith, type ReportedRun, seriesOf } from "./run_data.ts";

/** Effective rank, reconstruction error and spectrum by layer; no blocks for a run without. */
export function latentSection(run: ReportedRun): Section {
  const { rows, spans, config } = run;
  const layers = layersWith(rows, "latent", "effective_rank");
  const lines = (metric: string) =>
    layers.map((layer): PlotLine => ({
      ...seriesOf(rows, `latent/${layer}/${metric}`),
      ...{ name: `layer ${layer}`, marks: true, color: shade(layer, layers) },
    }));
  const blocks: Block[] = [
    ...overSteps({
      id: "rank",
      title: "Effective rank of the latents",
      caption: `Participation ratio of the covariance's eigenvalues: ${config.kvLoraRank} if all ` +
        "dimensions are used alike, 1 if the latents lie on a line.",
      half: true,
    }, { lines: lines("effective_rank"), spans, y: "directions" }),
    ...overSteps({
      id: "reconstruction",
      title: "Reconstruction error",
      caption: "Share of the variance of a layer's input that no linear map from the latent can " +
        "restore; 0: nothing is lost.",
      half: true,
    }, { lines: lines("reconstruction_error"), spans, y: "share" }),
    ...spectrum(run, layers),
    ...run.density ? densityBlocks(run.density) : [],
  ];
  return { id: "latents", title: "Information in the latents", blocks };
}

function spectrum({ rows, config }: ReportedRun, layers: readonly number[]): Figure[] {
  const row = lastRow(rows, `latent/${layers[0]}/variance/0`);
  if (!row) return [];
  const data = layers.map((layer) => {
    const y: number[] = [];
    for (let bin = 0; typeof row[`latent/${layer}/variance/${bin}`] === "number"; bin++) {
      y.push(row[`latent/${layer}/variance/${bin}`]!);
    }
    const color = shade(layer, layers);
    return {
      ...{ type: "scatter", mode: "lines+markers", name: `layer ${layer}` },
      x: y.map((_, bin) => `${Math.min(2 ** bin, config.kvLoraRank)}`),
      y,
      line: { color, width: 2 },
      marker: { color, size: 6 },
    };
  });
  return [{
    kind: "figure",
    id: "spectrum",
    title: `Spectrum of the latents, step ${row.step}`,
    caption: "Share of the variance in the strongest directions; a curve that is near 1 early " +
      "means that fewer dimensions would do.",
    data,
    layout: {
      hovermode: "x unified",
      xaxis: { type: "category", title: { text: "strongest directions" } },
      yaxis: { title: { text: "share of variance" }, range: [0, 1.02] },
    },
  }];
}

/** What `deno task eval --density` has measured. */
function densityBlocks(density: SavedDensity): Block[] {
  const [header, ...rows] = densityTable(density);
  const { step, data, layers } = density;
  const numbers = layers.map((_, layer) => layer);
  const line = (layer: number, what: "bits" | "control") => {
    const { probes } = layers[layer];
    const color = shade(layer, numbers);
    return {
      ...{ type: "scatter", mode: "lines+markers", name: `layer ${layer}` },
      ...{ legendgroup: `${layer}`, showlegend: what === "bits" },
      x: probes.map(({ distance }) => distance === 0 ? "t" : `t − ${distance}`),
      y: probes.map((probe) => probe[what]),
      line: { color, width: 2, dash: what === "bits" ? "solid" : "dot" },
      marker: { color, size: 6 },
    };
  };
  return [
    {
      kind: "figure",
      id: "probes",
      title: "What latents tell of the tokens before",
      caption:
        "Bits that a linear probe reads off the latent of token t, on rows that it was not " +
        "trained on; dotted: for shuffled labels, which nothing can tell.",
      data: [
        ...numbers.map((layer) => line(layer, "bits")),
        ...numbers.map((layer) => line(layer, "control")),
      ],
      layout: {
        xaxis: { type: "category", title: { text: "token" } },
        yaxis: { title: { text: "bits" } },
      },
    },
    {
      kind: "table",
      caption: `Density of the latents, step ${step}, on ${data}; ${describeDensity(density)}.`,
      ...{ header, rows },
    },
  ];
}

/** Early layers light, late ones dark. */
function shade(layer: number, layers: readonly number[]): string {
  return `@r${layers.length > 1 ? layers.indexOf(layer) / (layers.length - 1) : 0.5}`;
}
