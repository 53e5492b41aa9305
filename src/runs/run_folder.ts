/**
 * The folder of a run: what it was asked (`config.json`), where it ran (`env.json`), what it
 * measured (`metrics.jsonl`, `samples.txt`) and how it ended (`summary.json`).
 *
 * @module
 */
import { metricInfo } from "../metrics/table.ts";
import { join } from "node:path";
import type { RunConfig } from "../config/config.ts";
import { type DataIdentity, identityShape } from "../data/identity.ts";
import { UserError } from "../errors.ts";
import { isThere, readJson, writing } from "../files/files.ts";
import {
  aFlag,
  anObject,
  aNull,
  aNumber,
  aRecord,
  aText,
  either,
  oneOf,
  type Shape,
} from "../files/shape.ts";
import { cutLogs, type LogMark } from "./log_mark.ts";

/** Where run folders lie, unless said otherwise. */
export const RUNS = "runs";

/** What a run appends to. */
const LOGS: readonly string[] = ["metrics.jsonl", "samples.txt"];

/** A line of `metrics.jsonl`: names are paths, such as `train/loss`. */
export interface MetricsRow {
  /** Finished steps. */
  readonly step: number;
  /** Seconds of training since the run began, pauses not counted. */
  readonly t: number;
  /** A value that is not finite is stored as null. */
  readonly [name: string]: number | null;
}

/** State of a run. `running` without a process means that it was killed. */
export type RunStatus = "running" | "done" | "interrupted" | "failed";

const STATUSES: readonly RunStatus[] = ["running", "done", "interrupted", "failed"];

/** Content of `summary.json`. */
export interface Summary {
  /** How it ended, or that it has not. */
  readonly status: RunStatus;
  /** The last step that was logged or finished. */
  readonly step: number;
  /** Seconds of training, earlier parts of a resumed run included. */
  readonly seconds: number;
  /** Last value of each metric. */
  readonly final: Record<string, number | null>;
  /** Best value of each loss (least) and accuracy (largest). */
  readonly best: Record<string, { value: number; step: number }>;
  /** How the stages that were to end by a criterion ended, by their names. */
  readonly until?: Readonly<Record<string, CriterionEnd>>;
  /** Why the run failed. */
  readonly error?: string;
}

/** How a stage with a criterion ended. */
export interface CriterionEnd {
  /** E.g. `val/accuracy>=0.99`. */
  readonly criterion: string;
  /** Whether an evaluation met it. */
  readonly met: boolean;
  /** Steps that were done. */
  readonly steps: number;
}

/**
 * An open run folder. All writes are synchronous, so that a killed run has lost nothing.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveConfig } from "../config/config.ts";
 * import { readSummary, RunFolder } from "./run_folder.ts";
 *
 * const root = await Deno.makeTempDir();
 * const run = RunFolder.create(resolveConfig({}), { experiment: "quickstart", root });
 * run.log(10, { "train/loss": 2.5 });
 * run.finish("done", { step: 10 });
 * assert(run.path.endsWith("quickstart_001"));
 * assert.equal(readSummary(run.path)?.final["train/loss"], 2.5);
 * ```
 */
export class RunFolder {
  /** E.g. `runs/quickstart_001`. */
  readonly path: string;
  /** The resolved configuration, with its name. */
  readonly config: RunConfig;
  readonly #final: Record<string, number | null> = {};
  readonly #best: Record<string, { value: number; step: number }> = {};
  readonly #until: Record<string, CriterionEnd> = {};
  readonly #started = performance.now();
  #secondsBefore = 0;
  #step = 0;

  private constructor(path: string, config: RunConfig) {
    this.path = path;
    this.config = config;
  }

