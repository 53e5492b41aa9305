/**
 * What a run folder holds, read for a report.
 *
 * @module
 */
import { layersOf } from "../../metrics/names.ts";
import { basename, join, resolve } from "node:path";
import type { RunConfig } from "../../config/config.ts";
import type { DataIdentity } from "../../data/identity.ts";
import { readDensity, type SavedDensity } from "../../eval/density_file.ts";
import { UserError } from "../../errors.ts";
import { isThere, readJson, readText } from "../../files/files.ts";
import { savedConfig } from "../../config/saved_config.ts";
import { type StageSpan, stageSpans } from "../../config/stages.ts";
import {
  type MetricsRow,
  readIdentity,
  readMetrics,
  readOrNull,
  readSummary,
  type Summary,
} from "../../runs/run_folder.ts";

/** A run as its folder tells it. */
export interface ReportedRun {
  readonly folder: string;
  /** Last part of the folder's path. */
  readonly name: string;
  readonly config: RunConfig;
  readonly spans: readonly StageSpan[];
  readonly rows: readonly MetricsRow[];
  readonly summary: Summary | null;
  /** Content of `env.json`; empty where there is none, or a damaged one. */
  readonly environment: Environment;
  /** Of the text that it was trained on; null where there is none, or it is not known. */
  readonly data: DataIdentity | null;
  /** What `deno task eval --density` found; null if it was not asked. */
  readonly density: SavedDensity | null;
  /** Content of `samples.txt`. */
  readonly samples: string;
}

/** The part of `env.json` that reports show. */
export interface Environment {
  readonly started?: string;
  readonly adapter?: string;
  readonly git?: { readonly sha: string | null; readonly dirty: boolean | null };
}

/**
 * Reads a run folder, of a run that goes on too.
 *
 * @throws {UserError} if it is none, or one of its files is damaged
 */
export function readRun(folder: string): ReportedRun {
  const saved = readJson(join(folder, "config.json"));
  if (!saved) throw new UserError(`Cannot report on ${folder}: it has no config.json`);
  const config = savedConfig(saved, join(folder, "config.json"));
  const log = join(folder, "metrics.jsonl");
  return {
    folder,
    name: basename(resolve(folder)),
    config,
    spans: stageSpans(config.stages),
    rows: isThere(log) ? readMetrics(log) : [],
    summary: readSummary(folder),
    environment: readEnvironment(join(folder, "env.json")),
    data: readIdentity(folder),
    density: readDensity(folder),
    samples: readText(join(folder, "samples.txt")) ?? "",
  };
}

function readEnvironment(path: string): Environment {
  const { started, adapter, git } = (readOrNull(path) ?? {}) as Environment;
  return {
    ...(typeof started === "string" ? { started } : {}),
    ...(typeof adapter === "string" ? { adapter } : {}),
    ...(typeof git?.sha === "string" ? { git } : {}),
  };
}

/** Steps and values of a metric, where it was logged. */
export interface Series {
  readonly x: number[];
  readonly y: number[];
}

/** A metric over the steps; of long runs every n-th value, and the last. */
export function seriesOf(rows: readonly MetricsRow[], metric: string, most = 600): Series {
  const found = rows.filter((row) => typeof row[metric] === "number");
  const stride = Math.ceil(found.length / most);
  const kept = found.filter((_, i) => i % stride === 0 || i === found.length - 1);
  return { x: kept.map(({ step }) => step), y: kept.map((row) => row[metric] as number) };
}

/** The last row in which a metric was logged. */
export function lastRow(rows: readonly MetricsRow[], metric: string): MetricsRow | null {
  return rows.findLast((row) => typeof row[metric] === "number") ?? null;
}

/** Numbers of the layers that have a metric `<prefix>/<layer>/<name>`. */
export function layersWith(rows: readonly MetricsRow[], prefix: string, name: string): number[] {
  return layersOf(rows.flatMap((row) => Object.keys(row)), prefix, name);
}
