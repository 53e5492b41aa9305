/**
 * The progress of a run on stderr: one line rewritten in place on a terminal, plain lines in a
 * pipe. It uses no colour.
 *
 * @module
 */

/** What a progress line shows. */
export interface ProgressUpdate {
  /** Finished steps. */
  readonly step: number;
  /** What the step learns from: the loss, or the KL where only the indexer is trained. */
  readonly label: "loss" | "kl";
  /** Its value: nats a token. */
  readonly loss: number;
  /** Learning rate of the step. */
  readonly lr: number;
  /** Milliseconds a step. */
  readonly stepMs: number;
  /** Mean since the last update. */
  readonly tokensPerSecond: number;
}

/** Where lines go: `Deno.stderr`, or a stand-in. */
export interface ProgressOutput {
  /** Writes some of the bytes and returns how many. */
  writeSync(bytes: Uint8Array): number;
  /** Whether a line can be rewritten in place. */
  isTerminal(): boolean;
}

/** Shows how far a run is. */
export class Progress {
  readonly #steps: number;
  readonly #output: ProgressOutput;
  readonly #format: (steps: number, update: ProgressUpdate) => string;
  readonly #rewrites: boolean;
  #open = false;

  /** For a run of `steps` steps; `format` makes the line. */
  constructor(
    steps: number,
    options: {
      output?: ProgressOutput;
      format?: (steps: number, update: ProgressUpdate) => string;
    } = {},
  ) {
    this.#steps = steps;
    this.#output = options.output ?? Deno.stderr;
    this.#format = options.format ?? formatProgress;
    this.#rewrites = this.#output.isTerminal() && Deno.env.get("TERM") !== "dumb";
  }

  /** Shows the state after a step. */
  update(update: ProgressUpdate): void {
    const line = this.#format(this.#steps, update);
    if (!this.#rewrites) return this.#write(`${line}\n`);
    // A line that wraps could not be rewritten.
    this.#write(`\r${line.slice(0, columns() - 1)}\x1b[K`);
    this.#open = true;
  }

  /** Prints a line of its own, above the progress line. */
  note(text: string): void {
    this.#write(`${this.#open ? "\r\x1b[K" : ""}${text}\n`);
    this.#open = false;
  }

  /** Ends the progress line, so that what follows begins on a new one. */
  done(): void {
    if (this.#open) this.#write("\n");
    this.#open = false;
  }

  #write(text: string): void {
    const bytes = new TextEncoder().encode(text);
    try {
      for (let at = 0; at < bytes.length;) at += this.#output.writeSync(bytes.subarray(at));
    } catch {
      // Nobody reads any longer, or the log's disk is full: no reason for a run to end.
    }
  }
}

/**
 * A progress line.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { formatProgress } from "./progress.ts";
 *
 * const update = { step: 120, label: "loss" as const, loss: 3.412, lr: 3e-4, stepMs: 41.2, tokensPerSecond: 51234 };
 * assert.equal(
 *   formatProgress(2000, update),
 *   "step 00120/02000 (6.0%) | loss 3.412 | lr 3.0e-4 | 41.2 ms | 51,234 tok/s | eta 1.3m",
 * );
 * ```
 */
export function formatProgress(steps: number, update: ProgressUpdate): string {
  const { step, label, loss, lr, stepMs, tokensPerSecond } = update;
  const width = Math.max(5, String(steps).length);
  const percent = (100 * step / steps).toFixed(1);
  return [
    `step ${String(step).padStart(width, "0")}/${String(steps).padStart(width, "0")} (${percent}%)`,
    `${label} ${loss.toFixed(3)}`,
    `lr ${lr.toExponential(1)}`,
    `${stepMs.toFixed(1)} ms`,
    `${Math.round(tokensPerSecond).toLocaleString("en-US")} tok/s`,
    `eta ${formatDuration((steps - step) * stepMs / 1000)}`,
  ].join(" | ");
}

/** Seconds as `42s`, `1.3m`, `2.5h` or `1.2d`. */
export function formatDuration(seconds: number): string {
  if (seconds < 59.5) return `${Math.round(seconds)}s`;
  if (seconds < 3597) return `${(seconds / 60).toFixed(1)}m`;
  if (seconds < 86_220) return `${(seconds / 3600).toFixed(1)}h`;
  return `${(seconds / 86_400).toFixed(1)}d`;
}

function columns(): number {
  try {
    return Deno.consoleSize().columns || 80;
  } catch {
    return 80;
  }
}
