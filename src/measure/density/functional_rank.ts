/**
 * Functional rank: how many directions of its latents a layer needs to predict as well.
 *
 * @module
 */
import type { RunConfig } from "../../config/config.ts";
import type { Batch } from "../../data/dataset.ts";
import type { Engine } from "../../engine.ts";
import { requireFinite } from "../../model/finite.ts";
import { projectedParameters, type Projection } from "./projection.ts";

/** What a layer may lose of the loss, in nats a scored token. */
export const MOST_LOST = 0.01;

/**
 * The least rank that loses less than {@linkcode MOST_LOST}, by bisection between 0 and all `dims`.
 *
 * What it finds is enough and one less is not, of which both are tried (all lose nothing). Where the
 * loss rises and falls again on its way to all, an even smaller rank may be enough, too.
 *
 * @param lost nats that a rank loses against all; not asked for all
 * @param dims all
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { leastRank } from "./functional_rank.ts";
 *
 * assert.equal(await leastRank((rank) => Promise.resolve(rank < 3 ? 1 : 0), 16), 3);
 * ```
 */
export async function leastRank(
  lost: (rank: number) => Promise<number>,
  dims: number,
): Promise<number> {
  let tooFew = -1, enough = dims;
  while (enough - tooFew > 1) {
    const rank = Math.floor((tooFew + enough) / 2);
    if (await lost(rank) < MOST_LOST) enough = rank;
    else tooFew = rank;
  }
  return enough;
}

/** What {@linkcode functionalRank} measures with. */
export interface ProjectionOptions {
  readonly config: RunConfig;
  /** The model's parameters, which the engine has, and has again in the end. */
  readonly parameters: ReadonlyMap<string, Float32Array>;
}

/**
 * The least j for which the model, with P_j c in place of the latents c of one layer, loses less than
 * 0.01 nats a scored token; see {@linkcode leastRank}. From 0, for a layer that is not needed, to
 * `kvLoraRank`.
 *
 * @param engine trains nothing; its own loss is what counts
 * @param options `loss`: nats a scored token of the model as it is, on the same batches
 * @throws {NotFinite} if a loss is NaN or infinite
 */
export async function functionalRank(
  engine: Engine,
  { layer, directions, loss, batches, ...model }: ProjectionOptions & Omit<Projection, "rank"> & {
    readonly loss: number;
    readonly batches: readonly Batch[];
  },
): Promise<number> {
  const lost = (rank: number) =>
    withProjection(engine, { ...model, layer, directions, rank }, async () => {
      const found = await meanLoss(engine, batches);
      requireFinite({ [`the loss with ${rank} directions in layer ${layer}`]: found });
      return found - loss;
    });
  return await leastRank(lost, model.config.kvLoraRank);
}

/** Nats a scored token of the engine's own model. */
export async function meanLoss(engine: Engine, batches: readonly Batch[]): Promise<number> {
  let nats = 0, scored = 0;
  for (const batch of batches) {
    nats += (await engine.evaluate(batch)).loss * batch.count;
    scored += batch.count;
  }
  return nats / scored;
}

/** Runs `body` while a layer of the engine's model reads projected latents. */
export async function withProjection<T>(
  engine: Engine,
  { config, parameters, ...projection }: ProjectionOptions & Projection,
  body: () => Promise<T>,
): Promise<T> {
  // An engine that trains nothing has no moments.
  const write = (parameters: ReadonlyMap<string, Float32Array>) =>
    engine.importState({ parameters: new Map(parameters), m: new Map(), v: new Map() });
  write(projectedParameters(config, parameters, projection));
  try {
    return await body();
  } finally {
    write(parameters);
  }
}
