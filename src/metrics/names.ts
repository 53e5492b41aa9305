/**
 * Names of metrics: paths such as `val/loss`, or `index/3/captured_mass` of layer 3.
 *
 * @module
 */

/** A name taken apart. */
export interface MetricName {
  /** What it is of: `val`, `index`, `grad` …. */
  readonly family: string;
  /** Number of the layer; null where it is of none, or the mean of all. */
  readonly layer: number | null;
  /** The rest: `loss`, `captured_mass`, `distance/0` …. */
  readonly key: string;
}

/**
 * Takes a name apart.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { parseMetric } from "./names.ts";
 *
 * assert.deepEqual(parseMetric("val/loss"), { family: "val", layer: null, key: "loss" });
 * assert.deepEqual(parseMetric("index/3/distance/0"), {
 *   family: "index",
 *   layer: 3,
 *   key: "distance/0",
 * });
 * ```
 */
export function parseMetric(name: string): MetricName {
  const [family, ...rest] = name.split("/");
  const hasLayer = rest.length > 1 && isNumber(rest[0]);
  return {
    family,
    layer: hasLayer ? Number(rest[0]) : null,
    key: (hasLayer ? rest.slice(1) : rest).join("/"),
  };
}

/** The name of a layer's metric. */
export function layerMetric(family: string, layer: number, key: string): string {
  return `${family}/${layer}/${key}`;
}

/** Whether a name, with whatever prefix, is of a single layer or bin. */
export function isOfPart(name: string): boolean {
  return name.split("/").slice(1).some(isNumber);
}

/** Layers of which there is a metric among `names`, ascending. */
export function layersOf(names: Iterable<string>, family: string, key: string): number[] {
  const layers = new Set<number>();
  for (const name of names) {
    const parts = parseMetric(name);
    if (parts.family === family && parts.key === key && parts.layer !== null) {
      layers.add(parts.layer);
    }
  }
  return [...layers].sort((a, b) => a - b);
}

function isNumber(part: string): boolean {
  return part !== "" && Number.isInteger(Number(part));
}
