/**
 * How far an ablation is, on stderr.
 *
 * @module
 */
import type { RunConfig } from "../config/config.ts";
import { stageSpans } from "../config/stages.ts";
import {
  formatDuration,
  Progress,
  type ProgressOutput,
  type ProgressUpdate,
} from "../train/progress.ts";

/** Steps of one stage that a part has to train, counted within the part's run. */
interface Piece {
  readonly stage: string;
  readonly start: number;
  readonly end: number;
}

/** Milliseconds between lines where they cannot be rewritten in place. */
const PLAIN_PAUSE_MS = 5000;

/**
 * Shows the run under way and what is left of all. Parts are runs and trunks.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { resolveConfig } from "../config/config.ts";
 * import { AblationProgress } from "./ablation_progress.ts";
 *
 * const progress = new AblationProgress({ runs: 2, done: 1 });
 * progress.plan("a_s0", { config: resolveConfig({ recipe: "dense", steps: 40 }), from: 10 });
 * assert.equal(progress.stepsLeft, 30);
 * ```
 */
export class AblationProgress {
  readonly #runs: number;
  #done: number;
  readonly #pieces = new Map<string, readonly Piece[]>();
  readonly #rates = new Map<string, { ms: number; steps: number }>();
  readonly #line: Progress;
  readonly #isPlain: boolean;
  #total = 0;
  #part = "";
  #last = { step: 0, time: 0 };
  #shown = -Infinity;

  /** For `runs` runs, of which `done` are done. */
  constructor({ runs, done, output = Deno.stderr }: {
    runs: number;
    done: number;
    output?: ProgressOutput;
  }) {
    this.#runs = runs;
    this.#done = done;
    this.#isPlain = !output.isTerminal();
    this.#line = new Progress(0, { output, format: (_, update) => this.#format(update) });
  }

  /** Adds a part that is to be trained from a step of its run on. */
  plan(part: string, { config, from, until = Infinity }: {
    config: RunConfig;
    from: number;
    until?: number;
  }): void {
    const pieces = stageSpans(config.stages).map(({ stage, start, end }) => ({
      stage: stage.name,
      start: Math.max(start, from),
      end: Math.min(end, until),
    }));
    this.#pieces.set(part, pieces.filter(({ start, end }) => start < end));
    this.#total += stepsOf(this.#pieces.get(part)!, 0);
  }

  /** A part begins, or goes on from a step of its run. */
  start(part: string, from: number): void {
    this.#part = part;
    this.#last = { step: from, time: performance.now() };
  }

  /** Shows the state after a step of the part under way. */
  update(update: ProgressUpdate): void {
    const now = performance.now();
    const { step } = update;
    const stage = this.#pieceAt(step)?.stage ?? "";
    const rate = this.#rates.get(stage) ?? { ms: 0, steps: 0 };
    this.#rates.set(stage, {
      ms: rate.ms + now - this.#last.time,
      steps: rate.steps + step - this.#last.step,
    });
    this.#last = { step, time: now };
    if (this.#isPlain && now - this.#shown < PLAIN_PAUSE_MS) return;
    this.#shown = now;
    this.#line.update(update);
  }

  /** What a run says of itself is in its folder. */
  note(): void {}

  /** The part under way has ended; a run also counts as one. */
  finish({ isRun }: { isRun: boolean }): void {
    this.#pieces.delete(this.#part);
    if (isRun) this.#done++;
  }

  /** Prints a line above the progress line. */
  say(text: string): void {
    this.#line.note(text);
  }

  /** Ends the progress line. */
  done(): void {
    this.#line.done();
  }

  /** Steps of all parts that are left. */
  get stepsLeft(): number {
    let left = 0;
    for (const [part, pieces] of this.#pieces) left += stepsOf(pieces, this.#stepIn(part));
    return left;
  }

  #stepIn(part: string): number {
    return part === this.#part ? this.#last.step : 0;
  }

  #pieceAt(step: number): Piece | undefined {
    return this.#pieces.get(this.#part)?.find(({ start, end }) => step > start && step <= end);
  }

  /** Seconds for what is left, at the pace of each stage so far. */
  #eta(): number {
    const all = [...this.#rates.values()];
    const mean = all.reduce((sum, { ms }) => sum + ms, 0) /
      Math.max(1, all.reduce((sum, { steps }) => sum + steps, 0));
    let ms = 0;
    for (const [part, pieces] of this.#pieces) {
      for (const piece of pieces) {
        const rate = this.#rates.get(piece.stage);
        ms += stepsOf([piece], this.#stepIn(part)) * (rate?.steps ? rate.ms / rate.steps : mean);
      }
    }
    return ms / 1000;
  }

  #format({ step, label, loss, stepMs }: ProgressUpdate): string {
    const { stage = "", end = step } = this.#pieceAt(step) ?? {};
    const percent = this.#total ? 100 * (1 - this.stepsLeft / this.#total) : 100;
    return [
      `runs ${this.#done}/${this.#runs}`,
      `${this.#part} ${stage} ${step}/${end}`,
      `${label} ${loss.toFixed(3)}`,
      `${stepMs.toFixed(1)} ms`,
      `all ${percent.toFixed(1)}%`,
      `eta ${formatDuration(this.#eta())}`,
    ].join(" | ");
  }
}

function stepsOf(pieces: readonly Piece[], step: number): number {
  return pieces.reduce((sum, { start, end }) => sum + Math.max(0, end - Math.max(start, step)), 0);
}
