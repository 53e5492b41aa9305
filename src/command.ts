/**
 * What all commands share: exit codes and errors for people.
 *
 * @module
 */
import { MemoryError, UserError } from "./errors.ts";

/** Exit codes of all commands. */
export const exitCodes = {
  done: 0,
  /** A failed run or check. */
  failed: 1,
  /** Wrong usage, configuration or input. */
  usage: 2,
  /** Interrupted, after saving. */
  interrupted: 130,
} as const;

/**
 * Runs a command and exits with its code. A {@linkcode UserError} becomes one line on stderr and
 * exit code 2; any other error is a failure (1).
 */
export async function runCommand(main: (args: string[]) => Promise<number>): Promise<never> {
  let code: number;
  try {
    code = await main(Deno.args);
  } catch (error) {
    if (error instanceof UserError || error instanceof MemoryError) {
      const isMemory = error instanceof MemoryError;
      const message = isMemory
        ? `Cannot fit this on the adapter: ${error.message}; lower batchSize or seqLen`
        : error.message;
      console.error(`error: ${message}`);
      code = exitCodes.usage;
    } else {
      console.error(error instanceof Error ? error.stack ?? error.message : error);
      code = exitCodes.failed;
    }
  }
  Deno.exit(code);
}

/** Splits arguments into flags, `key=value` words and the rest. */
export function splitArguments(
  args: readonly string[],
  flags: readonly string[],
): { flags: Set<string>; pairs: string[]; words: string[] } {
  const out = { flags: new Set<string>(), pairs: [] as string[], words: [] as string[] };
  for (const arg of args) {
    if (arg === "-h" || arg === "--help") out.flags.add("--help");
    else if (flags.includes(arg)) out.flags.add(arg);
    else if (/^-+[^=]*$/.test(arg)) {
      const known = ["--help", ...flags].join(", ");
      throw new UserError(`Cannot read "${arg}": the options are ${known}`);
    } else if (arg.includes("=")) out.pairs.push(arg);
    else out.words.push(arg);
  }
  return out;
}
