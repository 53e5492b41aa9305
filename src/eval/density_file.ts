/**
 * `density.json` of a run folder: what `deno task eval --density` found last, for the report.
 *
 * @module
 */
import { join } from "node:path";
import { isThere } from "../files/files.ts";
import { aList, anObject, aNull, aNumber, aText, either } from "../files/shape.ts";
import type { DensityReport } from "../measure/density/density.ts";
import { pretty, readOrNull, writeAside } from "../runs/run_folder.ts";

const FILE = "density.json";

/** What the file holds. */
export interface SavedDensity extends DensityReport {
  /** Steps of the checkpoint. */
  readonly step: number;
  /** Name of the text or task. */
  readonly data: string;
}

/**
 * Keeps a run's density in its folder; a checkpoint's folder, or one of another kind, stays as it is.
 *
 * @throws {WriteError} if the file cannot be written
 */
export function saveDensity(folder: string, density: SavedDensity): void {
  if (isThere(join(folder, "metrics.jsonl"))) writeAside(join(folder, FILE), pretty(density));
}

/** What was kept, or null where there is nothing, or a damaged file: it can be measured again. */
export function readDensity(folder: string): SavedDensity | null {
  const saved = readOrNull(join(folder, FILE));
  return shape(saved, FILE) === null ? saved as unknown as SavedDensity : null;
}

const shape = anObject({
  step: aNumber,
  data: aText,
  kvLoraRank: aNumber,
  topk: aNumber,
  tokens: aNumber,
  probed: anObject({ rows: aNumber, classes: aNumber, other: aNumber }),
  layers: aList(anObject({
    spectralRank: aNumber,
    effectiveRank: aNumber,
    reconstructionError: aNumber,
    functionalRank: either(aNull, aNumber),
    projected: aList(anObject({ rank: aNumber, distortion: aNumber })),
    quantised: aList(anObject({ bits: aText, distortion: aNumber })),
    probes: aList(
      anObject({ distance: aNumber, entropy: aNumber, bits: aNumber, control: aNumber }),
    ),
    heads: anObject({ own: aNumber, shared: aNumber }),
  })),
});
