/**
 * `results.json` of an ablation: every run with its numbers, and what follows from them.
 *
 * @module
 */
import type { Delta, Value } from "../config/experiment.ts";
import { type DataIdentity, identityShape } from "../data/identity.ts";
import {
  aFlag,
  aList,
  anObject,
  aNull,
  aNumber,
  aRecord,
  aText,
  either,
  oneOf,
  type Shape,
} from "../files/shape.ts";

/** One run of an ablation. */
export interface RunResult {
  /** Name of the variant: that of the experiment, its axis values, or both. */
  readonly variant: string;
  /** Value of each axis; `variant` is one of them where an experiment has both. */
  readonly axes: Readonly<Record<string, Value>>;
  /** Of weights and batches. */
  readonly seed: number;
  /** Run folder, relative to the ablation's folder: `runs/<variant>_s<seed>`. */
  readonly folder: string;
  /** `missing`: not run yet, or not to its end. */
  readonly status: "done" | "failed" | "missing";
  /** Why it failed. */
  readonly error?: string;
  /** The step at which a failed run diverged. */
  readonly failedStep?: number;
  /** What differs from the experiment's own configuration. */
  readonly delta: Delta;
  /**
   * Last value of each metric (`val/loss`, `index/captured_mass`, `swap/oracle` …), and the
   * validation metrics at the end of each stage (`twin/val/loss`).
   */
  readonly metrics: Readonly<Record<string, number>>;
  /**
   * - `parameters`
   * - `cache/storedBytes`, `cache/readBytes`: of a decoded token, all layers
   * - `flopsPerToken/projections`, `core`, `indexer`, `mlp`, `head`, and their sum `total`: forward
   * - `flopsPerToken/teacher`, `flopsPerToken/training`: of a training step
   * - `time/<stage>/step_ms`: median of the stage; `time/step_ms`: of the stage that costs are of
   * - `gpu/<stage>/<group>_ms`: GPU time of a step's kernels, where it was measured
   */
  readonly costs: Readonly<Record<string, number>>;
  /** Metrics of its further evaluations (`val/loss`, `index/captured_mass` …), by name. */
  readonly evaluations?: Readonly<Record<string, Readonly<Record<string, number>>>>;
}

/** A mean over seeds. */
export interface Estimate {
  /** Over the seeds. */
  readonly mean: number;
  /** Sample standard deviation (n - 1); 0 for one seed. */
  readonly sd: number;
  /** Seeds. */
  readonly n: number;
}

/** One variant over all its seeds. */
export interface SummaryRow {
  /** Its name. */
  readonly variant: string;
  /** Its value of each axis. */
  readonly axes: Readonly<Record<string, Value>>;
  /** Finished runs, all of whose stages met their criteria. */
  readonly n: number;
  /** Finished runs of which a stage did not; none if it is not there. */
  readonly unmet?: number;
  /** All metrics and evaluations: those of the evaluation `k=16` are named `k=16/val/loss` …. */
  readonly metrics: Readonly<Record<string, Estimate>>;
  /** To the baseline, over the seeds that both have. */
  readonly difference?: Readonly<Record<string, Estimate>>;
}

/** `value = mean + row effect + column effect + residual` over a whole grid. */
export interface AdditiveFit {
  /** The axis of the rows. */
  readonly rows: string;
  /** The axis of the columns. */
  readonly cols: string;
  /** What is fitted, in the mean over seeds. */
  readonly metric: string;
  /** Of all cells. */
  readonly mean: number;
  /** By value, in the order of the axis; they sum to 0. */
  readonly rowEffects: Readonly<Record<string, number>>;
  /** The same of the columns. */
  readonly colEffects: Readonly<Record<string, number>>;
  /** `[row][column]`. */
  readonly residuals: readonly (readonly number[])[];
  /** Share of the cells' variance that rows and columns leave. */
  readonly interaction: number;
  /** The share that chance alone would leave, from how residuals differ by seed; 0 for one seed. */
  readonly interactionNoise: number;
  /** The largest residual, without sign. */
  readonly maxResidual: number;
  /** Pooled standard deviation over seeds within a cell; 0 for one seed. */
  readonly seedSd: number;
}

