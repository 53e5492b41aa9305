/**
 * Figures of {@linkcode SampleMaps}.
 *
 * @module
 */
import type { Block, Figure, Section, Trace } from "../page/figure.ts";
import type { LayerMaps, SampleMaps } from "./sample_maps.ts";

/** Attention below 10 to this power is shown as none. */
const FLOOR = -4;
/** Levels of a colour scale that a byte holds beside 0, which is nothing. */
const LEVELS = 254;

/** Attention, scores and selection of each layer; no blocks without maps. */
export function mapSection(maps: SampleMaps | null): Section {
  const blocks: Block[] = maps
    ? [
      {
        kind: "text",
        text: `One validation sequence, ${maps.seqLen} tokens, step ${maps.step} (stage ` +
          `${maps.stage.name}). Rows are queries, columns keys, the diagonal is the token itself.`,
      },
      ...maps.layers.map((layer) => layerFigure(layer, maps)),
      { kind: "verbatim", text: maps.text, summary: "The sequence" },
    ]
    : [];
  return { id: "maps", title: "Attention and selection of a sample", blocks };
}

function layerFigure(maps: LayerMaps, { seqLen, topk }: SampleMaps): Figure {
  const { layer, group, attention, scores, selected } = maps;
  const common = { type: "heatmap", showscale: false, hoverinfo: "x+y" };
  const panel = (z: Uint8Array, i: number, rest: Trace): Trace => ({
    ...common,
    z: { dtype: "u1", bdata: z.toBase64(), shape: `${seqLen}, ${seqLen}` },
    ...(i ? { xaxis: `x${i + 1}`, yaxis: `y${i + 1}` } : {}),
    ...rest,
  });
  const shades = { zmin: 0, zmax: LEVELS + 1, colorscale: "@sequential" };
  const verdicts = { zmin: 0, zmax: 3, colorscale: steps(["@surface", "@4", "@5", "@0"]) };
  const axis = {
    showgrid: false,
    zeroline: false,
    constrain: "domain",
    range: [-0.5, seqLen - 0.5],
  };
  const domains = [[0, 0.31], [0.345, 0.655], [0.69, 1]];
  const titles = ["dense attention", "index scores", "selection"];
  const axes = Object.fromEntries(domains.flatMap((domain, i) => {
    const n = i ? i + 1 : "";
    const y = { ...axis, range: [...axis.range].reverse(), scaleanchor: `x${n}`, anchor: `x${n}` };
    return [
      [`xaxis${n}`, { ...axis, domain, anchor: `y${n}`, title: { text: "key" } }],
      [`yaxis${n}`, i ? { ...y, showticklabels: false } : { ...y, title: { text: "query" } }],
    ];
  }));
  return {
    kind: "figure",
    id: `maps-${layer}` + (group === null ? "" : `-${group}`),
    title: `Layer ${layer}` + (group === null ? "" : `, group ${group} of its heads`),
    caption: "Left: attention over all keys, mean over heads, logarithmic. Middle: index scores, " +
      "ranked within each row. Right, in rows beyond k: blue keys are selected and among the " +
      `${topk} that matter most, red ones were missed, ochre ones taken in their place.`,
    data: [
      panel(logarithmic(attention), 0, shades),
      panel(ranked(scores, seqLen), 1, shades),
      panel(compared(selected, attention, { seqLen, topk }), 2, verdicts),
    ],
    layout: {
      ...axes,
      margin: { l: 50, r: 10, t: 26, b: 44 },
      annotations: domains.map(([from, to], i) => ({
        ...{ xref: "paper", yref: "paper", x: (from + to) / 2, y: 1, xanchor: "center" },
        ...{
          yanchor: "bottom",
          text: titles[i],
          showarrow: false,
          font: { size: 12, color: "@soft" },
        },
      })),
    },
    height: 370,
  };
}

/** A colour scale of equal steps. */
function steps(colors: readonly string[]): [number, string][] {
  return colors.flatMap((color, i): [number, string][] => [
    [i / colors.length, color],
    [(i + 1) / colors.length, color],
  ]);
}

function logarithmic(values: Float32Array): Uint8Array {
  return Uint8Array.from(values, (value) => {
    const share = 1 - Math.log10(Math.max(value, 1e-30)) / FLOOR;
    return share <= 0 ? 0 : 1 + Math.round(LEVELS * Math.min(share, 1));
  });
}

/** Ranks within the row, the largest score the strongest. */
function ranked(scores: Float32Array, seqLen: number): Uint8Array {
  const out = new Uint8Array(scores.length);
  for (let t = 0; t < seqLen; t++) {
    const row = scores.subarray(t * seqLen, t * seqLen + t + 1);
    keysByValue(row).forEach((key, rank) => {
      out[t * seqLen + key] = 1 + Math.round(LEVELS * (1 - rank / (t + 1)) ** 2);
    });
  }
  return out;
}

/** 0 neither, 1 missed, 2 needless, 3 found; in the first k rows, which take all, always 3. */
function compared(
  selected: Uint8Array,
  attention: Float32Array,
  { seqLen, topk }: { seqLen: number; topk: number },
): Uint8Array {
  const out = new Uint8Array(selected.length);
  for (let t = 0; t < seqLen; t++) {
    const best = new Set(
      keysByValue(attention.subarray(t * seqLen, t * seqLen + t + 1)).slice(0, topk),
    );
    for (let s = 0; s <= t; s++) {
      out[t * seqLen + s] = (best.has(s) ? 1 : 0) + (selected[t * seqLen + s] ? 2 : 0);
    }
  }
  return out;
}

/** Positions from the largest value to the least. */
function keysByValue(row: Float32Array): number[] {
  return Array.from(row, (_, key) => key).sort((a, b) => row[b] - row[a] || a - b);
}
