/**
 * How far the logs of a run are written, so that a run that goes on can cut them there.
 *
 * @module
 */
import { join } from "node:path";
import { UserError } from "../errors.ts";
import { isThere } from "../files/files.ts";

/** How far the logs had been written at some moment, in bytes. */
export interface LogMark {
  /** Of `metrics.jsonl`. */
  readonly metrics: number;
  /** Of `samples.txt`. */
  readonly samples: number;
}

/** How far the logs of a run are written; everything up to there is on the disk afterwards. */
export function markLogs(run: string): LogMark {
  return { metrics: sizeOnDisk(run, "metrics.jsonl"), samples: sizeOnDisk(run, "samples.txt") };
}

/**
 * Refuses a run whose metrics are gone: those of its later part would pass for the whole.
 *
 * @param logs how far they had been written
 * @throws {UserError} if there is no `metrics.jsonl`
 */
export function requireMetrics(path: string, logs: LogMark): void {
  if (logs.metrics === 0 || isThere(join(path, "metrics.jsonl"))) return;
  throw new UserError(
    `Cannot resume ${path}: metrics.jsonl, which it had, is missing; put it back, or start a new run`,
  );
}

/**
 * Cuts the logs of a run to where they were, `metrics.jsonl` to a whole line.
 *
 * @throws {UserError} if there is no `metrics.jsonl`
 */
export function cutLogs(path: string, logs: LogMark): void {
  requireMetrics(path, logs);
  cutLines(join(path, "metrics.jsonl"), logs.metrics);
  cut(join(path, "samples.txt"), logs.samples);
}

function sizeOnDisk(run: string, log: string): number {
  using file = Deno.openSync(join(run, log), { read: true, write: true });
  file.syncSync();
  return file.statSync().size;
}

/** Cuts a file to a length, if it is longer. */
function cut(path: string, length: number): void {
  using file = Deno.openSync(path, { write: true, create: true });
  if (file.statSync().size > length) file.truncateSync(length);
}

/** Cuts a file to a length, and then to its last whole line. */
function cutLines(path: string, length: number): void {
  cut(path, length);
  const bytes = Deno.readFileSync(path);
  cut(path, bytes.lastIndexOf(0x0a) + 1);
}
