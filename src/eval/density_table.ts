/**
 * The density of a model's latents in a table, for terminals and reports.
 *
 * @module
 */
import type { DensityReport, LayerDensity } from "../measure/density/density.ts";

/** A row a measurement, a column a layer, with a header. */
export function densityTable(density: DensityReport): string[][] {
  const { kvLoraRank, topk, layers } = density;
  const row = (name: string, cell: (layer: LayerDensity) => string) => [name, ...layers.map(cell)];
  const [first] = layers;
  return [
    row("latents", (layer) => `layer ${layers.indexOf(layer)}`),
    row(`functional rank, of ${kvLoraRank}`, ({ functionalRank }) => `${functionalRank ?? "–"}`),
    row("spectral rank", ({ spectralRank }) => spectralRank.toFixed(2)),
    row("effective rank", ({ effectiveRank }) => effectiveRank.toFixed(2)),
    row("reconstruction error", (layer) => layer.reconstructionError.toFixed(4)),
    ...first.projected.map(({ rank }, i) =>
      row(`distortion, ${rank} directions`, ({ projected }) => share(projected[i].distortion))
    ),
    ...first.quantised.map(({ bits }, i) =>
      row(
        `distortion, ${bits}${bits === "fp8" ? "" : " bits"}`,
        ({ quantised }) => share(quantised[i].distortion),
      )
    ),
    ...first.probes.flatMap(({ distance }, i) => [
      row(`bits of token ${distance ? `t − ${distance}` : "t"}`, ({ probes }) => {
        const { bits, entropy } = probes[i];
        return `${bits.toFixed(3)} of ${entropy.toFixed(3)}`;
      }),
      row("shuffled labels", ({ probes }) => probes[i].control.toFixed(3)),
    ]),
    row(`each head's own ${topk} keys`, ({ heads }) => heads.own.toFixed(4)),
    row(`${topk} keys for all heads`, ({ heads }) => heads.shared.toFixed(4)),
    row("head tax", ({ heads }) => (heads.own - heads.shared).toFixed(4)),
  ];
}

/** What the table is of. */
export function describeDensity({ tokens, probed }: DensityReport): string {
  const { rows, classes, other } = probed;
  const rest = other > 0 ? `, one of them for the rarest (${(100 * other).toFixed(1)} %)` : "";
  return "functional rank: directions that cost less than 0.01 nats; distortion: lost share of the " +
    `squares of attention's output; bits: of a linear probe on held-out rows, ${rows} in all, ` +
    `${classes} tokens told apart${rest}; heads: dense attention within ${tokens} tokens`;
}

function share(value: number): string {
  return value === 0 || value >= 0.001 ? value.toFixed(4) : value.toExponential(1);
}
