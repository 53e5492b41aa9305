/**
 * How commands that run for long are stopped, and what does not stop them.
 *
 * @module
 */
import { exitCodes } from "./command.ts";

/** Ctrl-C, `kill`, and a terminal that is closed. */
const SIGNALS: readonly Deno.Signal[] = Deno.build.os === "windows"
  ? ["SIGINT", "SIGBREAK"]
  : ["SIGINT", "SIGTERM", "SIGHUP"];

/**
 * Hears the signals that ask a run to save and stop. The same one again stops it at once, but for
 * SIGHUP, which a closed terminal may send twice.
 */
export class StopSignals implements Disposable {
  readonly #listeners: (readonly [Deno.Signal, () => void])[];
  #first: Deno.Signal | null = null;

  /** @param onAsked told once, when the first signal arrives */
  constructor(onAsked: () => void) {
    this.#listeners = SIGNALS.map((signal) => [signal, () => {
      if (this.#first === signal && signal !== "SIGHUP") Deno.exit(exitCodes.interrupted);
      if (this.#first) return;
      this.#first = signal;
      onAsked();
    }]);
    for (const [signal, listener] of this.#listeners) Deno.addSignalListener(signal, listener);
  }

  /** Whether the run is to stop. */
  get isAsked(): boolean {
    return this.#first !== null;
  }

  [Symbol.dispose](): void {
    for (const [signal, listener] of this.#listeners) Deno.removeSignalListener(signal, listener);
  }
}

/**
 * Lets a run go on whose lines nobody can read any longer: a pipe that is closed, a log on a full
 * disk. For commands whose results are in a folder, not on stdout.
 */
export function printIfPossible(): void {
  for (const name of ["log", "error"] as const) {
    const print = console[name].bind(console);
    console[name] = (...values: unknown[]) => {
      try {
        print(...values);
      } catch {
        // There is nobody to be told.
      }
    };
  }
}
