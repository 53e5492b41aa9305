/**
 * Do two axes add up? The two-way additive fit of a grid.
 *
 * @module
 */
import type { Value } from "../config/experiment.ts";
import type { AdditiveFit } from "./results.ts";

/**
 * Fits `value = mean + row effect + column effect` to the cells of a whole grid by least squares,
 * which for means of cells are the means of rows and columns.
 *
 * @param cells values over the seeds, `[row][column][seed]`, the same seeds in every cell
 * @throws {RangeError} if a cell is empty, or has fewer values than another
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { fitAdditive } from "./fit.ts";
 *
 * const grid = { rows: "d", cols: "k", metric: "loss", rowValues: [1, 2], colValues: [1, 2] };
 * const fit = fitAdditive({ ...grid, cells: [[[1], [2]], [[3], [4]]] });
 * assert.deepEqual([fit.mean, fit.rowEffects, fit.interaction], [2.5, { 1: -1, 2: 1 }, 0]);
 * const other = fitAdditive({ ...grid, cells: [[[0], [1]], [[1], [0]]] });
 * assert.equal(other.interaction, 1);
 * ```
 */
export function fitAdditive(options: {
  rows: string;
  cols: string;
  metric: string;
  rowValues: readonly Value[];
  colValues: readonly Value[];
  cells: readonly (readonly (readonly number[])[])[];
}): AdditiveFit {
  const { rows, cols, metric, rowValues, colValues, cells } = options;
  const seeds = cells[0]?.[0]?.length ?? 0;
  if (seeds === 0 || cells.some((row) => row.some((values) => values.length !== seeds))) {
    throw new RangeError("Cannot fit a grid whose cells differ in seeds: finish its runs first");
  }
  const { mean, rowEffects, colEffects, residuals } = decompose(
    cells.map((row) => row.map(average)),
  );
  const left = sumOfSquares(residuals.flat());
  const total = left + cells[0].length * sumOfSquares(rowEffects) +
    cells.length * sumOfSquares(colEffects);
  // What rounding leaves of an exactly additive grid is no interaction.
  const isRounding = left <= (1e-12 * Math.max(Math.abs(mean), Math.sqrt(total))) ** 2;
  const noise = cells.flat().flatMap(deviations);
  const named = (values: readonly Value[], effects: readonly number[]) =>
    Object.fromEntries(values.map((value, i) => [String(value ?? "none"), effects[i]]));
  return {
    ...{ rows, cols, metric, mean },
    rowEffects: named(rowValues, rowEffects),
    colEffects: named(colValues, colEffects),
    residuals,
    interaction: isRounding ? 0 : left / total,
    interactionNoise: isRounding ? 0 : residualNoise(cells, seeds) / total,
    maxResidual: Math.max(...residuals.flat().map(Math.abs)),
    seedSd: seeds > 1 ? Math.sqrt(sumOfSquares(noise) / (noise.length - noise.length / seeds)) : 0,
  };
}

/**
 * The sum of squares that residuals of the cells' means would have without any interaction. Each
 * seed has a fit of its own, so that what a seed adds to all cells, or to a row, does not count.
 */
function residualNoise(cells: readonly (readonly (readonly number[])[])[], seeds: number): number {
  if (seeds < 2) return 0;
  const bySeed = Array.from(
    { length: seeds },
    (_, s) => decompose(cells.map((row) => row.map((values) => values[s]))).residuals.flat(),
  );
  const spread = bySeed[0].flatMap((_, i) => deviations(bySeed.map((residuals) => residuals[i])));
  return sumOfSquares(spread) / (seeds - 1) / seeds;
}

function decompose(values: readonly (readonly number[])[]) {
  const mean = average(values.flat());
  const rowEffects = values.map((row) => average(row) - mean);
  const colEffects = values[0].map((_, j) => average(values.map((row) => row[j])) - mean);
  const residuals = values.map((row, i) =>
    row.map((value, j) => value - mean - rowEffects[i] - colEffects[j])
  );
  return { mean, rowEffects, colEffects, residuals };
}

function deviations(values: readonly number[]): number[] {
  const center = average(values);
  return values.map((value) => value - center);
}

function average(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0) / values.length;
}

function sumOfSquares(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value * value, 0);
}