/** Content of `results.json`. */
export interface AblationResults {
  /** Its name. */
  readonly experiment: string;
  /** `real` or a size that the experiment names. */
  readonly size: string;
  /** `key=value` words that were typed for all runs; missing in older results. */
  readonly typed?: readonly string[];
  /** What the experiment asks. */
  readonly question: string;
  /** What it expects, and from which sources. */
  readonly expect?: string;
  /** Values of each axis, in the experiment's order. */
  readonly axes: Readonly<Record<string, readonly Value[]>>;
  /** Metrics to tabulate, the main one first. */
  readonly tabulate: readonly string[];
  /** A variant, or values of some axes; differences are to the runs that have these. */
  readonly baseline?: string | Readonly<Record<string, Value>>;
  /** What its runs were trained on. */
  readonly adapter: string;
  /** The commit; with `+` where files were changed; null outside a repository. */
  readonly git: string | null;
  /** The texts that runs were trained on, by `data`; missing in older results. */
  readonly data?: Readonly<Record<string, DataIdentity>>;
  /** All that are planned, also those that are missing. */
  readonly runs: readonly RunResult[];
  /** A row for each variant. */
  readonly summary: readonly SummaryRow[];
  /** Of each tabulated metric; empty unless there are two axes. */
  readonly fit: readonly AdditiveFit[];
  /** Whether no run is missing. */
  readonly finished: boolean;
}

const value = either(aNull, aFlag, aNumber, aText);
const values = aRecord(value);
const numbers = aRecord(aNumber);
// What is not finite is null in JSON.
const measured = either(aNull, aNumber);
const metrics = aRecord(measured);
const estimates = aRecord(anObject({ mean: measured, sd: measured, n: aNumber }));
const run = anObject(
  {
    ...{ variant: aText, axes: values, seed: aNumber, folder: aText, metrics },
    ...{ status: oneOf("done", "failed", "missing"), delta: aRecord(() => null), costs: metrics },
  },
  { error: aText, failedStep: aNumber, evaluations: aRecord(metrics) },
);
const fit = anObject({
  ...{ rows: aText, cols: aText, metric: aText, mean: aNumber },
  ...{ rowEffects: numbers, colEffects: numbers, residuals: aList(aList(aNumber)) },
  ...{ interaction: aNumber, interactionNoise: aNumber, maxResidual: aNumber, seedSd: aNumber },
});

const results = anObject(
  {
    ...{ experiment: aText, size: aText, question: aText, adapter: aText, finished: aFlag },
    ...{ axes: aRecord(aList(value)), tabulate: aList(aText), git: either(aNull, aText) },
    ...{ runs: aList(run), fit: aList(fit) },
    summary: aList(
      anObject(
        { variant: aText, axes: values, n: aNumber, metrics: estimates },
        { difference: estimates, unmet: aNumber },
      ),
    ),
  },
  {
    ...{ typed: aList(aText), expect: aText, baseline: either(aText, values) },
    data: aRecord(identityShape),
  },
);

/** That of {@linkcode AblationResults}; a fit has a number for each value of its two axes. */
export const resultsShape: Shape = (value: unknown, where: string): string | null => {
  const wrong = results(value, where);
  if (wrong) return wrong;
  const { axes, fit } = value as AblationResults;
  const isWhole = fit.every(({ rows, cols, rowEffects, colEffects, residuals }) => {
    const [height, width] = [axes[rows]?.length, axes[cols]?.length];
    return Object.keys(rowEffects).length === height && residuals.length === height &&
      Object.keys(colEffects).length === width && residuals.every((row) => row.length === width);
  });
  return isWhole ? null : `${where}.fit is not over its axes`;
};
