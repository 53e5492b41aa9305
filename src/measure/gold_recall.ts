/**
 * Whether a selection has what an answer hangs on.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import type { Batch } from "../data/dataset.ts";
import type { Engine, Variant } from "../engine.ts";

/** Of each layer, whether the keys of each answer's query have its gold position. */
export type GoldHits = readonly (readonly boolean[])[];

/**
 * Looks for the gold position of each answer among the keys that its query selects: where the token
 * stands that has to be found, `distance` positions before the query.
 *
 * @param masks of each layer, i32 [batch · seqLen, ⌈seqLen / 32⌉]: bit s % 32 of word s / 32 is set
 * where key s is selected
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { goldHits } from "./gold_recall.ts";
 *
 * // The query at position 3 selects the keys 0 and 3, and has to find that at 0.
 * const masks = [Int32Array.of(1, 1, 1, 0b1001)];
 * assert.deepEqual(goldHits(masks, { answers: [{ position: 3, distance: 3 }] }, 4), [[true]]);
 * assert.deepEqual(goldHits(masks, { answers: [{ position: 3, distance: 1 }] }, 4), [[false]]);
 * ```
 */
export function goldHits(
  masks: readonly Int32Array[],
  { answers = [] }: Pick<Batch, "answers">,
  seqLen: number,
): GoldHits {
  const words = Math.ceil(seqLen / 32);
  return masks.map((mask) =>
    answers.map(({ position, distance }) => {
      const gold = position % seqLen - distance;
      return (mask[position * words + (gold >> 5)] >> (gold & 31) & 1) === 1;
    })
  );
}

/** {@linkcode goldHits} of a model that keeps its selections (`StageView.selections`). */
export async function hitsOf(
  engine: Engine,
  { config, batch, variant }: { config: RunConfig; batch: Batch; variant: Variant },
): Promise<GoldHits> {
  const maps = await engine.maps(batch, variant);
  const masks = Array.from(
    { length: config.numHiddenLayers },
    (_, layer) => maps.get(`selected.${layer}`) as Int32Array,
  );
  return goldHits(masks, batch, config.seqLen);
}

/** Of each answer, whether any layer has its gold position. */
export function inAnyLayer(hits: GoldHits): boolean[] {
  return (hits[0] ?? []).map((_, i) => hits.some((layer) => layer[i]));
}

/** Share of those that are true. */
export function shareOf(flags: readonly boolean[]): number {
  return flags.filter(Boolean).length / flags.length;
}
