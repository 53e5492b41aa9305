/**
 * Distortion: what attention's output loses where latents are projected, or kept in few bits.
 *
 * @module
 */
import type { RunConfig } from "../../config/config.ts";
import type { Stage } from "../../config/stage_fields.ts";
import type { Batch } from "../../data/dataset.ts";
import type { Engine, Variant } from "../../engine.ts";
import { requireFinite } from "../../model/finite.ts";
import { type StageView, viewOf } from "../../model/stage_view.ts";
import { languageModel } from "../../model/transformer.ts";
import { type ProjectionOptions, withProjection } from "./functional_rank.ts";
import type { Projection } from "./projection.ts";

/** The bits that latents are tried in, fewest last. */
export const TRIED_BITS = ["8", "fp8", "4", "2"] as const satisfies readonly NonNullable<
  RunConfig["latentBits"]
>[];

/** What is measured on. */
export interface DistortionOptions {
  readonly config: RunConfig;
  readonly stage: Stage;
  readonly batch: Batch;
}

/**
 * Σ |o − ô|² / Σ |o|²: 0 where ô is o, 1 where it is nothing.
 *
 * @throws {RangeError} if they are not as long as each other
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { distortion } from "./distortion.ts";
 *
 * assert.equal(distortion([3, 4], [3, 0]), 16 / 25);
 * ```
 */
export function distortion(o: ArrayLike<number>, changed: ArrayLike<number>): number {
  if (o.length !== changed.length) {
    throw new RangeError(`Cannot compare ${o.length} numbers with ${changed.length}`);
  }
  let lost = 0, all = 0;
  for (let i = 0; i < o.length; i++) {
    lost += (o[i] - changed[i]) ** 2;
    all += o[i] ** 2;
  }
  return lost === 0 ? 0 : lost / all;
}

/** Attention's output by layer, before `o_proj`: `[N, heads · vHeadDim]` each. */
export type Outputs = readonly ArrayLike<number>[];

/** Attention's outputs of all layers, as the model is. */
export async function attentionOutputs(
  engine: Engine,
  { config, stage, batch }: DistortionOptions,
): Promise<Outputs> {
  return await outputsOf(engine, batch, outputVariant(config, stage), config);
}

/**
 * Distortion of a layer's attention where its latents c become P_j c: attention's output against the
 * same of the same inputs, E|o − ô|² / E|o|². What is selected by latents is selected by P_j c.
 *
 * @param outputs of {@linkcode attentionOutputs}
 * @throws {NotFinite} if an output is NaN or infinite
 */
export async function projectionDistortion(
  engine: Engine,
  { stage, batch, outputs, ...rest }: DistortionOptions & ProjectionOptions & Projection & {
    readonly outputs: Outputs;
  },
): Promise<number> {
  const { config, layer } = rest;
  const found = await withProjection(
    engine,
    rest,
    () => outputsOf(engine, batch, outputVariant(config, stage), config),
  );
  return checked(distortion(outputs[layer], found[layer]), layer);
}

/**
 * The same where the layer keeps its latents in so many bits, in the way of `latentBits` and
 * `hadamard`, against the model as it is.
 *
 * @throws {NotFinite} if an output is NaN or infinite
 */
export async function quantisationDistortion(
  engine: Engine,
  { config, stage, batch, outputs, ...inBits }: DistortionOptions & {
    readonly outputs: Outputs;
    readonly layer: number;
    readonly bits: NonNullable<RunConfig["latentBits"]>;
  },
): Promise<number> {
  const { layer } = inBits;
  const found = await outputsOf(engine, batch, outputVariant(config, stage, inBits), config);
  return checked(distortion(outputs[layer], found[layer]), layer);
}

function outputVariant(
  config: RunConfig,
  stage: Stage,
  latentBits?: StageView["latentBits"],
): Variant {
  const view: StageView = { ...viewOf(stage, config), kl: "none", keeps: ["o"], latentBits };
  const changed = latentBits ? ` with ${latentBits.bits} bits in layer ${latentBits.layer}` : "";
  return {
    name: `outputs ${stage.name}${changed}`,
    loss: languageModel(config, { stage: view }),
  };
}

async function outputsOf(
  engine: Engine,
  batch: Batch,
  variant: Variant,
  { numHiddenLayers }: RunConfig,
): Promise<Outputs> {
  const maps = await engine.maps(batch, variant);
  return Array.from({ length: numHiddenLayers }, (_, layer) => maps.get(`o.${layer}`)!);
}

function checked(value: number, layer: number): number {
  requireFinite({ [`the distortion of layer ${layer}`]: value });
  return value;
}
