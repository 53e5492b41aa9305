/**
 * Whether a selection has what an answer hangs on.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import type { Batch } from "../data/dataset.ts";
import { goldOf } from "../data/tasks/task.ts";
import type { Engine, Variant } from "../engine.ts";

/** Of each layer and answer, which of its gold positions are among the keys of its query. */
export type GoldHits = readonly (readonly (readonly boolean[])[])[];

/**
 * Looks for the gold positions of each answer among the keys that its query selects: where the tokens
 * stand that have to be found.
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
 * assert.deepEqual(goldHits(masks, { answers: [{ position: 3, distance: 3 }] }, 4), [[[true]]]);
 * assert.deepEqual(goldHits(masks, { answers: [{ position: 3, distance: 1 }] }, 4), [[[false]]]);
 * ```
 */
export function goldHits(
  masks: readonly Int32Array[],
  { answers = [] }: Pick<Batch, "answers">,
  seqLen: number,
): GoldHits {
  const words = Math.ceil(seqLen / 32);
  return masks.map((mask) =>
    answers.map((answer) => {
      const { position } = answer;
      const golds = goldOf({ ...answer, position: position % seqLen });
      return golds.map((s) => (mask[position * words + (s >> 5)] >> (s & 31) & 1) === 1);
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

/** Of each answer, which of its gold positions any layer has. */
export function inAnyLayer(hits: GoldHits): GoldHits[number] {
  return (hits[0] ?? []).map((golds, i) => golds.map((_, j) => hits.some((own) => own[i][j])));
}

/** Share of an answer's gold positions that are there. */
export function shareOf(golds: readonly boolean[]): number {
  return golds.filter(Boolean).length / golds.length;
}

/** The same in the mean over answers. */
export function meanShare(answers: GoldHits[number]): number {
  return answers.reduce((sum, golds) => sum + shareOf(golds), 0) / answers.length;
}