  /**
   * Makes `<root>/<name>/`. Without a name it is the experiment and the next free number:
   * `quickstart_001`. The folder appears as a whole or not at all: half of one could neither be
   * gone on with nor started in.
   *
   * @throws {UserError} if the folder exists or cannot be made
   */
  static create(
    config: RunConfig,
    options: { experiment: string; root?: string },
  ): RunFolder {
    const { experiment, root = RUNS } = options;
    makeFolder(root, true);
    const name = config.name ?? nextName(root, experiment);
    const path = join(root, name);
    requireNew(path);
    const partial = join(root, `.${name}.${crypto.randomUUID().slice(0, 8)}.partial`);
    makeFolder(partial);
    const begun = new RunFolder(partial, { ...config, name, resume: null });
    try {
      writeAside(join(partial, "config.json"), pretty(begun.config));
      for (const log of LOGS) append(join(partial, log), "");
      begun.#summarize("running");
      // What is in the way may have appeared since: it stays as it is.
      if (Deno.build.os === "windows" && isThere(path)) Deno.removeSync(path);
      writing(path, () => Deno.renameSync(partial, path));
    } catch (error) {
      try {
        Deno.removeSync(partial, { recursive: true });
      } catch {
        // What ended it is told.
      }
      requireNew(path);
      throw error;
    }
    return new RunFolder(path, begun.config);
  }

  /**
   * Opens the folder of a run that goes on from a checkpoint: what was logged after it is cut
   * off, so that the logs become those of a run that was never stopped.
   *
   * @throws {UserError} if what was logged before it is not there
   */
  static resume(path: string, options: { config: RunConfig; logs: LogMark }): RunFolder {
    const { config, logs } = options;
    cutLogs(path, logs);
    const run = new RunFolder(path, { ...config, resume: null });
    for (const row of readMetrics(join(path, "metrics.jsonl"))) {
      run.#keep(row);
      run.#secondsBefore = row.t;
    }
    writeAside(join(path, "config.json"), pretty(run.config));
    run.#summarize("running");
    return run;
  }

  /**
   * Writes `env.json`. The environment of a resumed run is added to those of its earlier parts;
   * a damaged file is begun anew.
   */
  writeEnvironment(environment: Record<string, unknown>): void {
    const path = join(this.path, "env.json");
    const first = readOrNull(path);
    const earlier = Array.isArray(first?.resumed) ? first.resumed : [];
    const all = first && { ...first, resumed: [...earlier, environment] };
    writeAside(path, pretty(all ?? environment));
  }

  /** The last step that was logged. */
  get step(): number {
    return this.#step;
  }

  /** Appends a row to `metrics.jsonl`. */
  log(step: number, values: Readonly<Record<string, number>>): void {
    const row = { step, t: this.#seconds(), ...values };
    append(join(this.path, "metrics.jsonl"), JSON.stringify(row) + "\n");
    this.#keep(row);
  }

  /** Appends a text to `samples.txt`. */
  sample(step: number, text: string): void {
    append(join(this.path, "samples.txt"), `--- step ${step} ---\n${text}\n\n`);
  }

  /** Writes the final `summary.json`. */
  finish(
    status: Exclude<RunStatus, "running">,
    options: { step: number; error?: string },
  ): Summary {
    this.#step = options.step;
    return this.#summarize(status, options.error);
  }

  #summarize(status: RunStatus, error?: string): Summary {
    const summary = {
      status,
      step: this.#step,
      seconds: this.#seconds(),
      final: this.#final,
      best: this.#best,
      ...(Object.keys(this.#until).length ? { until: this.#until } : {}),
      ...(error === undefined ? {} : { error }),
    };
    writeAside(join(this.path, "summary.json"), pretty(summary));
    return summary;
  }

  #seconds(): number {
    const now = this.#secondsBefore + (performance.now() - this.#started) / 1000;
    return Math.round(now * 1000) / 1000;
  }

  #keep(row: MetricsRow): void {
    this.#step = row.step;
    this.#keepEnd(row);
    for (const [name, value] of Object.entries(row)) {
      if (name === "step" || name === "t") continue;
      this.#final[name] = value;
      const { better = null } = metricInfo(name) ?? {};
      if (better === null || value === null || !Number.isFinite(value)) continue;
      const best = this.#best[name];
      const isBetter = !best || (better === "less" ? value < best.value : value > best.value);
      if (isBetter) this.#best[name] = { value, step: row.step };
    }
  }

  #keepEnd({ stage, "until/met": met, "until/steps": steps }: MetricsRow): void {
    const { name, until = null } = this.config.stages[stage ?? -1] ?? {};
    if (!name || until === null || typeof steps !== "number") return;
    this.#until[name] = { criterion: until, met: met === 1, steps };
  }
}

