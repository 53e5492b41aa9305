/**
 * How much the latents of a model hold, and what it takes: all measurements of density together.
 *
 * @module
 */
import type { RunConfig } from "../../config/config.ts";
import type { Stage } from "../../config/stage_fields.ts";
import type { Batch } from "../../data/dataset.ts";
import type { Engine } from "../../engine.ts";
import { requireFinite } from "../../model/finite.ts";
import type { Device } from "../../open_device.ts";
import { informationDensity, latentSums } from "../latents.ts";
import {
  attentionOutputs,
  projectionDistortion,
  quantisationDistortion,
  TRIED_BITS,
} from "./distortion.ts";
import { functionalRank, meanLoss } from "./functional_rank.ts";
import { type HeadShares, measureHeadTax } from "./head_tax.ts";
import type { ProbedBits } from "./probe.ts";
import { probeTokens } from "./probed_tokens.ts";
import { isProjectable, latentDirections } from "./projection.ts";

/** Parts of all directions that latents are projected onto, for their distortion. */
const TRIED_PARTS = [1 / 2, 1 / 4, 1 / 8];

/** What is found of one layer. */
export interface LayerDensity {
  /** As in `informationDensity`. */
  readonly spectralRank: number;
  /** As in `informationDensity`: the participation ratio. */
  readonly effectiveRank: number;
  /** As in `informationDensity`. */
  readonly reconstructionError: number;
  /** Directions that are enough for the loss but for 0.01 nats; null with `latentRope=onLatent`. */
  readonly functionalRank: number | null;
  /** E|o − ô|² / E|o|² of attention's output from so many directions; none with `onLatent`. */
  readonly projected: readonly { readonly rank: number; readonly distortion: number }[];
  /** The same of latents in so many bits. */
  readonly quantised: readonly { readonly bits: string; readonly distortion: number }[];
  /** What the latent of a token tells of the one so many places before it. */
  readonly probes: readonly (ProbedBits & { readonly distance: number })[];
  /** What k keys hold of attention; the head tax is `own − shared`. */
  readonly heads: HeadShares;
}

/** What is found of a model, and what it was found on. */
export interface DensityReport {
  /** Numbers of a latent. */
  readonly kvLoraRank: number;
  /** Keys of a selection, for the head tax. */
  readonly topk: number;
  /** Tokens of a sequence that the head tax looks at, the first. */
  readonly tokens: number;
  /** Latents that were probed, tokens told apart, and the share of all others. */
  readonly probed: { readonly rows: number; readonly classes: number; readonly other: number };
  /** From the first to the last. */
  readonly layers: readonly LayerDensity[];
}

/**
 * Measures the latents of all layers under the stage's attention: ranks, distortion, probed bits and
 * head tax. Losses are over all batches, sums and probes over the full ones, attention's outputs and
 * heads of the first.
 *
 * @param engine the model as it is; it trains nothing
 * @param options `batches`: validation batches, `full`: those without rows that fill up
 * @throws {NotFinite} if something is NaN or infinite
 */
export async function latentDensity(
  engine: Engine,
  { config, stage, parameters, batches, full, device, note = () => {} }: {
    config: RunConfig;
    stage: Stage;
    parameters: ReadonlyMap<string, Float32Array>;
    batches: readonly Batch[];
    full: readonly Batch[];
    device: Pick<Device, "open">;
    note?: (line: string) => void;
  },
): Promise<DensityReport> {
  const { kvLoraRank, hiddenSize: inputs, numHiddenLayers } = config;
  const measured = { config, stage, batch: full[0] };
  const loss = await meanLoss(engine, batches);
  requireFinite({ loss });
  const sums = await latentSums(engine, { config, stage, batches: full });
  const tokens = full.reduce((sum, batch) => sum + batch.tokens.length, 0);
  const outputs = await attentionOutputs(engine, measured);
  const heads = await measureHeadTax(engine, measured);
  const probed = await probeTokens(engine, { config, stage, batches: full, device, note });
  const ranks = [...new Set(TRIED_PARTS.map((part) => Math.floor(part * kvLoraRank)))]
    .filter((rank) => rank > 0);
  const layers: LayerDensity[] = [];
  for (let layer = 0; layer < numHiddenLayers; layer++) {
    note(`directions and bits of layer ${layer}`);
    const directions = latentDirections(sums[layer], kvLoraRank);
    const model = { config, parameters, layer, directions };
    const projected: { rank: number; distortion: number }[] = [];
    for (const rank of isProjectable(config) ? ranks : []) {
      const distortion = await projectionDistortion(engine, {
        ...{ ...measured, ...model, outputs, rank },
      });
      projected.push({ rank, distortion });
    }
    const quantised: { bits: string; distortion: number }[] = [];
    for (const bits of TRIED_BITS) {
      const distortion = await quantisationDistortion(engine, {
        ...measured,
        outputs,
        layer,
        bits,
      });
      quantised.push({ bits, distortion });
    }
    const { spectralRank, effectiveRank, reconstructionError } = informationDensity(sums[layer], {
      tokens,
      inputs,
    });
    layers.push({
      ...{ spectralRank, effectiveRank, reconstructionError },
      functionalRank: isProjectable(config)
        ? await functionalRank(engine, { ...model, loss, batches })
        : null,
      ...{ projected, quantised },
      probes: probed.layers[layer],
      heads: heads.layers[layer],
    });
  }
  const { rows, classes, other } = probed;
  const { topk } = heads;
  return { kvLoraRank, topk, tokens: heads.tokens, probed: { rows, classes, other }, layers };
}
