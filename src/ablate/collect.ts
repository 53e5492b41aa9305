/**
 * `results.json` from the run folders.
 *
 * @module
 */
import { isOfPart, parseMetric } from "../metrics/names.ts";
import { join } from "node:path";
import type { RunConfig } from "../config/config.ts";
import type { Metrics } from "../engine.ts";
import { stageSpans } from "../config/stages.ts";
import { describeEnvironment } from "../runs/environment.ts";
import { type MetricsRow, readMetrics } from "../runs/run_folder.ts";
import { readEvaluations } from "./evaluations.ts";
import { readResults } from "./folder.ts";
import type { AblationPlan, PlannedRun } from "./plan.ts";
import type { AblationResults, RunResult } from "./results.ts";
import { computedCosts, measuredCosts } from "./run_costs.ts";
import { fitGrid, summarize, valuesOf } from "./summary.ts";

/** Why a run has no result. */
export interface Failure {
  readonly error: string;
  /** The step at which it diverged. */
  readonly step?: number;
}

/** What is tabulated if an experiment does not say. */
export const DEFAULT_METRICS: readonly string[] = ["val/loss"];

/** The folder of a planned run, in the ablation's folder. */
export function runPath(run: Pick<PlannedRun, "name">): string {
  return `runs/${run.name}`;
}

/** The result of a run that is done. */
export function doneRun(
  ablation: string,
  run: PlannedRun,
  config: RunConfig,
): RunResult {
  const path = join(ablation, runPath(run));
  const rows = readMetrics(join(path, "metrics.jsonl"));
  const evaluations = readEvaluations(path);
  return {
    ...described(run),
    status: "done",
    metrics: { ...withoutNulls(Object.assign({}, ...rows)), ...atStageEnds(config, rows) },
    costs: { ...computedCosts(config), ...measuredCosts(config, rows) },
    ...(evaluations ? { evaluations } : {}),
  };
}

/** A run without result; null: it has not been tried to its end. */
export function undoneRun(run: PlannedRun, failure: Failure | null): RunResult {
  return {
    ...described(run),
    status: failure ? "failed" : "missing",
    ...(failure ? { error: failure.error } : {}),
    ...(failure?.step === undefined ? {} : { failedStep: failure.step }),
    metrics: {},
    costs: computedCosts(run.config),
  };
}

function described({ variant, axes, seed, delta, name }: PlannedRun) {
  return { variant, axes, seed, folder: runPath({ name }), delta };
}

/** Everything that follows from the runs. */
export function resultsOf(
  { experiment: { question, expect, tabulate = DEFAULT_METRICS, baseline }, axes, typed }:
    AblationPlan,
  { runs, ...about }: Pick<
    AblationResults,
    "experiment" | "size" | "adapter" | "git" | "data" | "runs"
  >,
): AblationResults {
  // With other data the metric that matters may be missing: the main one is the first that is there.
  const isMeasured = (name: string) => runs.some((run) => name in valuesOf(run));
  const named = [...tabulate.filter(isMeasured), ...tabulate.filter((name) => !isMeasured(name))];
  return {
    ...about,
    typed,
    question,
    ...(expect === undefined ? {} : { expect }),
    axes,
    tabulate: named,
    ...(baseline === undefined ? {} : { baseline }),
    runs,
    summary: summarize(runs, baseline),
    fit: fitGrid(runs, { axes, metrics: named }),
    finished: runs.every(({ status }) => status !== "missing"),
  };
}

/** The adapter of the results that are there: a command may find nothing to do. */
export function recordedAdapter(ablation: string): string {
  return readResults(ablation)?.adapter ?? "none";
}

/** The commit of the code, as in {@linkcode AblationResults.git}. */
export function commitOf(): string | null {
  const { git } = describeEnvironment({ backend: "", adapter: "", seed: 0, argv: [] }) as {
    git: { sha: string | null; dirty: boolean | null };
  };
  return git.sha && git.sha.slice(0, 7) + (git.dirty ? "+" : "");
}

/** Families of what is kept of the end of each stage. */
const AT_STAGE_ENDS: readonly string[] = ["val", "index", "swap", "until"];

/** Validation and measurements at the end of each stage: `twin/val/loss`. */
function atStageEnds(config: RunConfig, rows: readonly MetricsRow[]): Metrics {
  const values: Metrics = {};
  for (const { stage, end } of stageSpans(config.stages)) {
    const last = rows.find(({ step }) => step === end) ?? {};
    for (const [name, value] of Object.entries(withoutNulls(last))) {
      const isWhole = AT_STAGE_ENDS.includes(parseMetric(name).family) && !isOfPart(name);
      if (isWhole) values[`${stage.name}/${name}`] = value;
    }
  }
  return values;
}

/** What a row of the log has that is no result. */
const NO_METRICS: readonly string[] = ["step", "t", "stage"];

/** Known values; times are costs. */
function withoutNulls(values: Readonly<Record<string, number | null>>): Metrics {
  const known = Object.entries(values).filter(([name, value]) =>
    value !== null && !NO_METRICS.includes(name) && !name.startsWith("time/")
  );
  return Object.fromEntries(known) as Metrics;
}
