/**
 * Loaded before a command (`deno run --preload`): kills it before one of its calls that change
 * files, or lets that call fail, as `LATENTK_DISTURB` says.
 *
 * @module
 */
import { faults } from "./faults.ts";
import { watched } from "./file_calls.ts";

/** What happens at a call, counted from 0. */
export interface Disturbance {
  readonly at: number;
  /** One of {@linkcode faults}, or SIGKILL. */
  readonly kind: string;
  /** Whether all later calls fail, too. */
  readonly stays: boolean;
}

/** The variable of the environment that tells it, as JSON. */
export const VARIABLE = "LATENTK_DISTURB";

const told = Deno.env.get(VARIABLE);
if (told) disturb(JSON.parse(told));

function disturb({ at, kind, stays }: Disturbance): void {
  let calls = 0;
  const isKill = kind === "SIGKILL";
  const error = faults[kind] ?? (() => new Error("killed"));
  watched(
    ({ name }) => {
      // Removing never fails: see withFault.
      if (!isKill && name === "remove") return null;
      const n = calls++;
      return (stays ? n >= at : n === at) ? error() : null;
    },
    () => new Promise(() => {}),
    (error) => {
      if (isKill) Deno.kill(Deno.pid, "SIGKILL");
      throw error;
    },
  );
}