/**
 * Refuses a folder that a new run would find taken, before anything else is opened.
 *
 * @throws {UserError} if it exists and holds anything
 */
export function requireNew(path: string): void {
  if (!isThere(path)) return;
  const isEmpty = Deno.statSync(path).isDirectory && ![...Deno.readDirSync(path)].length;
  if (isEmpty) return;
  throw new UserError(
    `Cannot start in ${path}: it exists; go on with resume=${path}, or choose another name`,
  );
}

/**
 * Reads `metrics.jsonl`. A last line without its end, left by a killed run, is passed over.
 *
 * @throws {UserError} if another line is damaged
 */
export function readMetrics(path: string): MetricsRow[] {
  const lines = Deno.readTextFileSync(path).split("\n");
  return lines.slice(0, -1).map((line, i) => {
    try {
      const row = JSON.parse(line);
      if (!rowShape(row, "it")) return row;
    } catch {
      // Told below.
    }
    throw new UserError(`Cannot read ${path}: line ${i + 1} is damaged; remove it`);
  });
}

/** That of {@linkcode MetricsRow}. */
const rowShape: Shape = (value, where) =>
  anObject({ step: aNumber, t: aNumber })(value, where) ??
    aRecord(either(aNull, aNumber))(value, where);

/**
 * Reads `summary.json`, or returns null where there is none, or a damaged one: all of it can be
 * had from the other files of a run.
 */
export function readSummary(run: string): Summary | null {
  const summary = readOrNull(join(run, "summary.json"));
  return summaryShape(summary, "summary") === null ? summary as unknown as Summary : null;
}

const summaryShape = anObject({
  status: oneOf(...STATUSES),
  step: aNumber,
  seconds: aNumber,
  final: aRecord(either(aNull, aNumber)),
  best: aRecord(anObject({ value: aNumber, step: aNumber })),
}, { until: aRecord(anObject({ criterion: aText, met: aFlag, steps: aNumber })) });

/**
 * The text that a run was trained on last, by its `env.json`; null where that does not tell, or it
 * was none.
 */
export function readIdentity(run: string): DataIdentity | null {
  const environment = readOrNull(join(run, "env.json"));
  const { resumed } = environment ?? {};
  const last = Array.isArray(resumed) ? resumed.at(-1) : environment;
  return identityShape(last?.data, "data") === null ? last.data : null;
}

/** The object in a JSON file, or null where there is none, or a damaged one. */
export function readOrNull(path: string): Record<string, unknown> | null {
  try {
    return readJson(path);
  } catch (error) {
    if (error instanceof UserError) return null;
    throw error;
  }
}

/**
 * Replaces a file as a whole: whenever the process dies, the old or the new one is there.
 *
 * @throws {WriteError} if it cannot be written; the old one is still there
 */
export function writeAside(path: string, text: string): void {
  writing(path, () => {
    const partial = `${path}.partial`;
    {
      using file = Deno.openSync(partial, { write: true, create: true, truncate: true });
      const bytes = new TextEncoder().encode(text);
      for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
      file.syncSync();
    }
    Deno.renameSync(partial, path);
  });
}

/** Writes to the end of a log. */
function append(path: string, text: string): void {
  writing(path, () => Deno.writeTextFileSync(path, text, { append: true }));
}

/** JSON as people like to read it, with a line end. */
export function pretty(value: unknown): string {
  return JSON.stringify(value, null, 2) + "\n";
}

function makeFolder(path: string, recursive = false): void {
  try {
    Deno.mkdirSync(path, { recursive });
  } catch (error) {
    throw new UserError(
      `Cannot make the folder ${path}: ${error instanceof Error ? error.message : error}`,
    );
  }
}

function nextName(root: string, experiment: string): string {
  let last = 0;
  for (const { name } of Deno.readDirSync(root)) {
    const number = name.startsWith(`${experiment}_`) ? name.slice(experiment.length + 1) : "";
    if (/^\d{3,}$/.test(number)) last = Math.max(last, Number(number));
  }
  return `${experiment}_${String(last + 1).padStart(3, "0")}`;
}
