/**
 * The metrics of training steps: read from the device when they are due, checked, made a row of
 * the log.
 *
 * @module
 */
import { parseMetric } from "../metrics/names.ts";
import type { Engine, Metrics, StepHyper } from "../engine.ts";
import type { StageSpan } from "../config/stages.ts";
import { requireFinite } from "../model/finite.ts";
import { explain } from "../runs/diverged.ts";
import type { Job } from "./job.ts";

/** Steps between looks at the device, if nothing is logged: bounds what is queued. */
const MAX_STEPS_AHEAD = 64;

/** What it must know of a job. */
type Followed = Pick<Job, "config" | "progress"> & { readonly skipped: { readonly count: number } };

/** Follows the steps of a stage, from step `first` of the run on. */
export class StepLog {
  readonly #job: Followed;
  readonly #span: StageSpan;
  readonly #engine: Engine;
  /** The last step whose metrics were read. */
  #read: number;
  /** When the last row was made, later by the pauses since, and its step. */
  #clock: { ms: number; step: number };
  /** Further values for the next row. */
  #extra: Metrics = {};

  constructor(
    job: Followed,
    { span, engine, first }: { span: StageSpan; engine: Engine; first: number },
  ) {
    this.#job = job;
    this.#span = span;
    this.#engine = engine;
    this.#read = first;
    this.#clock = { ms: performance.now(), step: first };
  }

  /** Values for the next row. */
  add(values: Metrics): void {
    Object.assign(this.#extra, values);
  }

  /** Whether the device has as many steps queued as it may. */
  isBehind(step: number): boolean {
    return step - this.#read >= MAX_STEPS_AHEAD;
  }

  /**
   * Waits for the device to finish `step`.
   *
   * @returns the engine's metrics of that step
   * @throws {Diverged} if a number of a step since the last call is not finite
   */
  async read(step: number): Promise<Metrics> {
    const rows = await this.#engine.metrics();
    for (const [i, row] of rows.entries()) await this.#check(row, this.#read + i + 1);
    this.#read = step;
    return rows[rows.length - 1];
  }

  async #check(row: Metrics, step: number): Promise<void> {
    try {
      requireFinite(row);
    } catch (error) {
      throw await explain(error, { engine: this.#engine, stage: this.#span.stage, step });
    }
  }

  /** The values to log after a step, which are also shown. */
  async row(step: number, hyper: StepHyper): Promise<Metrics> {
    const { config, progress } = this.#job;
    const { index, stage } = this.#span;
    const values = trainingValues(await this.read(step), config.accumulate);
    const stepMs = (performance.now() - this.#clock.ms) / (step - this.#clock.step);
    this.#clock = { ms: performance.now(), step };
    const tokens = config.batchSize * config.seqLen * config.accumulate;
    const tokensPerSecond = tokens / stepMs * 1000;
    const rates = Object.entries(hyper.groups).map(([group, { lr }]) => [`lr/${group}`, lr]);
    const [label, group] = stage.trains === "indexer"
      ? ["kl", "indexer"] as const
      : ["loss", "backbone"] as const;
    const [loss, { lr }] = [values[`train/${label}`], hyper.groups[group]];
    progress.update({ step, label, loss, lr, stepMs, tokensPerSecond });
    const extra = this.#extra;
    this.#extra = {};
    return {
      ...values,
      ...Object.fromEntries(rates),
      "stage": index,
      "train/tokens": (step - this.#job.skipped.count) * tokens,
      "time/step_ms": stepMs,
      "time/tokens_per_s": tokensPerSecond,
      ...extra,
    };
  }

  /** Does what is not part of a step: the time of steps goes on without it. */
  async pause(body: () => Promise<void>): Promise<void> {
    const start = performance.now();
    await body();
    this.#clock.ms += performance.now() - start;
  }
}

/**
 * The engine's metrics under the names of the log. KL is a mean over rows, which the engine has
 * summed over micro-batches of as many rows; `train/kl` is its mean over layers.
 */
function trainingValues(row: Metrics, microBatches: number): Metrics {
  const values: Metrics = {};
  const kls: number[] = [];
  for (const [name, value] of Object.entries(row)) {
    const { family, key } = parseMetric(name);
    const isKl = family === "index" && key === "kl";
    const own = isKl ? value / microBatches : value;
    values[name.includes("/") ? name : `train/${name}`] = own;
    if (isKl) kls.push(own);
  }
  if (kls.length) values["train/kl"] = kls.reduce((a, b) => a + b) / kls.length;
  return values;
}
