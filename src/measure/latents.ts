/**
 * Information density of the cached latents: how many directions they use, and how much of a
 * layer's input they keep.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import type { Batch } from "../data/dataset.ts";
import type { Engine, Metrics, Variant } from "../engine.ts";
import { firstNotFinite, NotFinite } from "../model/finite.ts";
import { type StageView, viewOf } from "../model/stage_view.ts";
import { languageModel } from "../model/transformer.ts";
import type { Stage } from "../config/stage_fields.ts";
import { symmetricEigen } from "./symmetric_eigen.ts";

/** Eigenvalues below this share of the largest are rounding errors of float32 sums. */
const RANK_TOLERANCE = 1e-6;

/** What {@linkcode informationDensity} finds of one layer. */
export interface InformationDensity {
  /** Eigenvalues of the latents' covariance as shares of their sum, largest first. */
  readonly spectrum: Float64Array;
  /** Participation ratio (Σλ)² / Σλ²: d_c for isotropic latents, 1 if they lie on a line. */
  readonly effectiveRank: number;
  /**
   * exp(−Σ p ln p) with p = λ / Σλ (Roy and Vetterli, "The effective rank", EUSIPCO 2007): d_c for
   * isotropic latents, 1 if they lie on a line.
   */
  readonly spectralRank: number;
  /**
   * Share of the input's variance that the best linear map from the latent leaves, 1 − R²: 0 if the
   * latent keeps all of it, 1 if none.
   */
  readonly reconstructionError: number;
}

/**
 * Information density from the sums of `latentStatistics`.
 *
 * @param sums `[a + b + 1, a + b]`: a columns of inputs x, b of latents c
 * @throws {RangeError} if the number of sums fits no b
 */
export function informationDensity(
  sums: ArrayLike<number>,
  { tokens, inputs }: { tokens: number; inputs: number },
): InformationDensity {
  const width = Math.round((Math.sqrt(1 + 4 * sums.length) - 1) / 2);
  const latents = width - inputs;
  if (width * (width + 1) !== sums.length || latents < 1) {
    throw new RangeError(
      `Cannot read ${sums.length} sums: ${inputs} inputs and their latents make other numbers`,
    );
  }
  const mean = (i: number) => sums[width * width + i] / tokens;
  const covariance = (i: number, j: number) => sums[i * width + j] / tokens - mean(i) * mean(j);

  const own = Float64Array.from(
    { length: latents * latents },
    (_, i) => covariance(inputs + Math.floor(i / latents), inputs + i % latents),
  );
  const { values, vectors } = symmetricEigen(own, latents);
  const kept = values.filter((value) => value > RANK_TOLERANCE * values[0]);
  const total = kept.reduce((sum, value) => sum + value, 0);
  const squares = kept.reduce((sum, value) => sum + value * value, 0);
  const entropy = kept.reduce((sum, value) => sum - value / total * Math.log(value / total), 0);

  let variance = 0, explained = 0;
  const joint = new Float64Array(latents);
  for (let i = 0; i < inputs; i++) {
    variance += covariance(i, i);
    for (let j = 0; j < latents; j++) joint[j] = covariance(i, inputs + j);
    for (let k = 0; k < kept.length; k++) {
      let along = 0;
      for (let j = 0; j < latents; j++) along += joint[j] * vectors[k * latents + j];
      explained += along * along / kept[k];
    }
  }
  const unexplained = variance > 0 ? 1 - explained / variance : 0;
  return {
    spectrum: values.map((value) => total > 0 ? Math.max(value, 0) / total : 0),
    effectiveRank: squares > 0 ? total * total / squares : 0,
    spectralRank: squares > 0 ? Math.exp(entropy) : 0,
    reconstructionError: Math.min(Math.max(unexplained, 0), 1),
  };
}

/**
 * Measures the latents of all layers on a batch, under the stage's attention. By layer
 * `latent/3/effective_rank`, `latent/3/spectral_rank`, `latent/3/reconstruction_error` and `latent/3/variance/0` …: the share
 * of the variance in the 1, 2, 4, … strongest directions; and the means over layers,
 * `latent/effective_rank` ….
 *
 * @throws {NotFinite} if the latents are not finite
 */
export async function measureDensity(
  engine: Engine,
  { config, stage, batch }: { config: RunConfig; stage: Stage; batch: Batch },
): Promise<Metrics> {
  const sums = await latentSums(engine, { config, stage, batches: [batch] });
  const values: Metrics = {};
  const { numHiddenLayers: layers, hiddenSize: inputs } = config;
  for (let layer = 0; layer < layers; layer++) {
    const density = informationDensity(sums[layer], { tokens: batch.tokens.length, inputs });
    const own: Metrics = {
      effective_rank: density.effectiveRank,
      spectral_rank: density.spectralRank,
      reconstruction_error: density.reconstructionError,
    };
    for (const [name, value] of Object.entries(own)) {
      values[`latent/${layer}/${name}`] = value;
      values[`latent/${name}`] = (values[`latent/${name}`] ?? 0) + value / layers;
    }
    leadingShares(density.spectrum).forEach((share, bin) =>
      values[`latent/${layer}/variance/${bin}`] = share
    );
  }
  return values;
}

/**
 * What `latentStatistics` makes of the inputs and latents of each layer, added up over batches, under
 * the stage's attention.
 *
 * @returns `[hiddenSize + kvLoraRank + 1, hiddenSize + kvLoraRank]` a layer
 * @throws {NotFinite} if the latents are not finite
 */
export async function latentSums(
  engine: Engine,
  { config, stage, batches }: { config: RunConfig; stage: Stage; batches: readonly Batch[] },
): Promise<Float64Array[]> {
  const variant = densityVariant(config, stage);
  const width = config.hiddenSize + config.kvLoraRank;
  const layers = Array.from(
    { length: config.numHiddenLayers },
    () => new Float64Array(width * (width + 1)),
  );
  for (const batch of batches) {
    const maps = await engine.maps(batch, variant);
    layers.forEach((sums, layer) => {
      const own = maps.get(`latent_statistics.${layer}`)!;
      const at = firstNotFinite(own);
      if (at >= 0) throw new NotFinite(`a sum over the latents of layer ${layer}`, own[at]);
      own.forEach((value, i) => sums[i] += value);
    });
  }
  return layers;
}

/** Shares of the 1, 2, 4, … largest, up to all. */
function leadingShares(spectrum: Float64Array): number[] {
  const shares: number[] = [];
  for (let count = 1; count < 2 * spectrum.length; count *= 2) {
    shares.push(spectrum.subarray(0, count).reduce((a, b) => a + b, 0));
  }
  return shares;
}

/** The model of {@linkcode measureDensity}. */
export function densityVariant(config: RunConfig, stage: Stage): Variant {
  const view: StageView = { ...viewOf(stage, config), kl: "none", density: true };
  return { name: `density ${stage.name}`, loss: languageModel(config, { stage: view }) };
}
