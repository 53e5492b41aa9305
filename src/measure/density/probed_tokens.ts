/**
 * What latents tell of the tokens before them.
 *
 * @module
 */
import type { RunConfig } from "../../config/config.ts";
import type { Stage } from "../../config/stage_fields.ts";
import type { Batch } from "../../data/dataset.ts";
import type { Engine } from "../../engine.ts";
import { firstNotFinite, NotFinite } from "../../model/finite.ts";
import { type StageView, viewOf } from "../../model/stage_view.ts";
import { languageModel } from "../../model/transformer.ts";
import type { Device } from "../../open_device.ts";
import { Probe, type ProbedBits } from "./probe.ts";

/** How far back the tokens stand that are probed for. */
const DISTANCES = [0, 1, 2, 4];
/** Rows that a probe gets, and labels that it tells apart. */
const MOST_ROWS = 8192, MOST_CLASSES = 512;

/** Probed bits by layer, and what of. */
export interface ProbedTokens {
  /** Tokens whose latents were probed, all parts together. */
  readonly rows: number;
  /** Tokens that are told apart. */
  readonly classes: number;
  /** Share of the rows whose token is none of them, and counts as one more; 0: all are told apart. */
  readonly other: number;
  /** By layer; distances with too few tokens are left out. */
  readonly layers: readonly (readonly (ProbedBits & { readonly distance: number })[])[];
}

/** Tokens as labels; see {@linkcode classesOf}. */
export interface TokenClasses {
  /** One a token. */
  readonly labels: Int32Array;
  /** How many there are, with the one for all others. */
  readonly classes: number;
  /** Share of the tokens that have that one. */
  readonly other: number;
}

/**
 * The tokens that occur as labels 0, 1 …, the most frequent first; if there are more than `most`, the
 * last one stands for all others.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { classesOf } from "./probed_tokens.ts";
 *
 * const tokens = Int32Array.of(7, 9, 9, 5);
 * assert.deepEqual([...classesOf(tokens, 3).labels], [2, 0, 0, 1]);
 * assert.deepEqual([...classesOf(tokens, 2).labels], [1, 0, 0, 1]);
 * assert.equal(classesOf(tokens, 2).other, 0.5);
 * ```
 */
export function classesOf(tokens: Int32Array, most: number): TokenClasses {
  const counts = new Map<number, number>();
  for (const token of tokens) counts.set(token, (counts.get(token) ?? 0) + 1);
  const byCount = [...counts].sort(([a, m], [b, n]) => n - m || a - b).map(([token]) => token);
  const own = byCount.length > most ? byCount.slice(0, most - 1) : byCount;
  const ids = new Map(own.map((token, id) => [token, id]));
  const labels = tokens.map((token) => ids.get(token) ?? own.length);
  const others = labels.filter((label) => label === own.length).length;
  return {
    labels,
    classes: own.length + Number(others > 0),
    other: others / tokens.length,
  };
}

/** The label `distance` before each row in its sequence; -1 where there is none. */
export function earlierLabels(labels: Int32Array, seqLen: number, distance: number): Int32Array {
  return labels.map((_, row) => row % seqLen < distance ? -1 : labels[row - distance]);
}

/**
 * Bits that a linear probe reads off the latent of token t of the token at t − 0, 1, 2 and 4, on rows
 * that it was not trained on, by layer and under the stage's attention; see {@linkcode Probe}. Rows
 * are the first 8192 tokens of the batches; of more than 512 different tokens the most frequent 511
 * are told apart.
 *
 * @throws {NotFinite} if the latents are not
 */
export async function probeTokens(
  engine: Engine,
  { config, stage, batches, device, note = () => {} }: {
    config: RunConfig;
    stage: Stage;
    batches: readonly Batch[];
    device: Pick<Device, "open">;
    note?: (line: string) => void;
  },
): Promise<ProbedTokens> {
  const { seqLen, kvLoraRank: cols, numHiddenLayers, seed } = config;
  const view: StageView = { ...viewOf(stage, config), kl: "none", keeps: ["latent"] };
  const variant = {
    name: `latents ${stage.name}`,
    loss: languageModel(config, { stage: view }),
  };
  const all = batches.reduce((sum, { tokens }) => sum + tokens.length, 0);
  const rows = Math.min(all, MOST_ROWS);
  const tokens = new Int32Array(rows);
  const latents = Array.from({ length: numHiddenLayers }, () => new Float32Array(rows * cols));
  let done = 0;
  for (const batch of batches) {
    if (done === rows) break;
    const maps = await engine.maps(batch, variant);
    const count = Math.min(batch.tokens.length, rows - done);
    tokens.set(batch.tokens.subarray(0, count), done);
    for (const [layer, into] of latents.entries()) {
      const own = (maps.get(`latent.${layer}`) as Float32Array).subarray(0, count * cols);
      const at = firstNotFinite(own);
      if (at >= 0) throw new NotFinite(`a latent of layer ${layer}`, own[at]);
      into.set(own, done * cols);
    }
    done += count;
  }
  const { labels, classes, other } = classesOf(tokens, MOST_CLASSES);
  using probe = await Probe.open(device, { rows, cols, classes });
  const layers: (ProbedBits & { distance: number })[][] = [];
  for (const [layer, own] of latents.entries()) {
    note(`probes of layer ${layer}`);
    const found: typeof layers[number] = [];
    for (const distance of DISTANCES) {
      const bits = await probe.bits(own, earlierLabels(labels, seqLen, distance), { seed });
      if (bits) found.push({ distance, ...bits });
    }
    layers.push(found);
  }
  return { rows, classes, other, layers };
}
