/**
 * How far the logs of a run are written, so that a run that goes on can cut them there.
 *
 * @module
 */
import { join } from "node:path";
import { UserError } from "../errors.ts";
import { sumOfFile } from "../files/checksum.ts";
import { isThere, writing } from "../files/files.ts";

/** How far the logs had been written at some moment, in bytes. */
export interface LogMark {
  /** Of `metrics.jsonl`. */
  readonly metrics: number;
  /** Of `samples.txt`. */
  readonly samples: number;
  /** SHA-256 of `metrics.jsonl` up to there; checkpoints of version 2 lack it. */
  readonly sha256?: string;
}

/** How far the logs of a run are written; everything up to there is on the disk afterwards. */
export function markLogs(run: string): LogMark {
  const [metrics, samples] = ["metrics.jsonl", "samples.txt"].map((log) => sizeOnDisk(run, log));
  return { metrics, samples, sha256: sumOfFile(join(run, "metrics.jsonl"), metrics).sha256 };
}

/**
 * Refuses a run whose metrics are not those that it had: what is left of them, or what they were
 * edited to, would pass for the whole.
 *
 * @param logs how far they had been written
 * @throws {UserError} if `metrics.jsonl` is missing, shorter, or another one
 */
export function requireMetrics(path: string, logs: LogMark): void {
  if (logs.metrics === 0) return;
  const file = join(path, "metrics.jsonl");
  const refuse = (reason: string): never => {
    throw new UserError(
      `Cannot resume ${path}: metrics.jsonl${reason}; put it back, or start a new run`,
    );
  };
  const sumOrRefuse = () => {
    try {
      return sumOfFile(file, logs.metrics);
    } catch (error) {
      return refuse(` cannot be read: ${error instanceof Error ? error.message : error}`);
    }
  };
  if (!isThere(file)) refuse(", which it had, is missing");
  const { bytes, sha256 } = sumOrRefuse();
  if (bytes < logs.metrics) refuse(` is cut off, ${bytes} bytes long and not ${logs.metrics}`);
  if (sha256 !== (logs.sha256 ?? sha256)) refuse(" is damaged or edited, its SHA-256 has changed");
}

/**
 * Cuts the logs of a run to where they were, `metrics.jsonl` to a whole line.
 *
 * @throws {UserError} as {@linkcode requireMetrics}
 */
export function cutLogs(path: string, logs: LogMark): void {
  requireMetrics(path, logs);
  writing(path, () => {
    cutLines(join(path, "metrics.jsonl"), logs.metrics);
    cut(join(path, "samples.txt"), logs.samples);
  });
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
